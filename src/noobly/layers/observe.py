"""Observe: one histogram entry, one span, one event and one structured log line for each operation."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from logging import DEBUG
from time import perf_counter
from typing import cast

from noobly.core.binding import Layer
from noobly.core.meter import BOUNDS
from noobly.core.operation import Call, Driver, Now, Operation
from noobly.core.scope import Scope
from noobly.layers.report import Report
from noobly.layers.spans import traced, tracing


def observe(scope: Scope) -> Layer:
    """Report every operation with its final outcome; spans only where a tracer provider was set before opening."""
    spans = tracing()

    def layer(operation: Operation, driver: Driver, inner: Call) -> Call:
        report = Report(operation, scope)
        if operation.immediate and not spans:
            return cast(Call, _measured_now(report, scope.environment.clock.monotonic, cast(Now, inner)))
        measured = _measured(report, inner, spans=spans)
        return traced(operation, scope, measured) if spans else measured

    return layer


def _measured(report: Report, inner: Call, *, spans: bool) -> Call:
    cell, counts, topic, debug = report.cell, report.cell.counts, report.topic, report.debug

    async def observed(*args: object) -> object:
        began = perf_counter()
        try:
            result = await inner(*args)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            report.failed(error, perf_counter() - began)
        took = perf_counter() - began
        cell.total += took
        place = bisect_left(BOUNDS, took)
        counts[place] += 1
        if spans:
            cell.mark(took, place)
        if topic.handlers or debug.get(DEBUG, True):
            report.tell(took, "ok")
        return result

    return observed


def _measured_now(report: Report, clock: Callable[[], float], inner: Now) -> Now:
    cell, topic, debug = report.cell, report.topic, report.debug

    def observed(argument: object, began: float) -> object:
        try:
            result = inner(argument, began)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            report.failed(error, clock() - began)
        if cell.unmeasured and not topic.handlers:
            cell.unmeasured -= 1
            return result
        took = clock() - began
        if topic.handlers or debug.get(DEBUG, True):
            cell.add(took)
            report.tell(took, "ok")
        else:
            cell.sample(took)
        return result

    return observed
