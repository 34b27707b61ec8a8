"""Metrics as OTLP over HTTP, as a collector receives them."""

from __future__ import annotations

import asyncio
import sys

import pytest
from prometheus_client import Info

from noobly.core.errors import MissingDependency
from noobly.core.meter import Meter
from noobly.measuring.instruments import Instruments
from noobly.measuring.push import Push, push
from noobly.testing import eventually

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from ..otlp import collecting


def attributes(point: object) -> dict[str, str]:
    return {one.key: one.value.string_value for one in point.attributes}  # type: ignore[attr-defined]


async def test_all_kinds_arrive() -> None:
    meter = Meter()
    instruments = Instruments(meter)
    instruments.counter("orders_total", "Orders.", labels=["kind"]).inc(3, kind='a"\n\\b')
    instruments.gauge("depth_bytes", "Depth.").set(-2.5)
    sizes = instruments.histogram("took_seconds", "Took.", labels=["a", "z"], buckets=[1, 10])
    for took in (0.5, 5, 5, 50):
        sizes.observe(took, a="1", z="2")
    sizes.observe(2, a="2", z="2")
    instruments.summary("load", "Load.", quantiles=[0.5]).observe(4)
    Info("build", "Build.", registry=meter.registry).info({"version": "7"})
    with collecting() as collector:
        async with push(meter, Push(url=collector.url, resource={"service.name": "shop"})):
            pass
        request, metrics = collector.requests[-1], collector.last()
    resource = {one.key: one.value.string_value for one in request.resource_metrics[0].resource.attributes}
    assert resource["service.name"] == "shop"
    orders = metrics["orders"].sum
    assert orders.is_monotonic
    assert orders.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert (attributes(orders.data_points[0]), orders.data_points[0].as_double) == ({"kind": 'a"\n\\b'}, 3)
    assert orders.data_points[0].start_time_unix_nano <= orders.data_points[0].time_unix_nano
    assert (metrics["depth_bytes"].unit, metrics["depth_bytes"].gauge.data_points[0].as_double) == ("By", -2.5)
    first, second = metrics["took_seconds"].histogram.data_points
    assert (attributes(first), attributes(second)) == ({"a": "1", "z": "2"}, {"a": "2", "z": "2"})
    assert list(first.bucket_counts) == [1, 2, 1]
    assert (list(first.explicit_bounds), first.count, first.sum) == ([1, 10], 4, 60.5)
    assert not first.HasField("min")
    assert (metrics["load_count"].sum.data_points[0].as_double, metrics["took_seconds"].unit) == (1, "s")
    assert metrics["load_sum"].gauge.data_points[0].as_double == 4
    assert attributes(metrics["build"].gauge.data_points[0]) == {"version": "7"}


async def test_it_pushes_again_and_again() -> None:
    meter = Meter()
    orders = Instruments(meter).counter("orders_total", "Orders.")
    with collecting() as collector:
        async with push(meter, Push(url=collector.url, interval=0.02)):
            await eventually(lambda: len(collector.requests) >= 2)
            orders.inc()
            await eventually(lambda: collector.last()["orders"].sum.data_points[0].as_double == 1)


async def test_a_collector_that_refuses_is_said_once_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    meter = Meter()
    with collecting() as collector:
        collector.status = 400
        async with push(meter, Push(url=collector.url, interval=0.02, timeout=0.5)):
            await eventually(lambda: "cannot be pushed" in caplog.text)
            await asyncio.sleep(0.1)
            collector.status = 200
            await eventually(lambda: bool(collector.requests))
    assert caplog.text.count("metrics cannot be pushed") == 1


async def test_without_the_exporter_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    with pytest.raises(MissingDependency, match=r"noobly\[otlp\]"):
        async with push(Meter(), Push(url="http://127.0.0.1:1/v1/metrics")):
            pass
