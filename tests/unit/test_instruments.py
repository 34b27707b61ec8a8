"""Instruments: what they count, what they refuse, and that their series stay bounded."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
from enum import Enum

import pytest
from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from prometheus_client import Counter as TheirCounter
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from noobly.core.errors import AlreadyExists, InvalidArgument
from noobly.core.lines import Merge
from noobly.core.meter import OVERFLOW, Meter
from noobly.measuring import summaries
from noobly.measuring.instruments import Instruments


class Method(Enum):
    GET = "GET"
    PUT = "PUT"


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def instruments(meter: Meter) -> Instruments:
    return Instruments(meter)


def value(meter: Meter, name: str, **labels: str) -> float | None:
    return meter.registry.get_sample_value(name, labels)


class TestCounters:
    def test_without_labels_it_is_there_from_the_start(self, meter, instruments):
        orders = instruments.counter("orders_total", "Orders.")
        assert value(meter, "orders_total") == 0
        orders.inc()
        orders.inc(2.5)
        assert value(meter, "orders_total") == 3.5

    def test_labels_by_name_by_order_and_bound(self, meter, instruments):
        orders = instruments.counter("orders_total", "Orders.", labels=["country", "kind"])
        orders.inc(country="SE", kind="book")
        orders.inc(2, kind="book", country="SE")
        bound = orders.labels("SE", "book")
        bound.inc()
        assert orders.labels(kind="book", country="SE") is bound
        assert value(meter, "orders_total", country="SE", kind="book") == 4

    @pytest.mark.parametrize("amount", [-1, math.nan, math.inf, -math.inf])
    def test_it_only_goes_up_by_finite_amounts(self, meter, instruments, amount):
        with pytest.raises(InvalidArgument, match="goes up"):
            instruments.counter("orders_total", "Orders.").inc(amount)
        assert value(meter, "orders_total") == 0

    def test_no_increment_is_lost_between_threads(self, meter, instruments):
        orders = instruments.counter("orders_total", "Orders.", labels=["kind"])
        sizes = instruments.histogram("size_bytes", "Sizes.", buckets=[1, 10])
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:

            def work():
                bound = orders.labels("a")
                for _ in range(20_000):
                    bound.inc()
                    orders.inc(kind="b")
                    sizes.observe(5)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(before)
        assert [value(meter, "orders_total", kind=kind) for kind in "ab"] == [80_000, 80_000]
        assert value(meter, "size_bytes_count") == 80_000
        assert value(meter, "size_bytes_sum") == 400_000


class TestGauges:
    def test_up_and_down(self, meter, instruments):
        depth = instruments.gauge("depth", "Depth.", labels=["queue"])
        depth.set(5, queue="a")
        depth.inc(2, queue="a")
        depth.dec(queue="a")
        assert value(meter, "depth", queue="a") == 6
        depth.labels("a").set(math.nan)
        assert math.isnan(value(meter, "depth", queue="a") or 0)

    def test_a_callback_is_asked_at_each_exposition(self, meter, instruments, caplog):
        queue = [1, 2]
        instruments.gauge("depth", "Depth.").callback(lambda: len(queue))
        assert value(meter, "depth") == 2
        queue.append(3)
        assert value(meter, "depth") == 3

        def fails() -> float:
            raise ZeroDivisionError

        instruments.gauge("broken", "Broken.").callback(fails)
        assert math.isnan(value(meter, "broken") or 0)
        assert "callback of the gauge broken failed" in caplog.text

    async def test_in_progress(self, meter, instruments):
        running = instruments.gauge("running", "Running.")
        seen: list[float | None] = []

        @running.in_progress()
        async def work() -> None:
            seen.append(value(meter, "running"))
            await asyncio.sleep(0)
            raise KeyError

        results = await asyncio.gather(work(), work(), return_exceptions=True)
        assert [type(result) for result in results] == [KeyError, KeyError]
        assert seen == [1, 2]
        with running.in_progress():
            assert value(meter, "running") == 1
        assert value(meter, "running") == 0

    def test_the_time_of_setting_is_kept_where_it_decides(self, instruments):
        last = instruments.gauge("last", "Last.", merge=Merge.MOSTRECENT).labels()
        assert last.at == 0
        last.inc(3)
        first = last.at
        assert first > 0
        last.dec()
        assert (last.value, last.at >= first) == (2, True)


class TestHistograms:
    def test_buckets_are_cumulative_and_bounds_belong_below(self, meter, instruments):
        sizes = instruments.histogram("size_bytes", "Sizes.", labels=["zone", "a"], buckets=[1, 10, math.inf])
        for size in (0.5, 1, 5, 11):
            sizes.observe(size, zone="z", a="1")
        found = [value(meter, "size_bytes_bucket", zone="z", a="1", le=le) for le in ("1.0", "10.0", "+Inf")]
        assert found == [2, 3, 4]
        assert value(meter, "size_bytes_sum", zone="z", a="1") == 17.5

    @pytest.mark.parametrize("size", [math.nan, math.inf, -math.inf])
    def test_only_finite_values(self, meter, instruments, size):
        with pytest.raises(InvalidArgument, match="finite"):
            instruments.histogram("size_bytes", "Sizes.").observe(size)
        assert value(meter, "size_bytes_count") == 0

    @pytest.mark.parametrize("buckets", [[], [2, 1], [1, 1], [math.nan], [-math.inf, 1], [math.inf]])
    def test_bad_buckets(self, instruments, buckets):
        with pytest.raises(InvalidArgument, match="ascending"):
            instruments.histogram("size_bytes", "Sizes.", buckets=buckets)


class TestTimers:
    async def test_with_plain_and_async(self, meter, instruments):
        took = instruments.timer("took_seconds", "Took.", labels=["how"])
        with took(how="with"):
            pass

        @took(how="plain")
        def plain(number: int) -> int:
            return number + 1

        @took(how="async")
        async def later(number: int) -> int:
            await asyncio.sleep(0.02)
            return number + 2

        assert (plain(1), plain.__name__) == (2, "plain")
        assert await asyncio.gather(later(1), later(2)) == [3, 4]
        counts = [value(meter, "took_seconds_count", how=how) for how in ("with", "plain", "async")]
        assert counts == [1, 1, 2]
        assert 0.04 <= (value(meter, "took_seconds_sum", how="async") or 0) < 5

    def test_a_failure_is_counted_too(self, meter, instruments):
        took = instruments.timer("took_seconds", "Took.")
        with pytest.raises(KeyError), took():
            raise KeyError
        assert value(meter, "took_seconds_count") == 1

    def test_recursion_counts_each_call(self, meter, instruments):
        took = instruments.timer("took_seconds", "Took.")

        @took()
        def down(number: int) -> int:
            return number if number == 0 else down(number - 1)

        down(3)
        assert value(meter, "took_seconds_count") == 4

    def test_generators_are_refused(self, instruments):
        took = instruments.timer("took_seconds", "Took.")
        with pytest.raises(InvalidArgument, match="is a generator"):

            @took()
            def numbers():
                yield 1

    def test_the_unit_is_in_the_name(self, instruments):
        with pytest.raises(InvalidArgument, match="_seconds"):
            instruments.timer("took", "Took.")


class TestSummaries:
    def test_count_and_sum(self, meter, instruments):
        instruments.summary("size_bytes", "Sizes.").observe(2)
        assert (value(meter, "size_bytes_count"), value(meter, "size_bytes_sum")) == (1, 2)
        assert value(meter, "size_bytes", quantile="0.5") is None

    def test_quantiles_are_within_one_percent_and_of_the_last_minutes(self, meter, instruments, monkeypatch):
        now = 1000.0
        monkeypatch.setattr(summaries, "monotonic", lambda: now)
        sizes = instruments.summary("size_bytes", "Sizes.", quantiles=[0.5, 0.99])
        assert math.isnan(value(meter, "size_bytes", quantile="0.5") or 0)
        for size in range(1, 1001):
            sizes.observe(size)
        assert value(meter, "size_bytes", quantile="0.5") == pytest.approx(500, rel=0.01)
        assert value(meter, "size_bytes", quantile="0.99") == pytest.approx(990, rel=0.01)
        now += summaries.WINDOW_SECONDS
        sizes.observe(7)
        assert value(meter, "size_bytes", quantile="0.5") == pytest.approx(500, rel=0.01)
        now += summaries.WINDOW_SECONDS
        assert value(meter, "size_bytes", quantile="0.5") == pytest.approx(7, rel=0.01)
        now += 2 * summaries.WINDOW_SECONDS
        assert math.isnan(value(meter, "size_bytes", quantile="0.5") or 0)
        assert value(meter, "size_bytes_count") == 1001

    @pytest.mark.parametrize("quantiles", [[1.5], [-0.1], [0.9, 0.5], [math.nan]])
    def test_bad_quantiles(self, instruments, quantiles):
        with pytest.raises(InvalidArgument, match="from 0 to 1"):
            instruments.summary("size_bytes", "Sizes.", quantiles=quantiles)

    def test_time_and_values_that_are_not_finite(self, meter, instruments):
        took = instruments.summary("took_seconds", "Took.")
        with took.time():
            pass
        assert value(meter, "took_seconds_count") == 1
        with pytest.raises(InvalidArgument, match="finite"):
            took.observe(math.nan)


class TestDeclarations:
    def test_again_alike_gives_the_same_series(self, meter, instruments):
        instruments.counter("orders_total", "Orders.", labels=["kind"]).inc(kind="a")
        Instruments(meter).counter("orders_total", "Orders.", labels=["kind"]).inc(kind="a")
        assert value(meter, "orders_total", kind="a") == 2

    def test_otherwise_is_refused(self, instruments):
        instruments.histogram("orders", "Orders.", labels=["kind"], buckets=[1, 2])
        with pytest.raises(AlreadyExists, match=r"the labels other .* the histogram orders .* the labels kind"):
            instruments.histogram("orders", "Orders.", labels=["other"], buckets=[1, 2])
        with pytest.raises(AlreadyExists, match="the gauge orders"):
            instruments.gauge("orders", "Orders.", labels=["kind"])
        with pytest.raises(AlreadyExists, match="buckets"):
            instruments.histogram("orders", "Orders.", labels=["kind"], buckets=[1, 3])
        instruments.summary("sizes", "Sizes.", quantiles=[0.5])
        with pytest.raises(AlreadyExists, match="sizes"):
            instruments.summary("sizes", "Sizes.", quantiles=[0.9])

    def test_a_name_of_prometheus_client_in_the_same_registry(self, meter, instruments):
        TheirCounter("orders", "Theirs.", registry=meter.registry)
        with pytest.raises(AlreadyExists, match="orders_total"):
            instruments.counter("orders_total", "Orders.")

    def test_names_that_formats_would_confuse(self, instruments):
        instruments.histogram("orders", "Orders.")
        with pytest.raises(InvalidArgument, match="_count"):
            instruments.gauge("orders_count", "Orders.")

    @pytest.mark.parametrize(
        "name", ["", "1a", "a-b", "a b", "ä", "__a_total", "a:b_total", "a" * 201, "_total", "a_sum_total", "orders"]
    )
    def test_bad_counter_names(self, instruments, name):
        with pytest.raises(InvalidArgument):
            instruments.counter(name, "Text.")

    @pytest.mark.parametrize(
        "labels", [["1a"], ["a-b"], ["__a"], ["a", "a"], ["le"], "kind", [""], [1], [f"l{n}" for n in range(17)]]
    )
    def test_bad_labels(self, instruments, labels):
        with pytest.raises(InvalidArgument):
            instruments.histogram("sizes", "Sizes.", labels=labels)

    def test_reserved_labels_are_so_by_kind(self, instruments):
        instruments.gauge("g", "G.", labels=["le", "quantile"])
        with pytest.raises(InvalidArgument, match="quantile"):
            instruments.summary("s", "S.", labels=["quantile"])

    def test_a_text_is_needed(self, instruments):
        with pytest.raises(InvalidArgument, match="says what it measures"):
            instruments.gauge("g", " ")


class TestLabels:
    @pytest.mark.parametrize("given", [{}, {"kind": "a"}, {"kind": "a", "other": "b"}, {"a": "1", "b": "2", "c": "3"}])
    def test_exactly_the_declared_ones(self, instruments, given):
        orders = instruments.counter("orders_total", "Orders.", labels=["kind", "country"])
        with pytest.raises(InvalidArgument, match=r"orders .*kind, country"):
            orders.inc(**given)

    def test_by_order_there_are_as_many(self, instruments):
        orders = instruments.counter("orders_total", "Orders.", labels=["kind", "country"])
        for values in ((), ("a",), ("a", "b", "c")):
            with pytest.raises(InvalidArgument, match="exactly the labels kind, country"):
                orders.labels(*values)
        with pytest.raises(InvalidArgument, match="exactly the labels none"):
            instruments.counter("plain_total", "Plain.").inc(kind="a")

    def test_types(self, meter, instruments):
        seen = instruments.counter(
            "seen_total", "Seen.", labels={"method": Method, "status": int, "cached": bool, "path": str}
        )
        seen.inc(method=Method.GET, status=200, cached=True, path="/")
        assert value(meter, "seen_total", method="GET", status="200", cached="true", path="/") == 1
        good = {"method": Method.GET, "status": 200, "cached": True, "path": "/"}
        for name, wrong in (("method", "GET"), ("status", "200"), ("status", True), ("cached", 1), ("path", None)):
            with pytest.raises(InvalidArgument, match=f"label {name} of seen takes"):
                seen.inc(**{**good, name: wrong})

    def test_values_are_bounded_and_can_be_written(self, meter, instruments):
        seen = instruments.counter("seen_total", "Seen.", labels=["what"])
        seen.inc(what="x" * 1000)
        seen.inc(what="half \ud800")
        assert value(meter, "seen_total", what="x" * 256) == 1
        assert value(meter, "seen_total", what="half \ufffd") == 1
        generate_latest(meter.registry)


class TestCap:
    def test_what_comes_past_the_cap_keeps_the_labels_that_did_not_fill_it(self):
        meter = Meter()
        seen = Instruments(meter, cap=4).counter("seen_total", "Seen.", labels=["event", "queue"])
        for queue in ("a", OVERFLOW, "b", "c", "d", "e"):
            seen.inc(event="sent", queue=queue)
        seen.inc(event="received", queue="e")
        assert value(meter, "seen_total", event="sent", queue=OVERFLOW) == 3  # One of its own, and two that came later.
        assert value(meter, "seen_total", event="received", queue=OVERFLOW) == 1

    def test_where_two_labels_fill_it_the_rest_is_one_series(self):
        meter = Meter()
        seen = Instruments(meter, cap=1).counter("seen_total", "Seen.", labels=["task", "queue"])
        for number in range(150):
            seen.inc(task=str(number), queue=str(number))
        assert value(meter, "seen_total", task=OVERFLOW, queue="100") == 1
        assert value(meter, "seen_total", task=OVERFLOW, queue=OVERFLOW) == 49

    def test_the_overflow_counts_each_once_and_warns_once(self, caplog):
        meter = Meter()
        seen = Instruments(meter, cap=3).counter("seen_total", "Seen.", labels=["method", "user"])
        with caplog.at_level(logging.WARNING):
            for number in range(10):
                seen.inc(method="GET", user=str(number))
                seen.labels("GET", str(number)).inc()
        assert value(meter, "seen_total", method="GET", user="2") == 2
        assert value(meter, "seen_total", method="GET", user=OVERFLOW) == 14
        assert value(meter, "seen_total", method="GET", user="3") is None
        assert len(caplog.records) == 1
        assert "seen has 3 series" in caplog.text
        assert "the label user has the most values" in caplog.text

    def test_two_thousand_by_default(self, instruments, meter, caplog):
        sizes = instruments.histogram("size_bytes", "Sizes.", labels=["user"], buckets=[1])
        for number in range(2_100):
            sizes.observe(1, user=str(number))
        assert value(meter, "size_bytes_count", user=OVERFLOW) == 100
        assert generate_latest(meter.registry).count(b"size_bytes_count") == 2_001
        assert len(caplog.records) == 1


def spans(*, sampled: bool) -> object:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return trace.set_span_in_context(NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=flags)))


class TestExemplars:
    def test_only_sampled_traces_leave_one(self, meter, instruments):
        orders = instruments.counter("orders_total", "Orders.", labels=["kind"])
        sizes = instruments.histogram("size_bytes", "Sizes.", buckets=[1, 10])
        for sampled in (False, True):
            token = context.attach(spans(sampled=sampled))  # type: ignore[arg-type]
            orders.inc(3, kind=str(sampled))
            sizes.observe(5 if sampled else 0.5)
            context.detach(token)
        orders.inc(kind="True")
        lines = generate_openmetrics(meter.registry).decode().splitlines()
        found = {line.partition(" ")[0]: line.partition(" # ")[2] for line in lines if line[0] != "#"}
        ids = f'{{span_id="{0xDEF:016x}",trace_id="{0xABC:032x}"}}'
        assert found['orders_total{kind="True"}'].startswith(f"{ids} 3.0 ")
        assert found['size_bytes_bucket{le="10.0"}'].startswith(f"{ids} 5.0 ")
        assert found['orders_total{kind="False"}'] == found['size_bytes_bucket{le="1.0"}'] == ""


class TestUsage:
    def test_providers_are_counted_by_what_they_did(self, meter):
        for instance, operation, outcome in (("a", "get", "ok"), ("b", "get", "ok"), ("b", "put", "unavailable")):
            meter.cell("caching", instance, "redis", operation, outcome).add(0.1)
        meter.cell("caching", "c", "memory", "get", "ok")
        assert value(meter, "noobly_provider_operations_total", service="caching", provider="redis") == 3
        assert value(meter, "noobly_provider_operations_total", service="caching", provider="memory") == 0
        assert value(meter, "noobly_provider_instances", service="caching", provider="redis") == 2
        assert value(meter, "noobly_provider_instances", service="caching", provider="memory") == 1
