"""Observe: one histogram entry, one span, one event and one structured log line for each operation."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable
from time import perf_counter
from typing import cast

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from noobly.core.binding import Layer
from noobly.core.errors import NooblyError
from noobly.core.events import OperationFinished
from noobly.core.journal import Said
from noobly.core.meter import BOUNDS
from noobly.core.operation import Call, Driver, Operation
from noobly.core.scope import Scope
from noobly.layers.classify import unknown

Now = Callable[[object, float], object]
"""An immediate call: its argument, and when it began."""

_STDLIB = logging.getLogger("noobly.operation")


def observe(scope: Scope) -> Layer:
    """Report every operation with its final outcome; spans only where a tracer provider was set before opening."""
    tracing = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)

    def layer(operation: Operation, driver: Driver, inner: Call) -> Call:
        if operation.immediate and not tracing:
            return cast(Call, _measured_now(operation, scope, cast(Now, inner)))
        measured = _measured(operation, scope, inner, tracing=tracing)
        return _traced(operation, scope, measured) if tracing else measured

    return layer


def _measured(operation: Operation, scope: Scope, inner: Call, *, tracing: bool) -> Call:
    cell = scope.environment.meter.cell(scope.service, scope.instance, scope.provider, operation.name, "ok")
    counts, logs, debug = cell.counts, _STDLIB.isEnabledFor, logging.DEBUG
    topic = scope.environment.bus.topic(OperationFinished, scope.service, scope.instance)
    tell = _teller(operation, scope)

    async def observed(*args: object) -> object:
        began = perf_counter()
        try:
            result = await inner(*args)
        except BaseException as error:
            failure = _failed(error, operation, scope, tell, perf_counter() - began)
            if failure is error:
                raise
            raise failure from error
        took = perf_counter() - began
        cell.total += took
        place = bisect_left(BOUNDS, took)
        counts[place] += 1
        if tracing:
            cell.mark(took, place)
        if topic.handlers or logs(debug):
            tell(took, "ok")
        return result

    return observed


def _measured_now(operation: Operation, scope: Scope, inner: Now) -> Now:
    cell = scope.environment.meter.cell(scope.service, scope.instance, scope.provider, operation.name, "ok")
    counts, logs, debug, clock = cell.counts, _STDLIB.isEnabledFor, logging.DEBUG, scope.environment.clock.monotonic
    shortest = BOUNDS[0]
    topic = scope.environment.bus.topic(OperationFinished, scope.service, scope.instance)
    tell = _teller(operation, scope)

    def observed(argument: object, began: float) -> object:
        try:
            result = inner(argument, began)
        except BaseException as error:
            failure = _failed(error, operation, scope, tell, clock() - began)
            if failure is error:
                raise
            raise failure from error
        took = clock() - began
        cell.total += took
        counts[0 if took <= shortest else bisect_left(BOUNDS, took)] += 1
        if topic.handlers or logs(debug):
            tell(took, "ok")
        return result

    return observed


def _failed(
    error: BaseException, operation: Operation, scope: Scope, tell: Callable[[float, str], None], took: float
) -> BaseException:
    """Report a failure and return it; what no provider has classified is Internal."""
    if isinstance(error, Exception) and not isinstance(error, NooblyError):
        error = unknown(error, operation, scope.provider)
    outcome = "cancelled"
    if isinstance(error, NooblyError):
        outcome = error.code
        error.service, error.operation = scope.service, operation.name
        error.provider = error.provider or scope.provider
    names = (scope.service, scope.instance, scope.provider, operation.name)
    scope.environment.meter.cell(*names, outcome).add(took)
    tell(took, outcome)
    return error


def _teller(operation: Operation, scope: Scope) -> Callable[[float, str], None]:
    bus, name = scope.environment.bus, f"{scope.service}.{operation.name}"

    def tell(took: float, outcome: str) -> None:
        bus.emit(OperationFinished(scope.service, scope.instance, scope.provider, operation.name, outcome, took))
        if _STDLIB.isEnabledFor(logging.DEBUG):
            fields = {"service": scope.service, "instance": scope.instance, "provider": scope.provider}
            _STDLIB.debug(Said(name, {**fields, "outcome": outcome, "seconds": round(took, 7)}))

    return tell


def _traced(operation: Operation, scope: Scope, inner: Call) -> Call:
    tracer = trace.get_tracer("noobly")
    name = f"{scope.service}.{operation.name}"
    attributes = {"noobly.instance": scope.instance, "noobly.provider": scope.provider}

    async def traced(*args: object) -> object:
        with tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes):
            return await inner(*args)

    return traced
