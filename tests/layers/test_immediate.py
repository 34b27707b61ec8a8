"""The immediate form of an operation: reported like any other, and not offered where a layer has to wait."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import cast

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from noobly.caching import open_cache
from noobly.caching.driver import CacheDriver
from noobly.caching.events import Hit
from noobly.caching.providers.memory import MemoryCache, MemoryConfig
from noobly.core.binding import Layer, bind, seal
from noobly.core.errors import Closed, Internal, InvalidArgument
from noobly.core.events import OperationFinished
from noobly.core.scope import Environment, Policy, Scope
from noobly.core.series import UNMEASURED
from noobly.layers import Breaker, default_stack
from noobly.testing import FakeClock
from noobly.testing.faults import Faults


class Broken(MemoryCache):
    def get_now(self, key: str, now: float, /) -> bytes | None:
        raise KeyError(key)


class Far(MemoryCache):
    in_process = False


class Place:
    """A bound memory provider with what its layers report to."""

    def __init__(self, kind: type[MemoryCache] = MemoryCache, *inner: Layer) -> None:
        self.clock = FakeClock()
        self.environment = Environment(clock=self.clock)
        self.scope = Scope(
            service="caching", instance="default", provider="memory", policy=Policy(), environment=self.environment
        )
        bare = cast(CacheDriver, kind(MemoryConfig(), self.environment))
        self.driver = bind(CacheDriver, bare, default_stack(self.scope, Breaker(self.scope), inner=inner))

    def read(self, key: str) -> bytes | None:
        assert self.driver.get_now is not None
        return self.driver.get_now(key, self.clock.monotonic())

    def count(self, outcome: str) -> int:
        return self.environment.meter.cell("caching", "default", "memory", "get", outcome).count


async def test_it_reads_what_the_operation_reads_and_is_counted_as_it() -> None:
    place = Place()
    await place.driver.put("a", b"1", 10.0)
    assert (place.read("a"), await place.driver.get("a"), place.read("b")) == (b"1", b"1", None)
    assert place.count("ok") == 3
    place.clock.advance(10.0)
    assert place.read("a") is None


async def test_a_measured_call_stands_for_those_that_were_not() -> None:
    place = Place()
    cell = place.environment.meter.cell("caching", "default", "memory", "get", "ok")
    assert place.driver.get_now is not None
    logging.getLogger("noobly.operation").isEnabledFor(logging.DEBUG)  # What it has remembered is asked for each time.
    for began in (-0.5, *[0.0] * UNMEASURED, -3.0, 0.0):
        place.driver.get_now("a", place.clock.monotonic() + began)
    text = generate_latest(place.environment.meter.registry).decode()
    half, three = UNMEASURED + 1, 2
    labels = 'instance="default",operation="get",outcome="ok",provider="memory",service="caching"'
    assert f"noobly_operation_duration_seconds_count{{{labels}}} {half + three}.0" in text
    assert cell.count == half + three
    assert cell.total == 0.5 * half + 3.0 * three
    assert [count for count in cell.counts if count] == [half, three]


async def test_it_is_told_and_logged_with_what_it_took(caplog: pytest.LogCaptureFixture) -> None:
    place, seen = Place(), list[OperationFinished]()
    place.environment.bus.subscribe(OperationFinished, seen.append)
    assert place.driver.get_now is not None
    with caplog.at_level(logging.DEBUG, logger="noobly.operation"):
        place.driver.get_now("a", place.clock.monotonic() - 0.25)
    assert [(event.operation, event.outcome, event.seconds) for event in seen] == [("get", "ok", 0.25)]
    assert "caching.get" in caplog.text


async def test_what_goes_wrong_is_a_defect_and_counted_as_such() -> None:
    place = Place(Broken)
    with pytest.raises(Internal, match="memory failed in get") as raised:
        place.read("a")
    assert (raised.value.service, raised.value.operation) == ("caching", "get")
    assert (place.count("internal"), place.count("ok")) == (1, 0)


async def test_it_is_not_offered_where_a_layer_has_to_wait() -> None:
    faults = Faults()
    assert Place(MemoryCache, faults.layer).driver.get_now is None
    assert Place(Far).driver.get_now is None


async def test_nor_where_each_call_has_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    async with open_cache("memory://") as cache:
        await cache.put("a", 1.5)
        exporter.clear()
        assert await cache.get("a") == 1.5
    assert [span.name for span in exporter.get_finished_spans()] == ["caching.get"]
    provider.shutdown()


async def test_after_the_end_it_is_closed() -> None:
    place = Place()
    seal(place.driver, CacheDriver, "it is over")
    with pytest.raises(Closed, match="it is over"):
        place.read("a")


async def test_a_closed_cache_says_so() -> None:
    async with AsyncExitStack() as stack:
        cache = await stack.enter_async_context(open_cache("memory://"))
        await cache.put("a", [1])
    with pytest.raises(Closed):
        await cache.get("a")


async def test_through_the_cache_every_hit_is_counted_once_whether_somebody_listens_or_not() -> None:
    environment = Environment()
    async with open_cache("memory://", environment=environment) as cache:
        await cache.put("a:1", {"list": [1]})
        for _ in range(3):
            (await cache.get("a:1"))["list"].append(2)
        seen: list[Hit] = []
        end = environment.bus.subscribe(Hit, seen.append)
        assert await cache.get("a:1") == {"list": [1]}
        end()
        await cache.get("a:1")
        assert seen == [Hit("caching", "default", "a:1")]
        stats = await cache.stats()
        assert (stats.total.hits, stats.namespaces["a"].hits, stats.hot[0].count) == (5, 5, 5)
        assert environment.meter.cell("caching", "default", "memory", "get", "ok").count == 5


async def test_keys_stay_apart_after_hits_whatever_marks_they_hold() -> None:
    async with open_cache("memory://") as cache:
        keys = ["a", "a\x1f", "a\x1f\x1f", "a\x1f\x1f\x1f\x1f", "a\x1fc"]
        for number, key in enumerate(keys):
            await cache.put(key, number)
        for _ in range(3):
            assert [await cache.get(key) for key in keys] == [0, 1, 2, 3, 4]
        assert await cache.get("a\x1f\x1fc") is None
        assert (await cache.stats()).total.hits == 15


async def test_a_bad_key_is_refused_before_anything_is_read() -> None:
    environment = Environment()
    async with open_cache("memory://", environment=environment) as cache:
        await cache.put("a\x1fc", 1)
        assert await cache.get("a\x1fc") == 1
        for bad in ("", "x" * 1025, 5, None, ["a"], "\ud800"):
            with pytest.raises(InvalidArgument):
                await cache.get(bad)  # type: ignore[arg-type, call-overload]
        assert sum(environment.meter.cell("caching", "default", "memory", "get", "ok").counts) == 1
