"""Push: the same metrics as OTLP over HTTP, for collectors that do not scrape; needs ``noobly[otlp]``.

What is sent is what the exposition shows: counters and histograms since the process began (cumulative), gauges as they
are. A summary goes as its count and sum. Headers, certificates and compression are read by the exporter from
``OTEL_EXPORTER_OTLP_*`` (https://opentelemetry.io/docs/specs/otel/protocol/exporter/), so that no secret passes here.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from noobly.core.errors import MissingDependency
from noobly.core.lines import Block, Line
from noobly.core.meter import Meter
from noobly.measuring.exposition import Exposition

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import Metric, MetricsData, NumberDataPoint

_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_UNKNOWN = cast("float", None)
"""What the exporter leaves out; it has no type for it."""

_log = logging.getLogger("noobly.metrics")


class Push(msgspec.Struct, frozen=True, kw_only=True):
    """Where metrics are pushed to, and how often.

    Args:
        url: The collector's whole URL, such as ``http://localhost:4318/v1/metrics``.
        interval: Seconds from one push to the next.
        timeout: Seconds one push may take, the exporter's own repetitions included.
        resource: What describes this process: ``service.name`` and others.
    """

    url: str
    interval: float = 60.0
    timeout: float = 10.0
    resource: Mapping[str, str] = {}


class Sent(NamedTuple):
    """One line taken apart."""

    name: str
    labels: dict[str, str]
    value: float


@asynccontextmanager
async def push(meter: Meter, to: Push) -> AsyncIterator[None]:
    """Push a meter's metrics for the body of an ``async with``, and once more at its end.

    Raises:
        MissingDependency: The exporter is not installed.
    """
    exporter = _exporter(to)
    exposition, began = Exposition(meter), time.time_ns()
    failing = False

    async def once() -> None:
        nonlocal failing
        blocks = await exposition.own()
        ok = await asyncio.to_thread(_send, exporter, blocks, to, began)
        if not ok and not failing:
            _log.warning("metrics cannot be pushed; they are tried again every %g s", to.interval)
        failing = not ok

    async def forever() -> None:
        while True:
            await asyncio.sleep(to.interval)
            await once()

    task = asyncio.create_task(forever(), name="push metrics")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await once()
        await asyncio.to_thread(exporter.shutdown)


def _exporter(to: Push) -> OTLPMetricExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError as error:
        raise MissingDependency(f"pushing metrics needs {error.name}: pip install 'noobly[otlp]'") from error
    return OTLPMetricExporter(endpoint=to.url, timeout=to.timeout)


def _send(exporter: OTLPMetricExporter, blocks: Sequence[Block], to: Push, began: int) -> bool:
    from opentelemetry.sdk.metrics.export import MetricExportResult

    return exporter.export(as_otlp(blocks, to.resource, began)) is MetricExportResult.SUCCESS


def as_otlp(blocks: Sequence[Block], resource: Mapping[str, str], began: int) -> MetricsData:
    """Return families as the exporter takes them; called in a thread.

    Args:
        blocks: The families.
        resource: What describes the process.
        began: When counting began, in nanoseconds since the epoch.
    """
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    stamps = _Stamps(began, time.time_ns())
    metrics = [metric for block in blocks for metric in _metrics(block, stamps)]
    scope = ScopeMetrics(InstrumentationScope("noobly"), metrics, "")
    return MetricsData([ResourceMetrics(Resource.create(dict(resource)), [scope], "")])


class _Stamps(NamedTuple):
    began: int
    now: int


def _metrics(block: Block, stamps: _Stamps) -> Iterator[Metric]:
    lines = [_taken_apart(line) for line in block.lines]
    kind, name = block.head.type, block.head.name
    if kind == "histogram":
        yield _histogram(block, [one for one in lines if one.name != f"{name}_created"], stamps)
    elif kind == "counter":
        yield _sum(block, name, [one for one in lines if one.name == f"{name}_total"], stamps)
    elif kind == "summary":
        yield _sum(block, f"{name}_count", [one for one in lines if one.name == f"{name}_count"], stamps)
        yield _gauge(block, f"{name}_sum", [one for one in lines if one.name == f"{name}_sum"], stamps)
    else:
        yield _gauge(block, name, lines, stamps)


def _sum(block: Block, name: str, lines: Sequence[Sent], stamps: _Stamps) -> Metric:
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Metric, Sum

    data = Sum(_points(lines, stamps), AggregationTemporality.CUMULATIVE, is_monotonic=True)
    return Metric(name, block.head.text, _unit(name), data)


def _gauge(block: Block, name: str, lines: Sequence[Sent], stamps: _Stamps) -> Metric:
    from opentelemetry.sdk.metrics.export import Gauge, Metric

    return Metric(name, block.head.text, _unit(name), Gauge(_points(lines, stamps)))


def _points(lines: Sequence[Sent], stamps: _Stamps) -> list[NumberDataPoint]:
    from opentelemetry.sdk.metrics.export import NumberDataPoint

    return [NumberDataPoint(one.labels, stamps.began, stamps.now, one.value) for one in lines]


def _histogram(block: Block, lines: Sequence[Sent], stamps: _Stamps) -> Metric:
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Histogram, HistogramDataPoint, Metric

    points: list[HistogramDataPoint] = []
    for labels, group in groupby(lines, key=_without_bound):
        found = list(group)
        buckets = [one for one in found if "le" in one.labels]
        running = [int(one.value) for one in buckets]
        counts = [after - before for before, after in zip([0, *running], running, strict=False)]
        total = next(one.value for one in found if one.name.endswith("_sum"))
        bounds = [float(one.labels["le"]) for one in buckets[:-1]]
        values = (running[-1], total, counts, bounds, _UNKNOWN, _UNKNOWN)
        points.append(HistogramDataPoint(dict(labels), stamps.began, stamps.now, *values))
    data = Histogram(points, AggregationTemporality.CUMULATIVE)
    return Metric(block.head.name, block.head.text, _unit(block.head.name), data)


def _without_bound(line: Sent) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in line.labels.items() if name != "le")


def _unit(name: str) -> str:
    # Units as UCUM writes them (https://opentelemetry.io/docs/specs/semconv/general/metrics/#instrument-units).
    plain = name.removesuffix("_total")
    return "s" if plain.endswith("_seconds") else "By" if plain.endswith("_bytes") else "1"


def _taken_apart(line: Line) -> Sent:
    start, value = line
    name, _, labels = start.partition("{")
    found = {label: _plain(text) for label, text in _LABEL.findall(labels)}
    return Sent(name.rstrip(), found, value)


def _plain(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], text)
