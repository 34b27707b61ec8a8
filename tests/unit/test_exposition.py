"""The exposition: byte for byte what prometheus-client makes, negotiated, cached, and never long on the event loop."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
from collections.abc import Iterator
from shutil import which

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from prometheus_client import REGISTRY, CollectorRegistry, Enum, Info, generate_latest
from prometheus_client import Counter as TheirCounter
from prometheus_client import Histogram as TheirHistogram
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Timestamp
from prometheus_client.utils import floatToGoString

from noobly.core.lines import number
from noobly.core.meter import Meter
from noobly.measuring import exposition
from noobly.measuring.exposition import Exposition, Format, Wanted, negotiate, render, takes_gzip
from noobly.measuring.instruments import Instruments
from noobly.testing import FakeClock

OPENMETRICS = Wanted(format=Format.OPENMETRICS)
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def alone(meter: Meter) -> Exposition:
    return Exposition(meter, others=CollectorRegistry())


floats = st.floats(allow_nan=True, allow_infinity=True)
whole = st.floats(min_value=0, max_value=1e12, allow_nan=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}[a-z0-9]", fullmatch=True)
stamps = (
    st.none() | st.floats(0, 2e9) | st.builds(Timestamp, st.integers(0, 2_000_000_000), st.integers(0, 999_999_999))
)
labels = st.dictionaries(names, texts, max_size=3)
exemplars = st.none() | st.builds(Exemplar, labels, floats, stamps)


class Foreign(Collector):
    """Any metrics that a collector of somebody else's might give."""

    def __init__(self, metrics: list[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self.metrics


@st.composite
def foreign(draw: st.DrawFn) -> list[Metric]:
    kinds = ["counter", "gauge", "histogram", "gaugehistogram", "info", "stateset", "summary", "unknown"]
    suffixes = {
        "counter": ["_total", "_created"],
        "histogram": ["_bucket", "_count", "_sum", "_created"],
        "gaugehistogram": ["_bucket", "_gcount", "_gsum"],
        "info": ["_info"],
        "summary": ["", "_count", "_sum", "_created"],
    }
    metrics = []
    for name in draw(st.lists(names, max_size=4, unique=True)):
        kind = draw(st.sampled_from(kinds))
        metric = Metric(f"their_{name}", draw(texts), kind, draw(st.sampled_from(["", "seconds"])))
        rows = draw(st.lists(st.tuples(labels, floats, stamps, exemplars), max_size=4, unique_by=lambda r: str(r[0])))
        for found, value, stamp, exemplar in rows:
            for suffix in suffixes.get(kind, [""]):
                marked = exemplar if suffix in ("_total", "_bucket") else None
                metric.add_sample(f"{metric.name}{suffix}", found, value, stamp, marked)
        metrics.append(metric)
    return metrics


class TestBytes:
    @settings(max_examples=50)
    @given(st.data())
    def test_what_instruments_show_is_what_prometheus_client_makes_of_them(self, data: st.DataObject) -> None:
        meter = Meter(cap=5)
        instruments = Instruments(meter)
        for name in data.draw(st.lists(names, max_size=3, unique=True)):
            keys = data.draw(st.lists(names.filter(lambda n: n not in ("le", "quantile")), max_size=3, unique=True))
            rows = data.draw(st.lists(st.tuples(*[texts for _ in keys]), max_size=7))
            text = data.draw(texts.filter(str.strip))
            counter = instruments.counter(f"c_{name}_total", text, labels=keys)
            gauge = instruments.gauge(f"g_{name}", text, labels=keys)
            histogram = instruments.histogram(f"h_{name}", text, labels=keys, buckets=[-1, 0.5, 1e7, 1e300])
            summary = instruments.summary(f"s_{name}", text, labels=keys, quantiles=[0, 0.5, 1])
            span = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
            with trace.use_span(NonRecordingSpan(span)):
                for row in rows:
                    counter.labels(*row).inc(data.draw(whole))
                    gauge.labels(*row).set(data.draw(floats))
                    histogram.labels(*row).observe(data.draw(whole))
                    summary.labels(*row).observe(data.draw(whole))
        assert asyncio.run(both(meter)) == [generate_latest(meter.registry), generate_openmetrics(meter.registry)]

    @settings(max_examples=60)
    @given(foreign())
    def test_so_is_what_others_collect(self, metrics: list[Metric]) -> None:
        meter = Meter()
        meter.registry.register(Foreign(metrics))
        assert asyncio.run(both(meter)) == [generate_latest(meter.registry), generate_openmetrics(meter.registry)]

    def test_prometheus_clients_own_kinds(self) -> None:
        meter = Meter()
        TheirCounter("theirs", "Theirs.", ["a"], registry=meter.registry).labels("x\n").inc(exemplar={"id": '"'})
        TheirHistogram("spread", "Spread.", registry=meter.registry).observe(2)
        Info("build", "Build.", registry=meter.registry).info({"version": "1"})
        Enum("state", "State.", states=["on", "off"], registry=meter.registry).state("on")
        assert asyncio.run(both(meter)) == [generate_latest(meter.registry), generate_openmetrics(meter.registry)]

    @given(floats | st.integers(-(10**15), 10**15).map(float))
    def test_numbers(self, value: float) -> None:
        assert number(value) == floatToGoString(value)

    def test_names_in_other_scripts_are_escaped_as_prometheus_client_does(self) -> None:
        meter = Meter()
        metric = Metric("größe", "Größe.", "gauge")
        metric.add_sample("größe", {"straße": "ß"}, 1)
        meter.registry.register(Foreign([metric]))
        assert asyncio.run(both(meter)) == [generate_latest(meter.registry), generate_openmetrics(meter.registry)]


async def both(meter: Meter) -> list[bytes]:
    shown = alone(meter)
    return [(await shown.page(wanted)).content for wanted in (Wanted(), OPENMETRICS)]


class TestNegotiation:
    @pytest.mark.parametrize(
        ("accept", "format"),
        [
            ("", Format.TEXT),
            ("*/*", Format.TEXT),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format.TEXT),
            ("application/json", Format.TEXT),
            ("application/openmetrics-text", Format.OPENMETRICS),
            ("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", Format.OPENMETRICS),
            ("application/openmetrics-text;version=0.0.1", Format.TEXT),
            ("application/openmetrics-text;version=2.0.0", Format.TEXT),
            ("application/openmetrics-text;q=0", Format.TEXT),
            ("application/openmetrics-text;q=0.1,text/plain;q=0.9", Format.TEXT),
            ("application/openmetrics-text;q=nonsense", Format.TEXT),
            (PROMETHEUS_2, Format.OPENMETRICS),
            (PROMETHEUS_3, Format.OPENMETRICS),
        ],
    )
    def test_formats(self, accept: str, format: Format) -> None:
        assert negotiate(accept) is format

    @pytest.mark.parametrize(
        ("accepted", "takes"),
        [("", False), ("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("*", True), ("*;q=0", False)],
    )
    def test_gzip(self, accepted: str, takes: bool) -> None:
        assert takes_gzip(accepted) is takes


class TestPages:
    async def test_names_choose_samples(self) -> None:
        meter = Meter()
        instruments = Instruments(meter)
        instruments.counter("orders_total", "Orders.").inc()
        instruments.histogram("size_bytes", "Sizes.", buckets=[1]).observe(1)
        wanted = Wanted(names=frozenset({"orders_total", "size_bytes_sum"}))
        page = await alone(meter).page(wanted)
        assert page.content.decode().splitlines() == [
            "# HELP orders_total Orders.",
            "# TYPE orders_total counter",
            "orders_total 1.0",
            "# HELP size_bytes Sizes.",
            "# TYPE size_bytes histogram",
            "size_bytes_sum 1.0",
        ]
        nothing = await alone(meter).page(Wanted(format=Format.OPENMETRICS, names=frozenset({"nothing"})))
        assert nothing.content == b"# EOF\n"

    async def test_gzip_is_for_what_is_long(self) -> None:
        meter = Meter()
        shown = alone(meter)
        assert not (await shown.page(Wanted(gzip=True, names=frozenset({"none"})))).gzip
        instruments = Instruments(meter)
        for place in range(50):
            instruments.gauge(f"gauge_{place}", "Gauge.")
        plain, packed = await alone(meter).page(Wanted()), await alone(meter).page(Wanted(gzip=True))
        assert packed.gzip
        assert gzip.decompress(packed.content) == plain.content

    async def test_a_page_is_kept_for_a_second(self) -> None:
        clock = FakeClock()
        meter = Meter()
        orders = Instruments(meter).counter("orders_total", "Orders.")
        shown = Exposition(meter, clock=clock, others=None)
        wanted = Wanted(names=frozenset({"orders_total"}))
        assert b"orders_total 0.0" in (await shown.page(wanted)).content
        orders.inc()
        clock.advance(0.9)
        assert b"orders_total 0.0" in (await shown.page(wanted)).content
        first = await shown.page(Wanted())
        assert (await shown.page(Wanted())) is first
        clock.advance(0.2)
        assert b"orders_total 1.0" in (await shown.page(wanted)).content

    async def test_scrapes_at_once_share_one_look(self) -> None:
        looks = 0

        def look() -> float:
            nonlocal looks
            looks += 1
            return 1.0

        meter = Meter()
        Instruments(meter).gauge("looks", "Looks.").callback(look)
        shown = alone(meter)
        pages = await asyncio.gather(*(shown.page(Wanted()) for _ in range(5)))
        assert looks == 1
        assert len({page.content for page in pages}) == 1

    async def test_the_global_registry_appears_without_duplicates(self) -> None:
        meter = Meter()
        theirs = TheirCounter("shop_theirs", "Theirs.")
        double = TheirCounter("shop_double", "Theirs too.")
        try:
            theirs.inc()
            Instruments(meter).counter("shop_double_total", "Ours.").inc(5)
            text = (await Exposition(meter).page(Wanted())).content.decode()
        finally:
            REGISTRY.unregister(theirs)
            REGISTRY.unregister(double)
        assert "\nshop_theirs_total 1.0\n" in text
        assert text.count("# TYPE shop_double_total") == 1
        assert "\nshop_double_total 5.0\n" in text
        for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"):
            assert text.count(f"# TYPE {name} ") == 1
        assert "python_gc_collections_total" in text
        assert "\nprocess_open_fds " in text

    async def test_a_collector_that_fails_leaves_the_others(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(Collector):
            def collect(self) -> Iterator[Metric]:
                raise ZeroDivisionError

        meter = Meter()
        meter.registry.register(Broken())
        Instruments(meter).counter("orders_total", "Orders.").inc()
        text = (await alone(meter).page(Wanted())).content
        assert b"orders_total 1.0" in text
        assert "the collector Broken failed" in caplog.text

    async def test_openmetrics_can_be_parsed(self) -> None:
        meter = Meter()
        instruments = Instruments(meter)
        instruments.counter("orders_total", "Orders.", labels=["kind"]).inc(kind='a"\n\\')
        instruments.summary("size_bytes", "Sizes.", quantiles=[0.5]).observe(2)
        meter.cell("s", "i", "p", "o", "ok").add(0.1)
        text = (await alone(meter).page(OPENMETRICS)).content.decode()
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert families["orders"].samples[0].labels == {"kind": 'a"\n\\'}
        assert families["noobly_operation_duration_seconds"].type == "histogram"
        assert text.endswith("# EOF\n")

    async def test_series_that_are_gone_leave_no_text_behind(self) -> None:
        meter = Meter()
        theirs = TheirCounter("theirs", "Theirs.", ["a"], registry=meter.registry)
        shown = alone(meter)
        theirs.labels("x").inc()
        await shown.own()
        theirs.remove("x")
        theirs.labels("y").inc()
        await shown.own()
        assert {start.partition("{")[2] for start in shown._foreign._starts.values()} == {'a="y"} '}


class TestLoop:
    async def test_the_loop_gets_its_turn_all_along(self) -> None:
        meter = Meter(cap=20_000)
        orders = Instruments(meter).counter("orders_total", "Orders.", labels=["kind"])
        for place in range(10_000):
            orders.labels(str(place)).inc()
        shown, turns = alone(meter), 0
        scrape = asyncio.create_task(shown.page(Wanted()))
        while not scrape.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > 10_000 / exposition.SLICE
        assert (await scrape).content.count(b"orders_total{") == 10_000


@pytest.mark.servers
class TestPromtool:
    async def test_it_has_nothing_to_say(self) -> None:
        promtool = which("promtool")
        if promtool is None:
            pytest.skip("promtool is not installed: scripts/servers install")
        meter = Meter()
        instruments = Instruments(meter)
        instruments.counter("shop_orders_total", "Orders.", labels=["kind"]).inc(kind='a"\n\\')
        instruments.gauge("shop_depth", "Depth.").set(1e9)
        instruments.timer("shop_took_seconds", "Took.", labels=["how"]).labels("x").observe(0.5)
        instruments.summary("shop_size_bytes", "Sizes.", quantiles=[0.5, 0.9]).observe(2)
        meter.cell("s", "i", "p", "o", "ok").add(0.1)
        page = await alone(meter).page(Wanted())
        done = await asyncio.to_thread(
            subprocess.run, [promtool, "check", "metrics"], input=page.content, capture_output=True, timeout=30
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_rendering_needs_no_blocks() -> None:
    assert render([], Format.TEXT) == b""
    assert render([], Format.OPENMETRICS) == b"# EOF\n"
