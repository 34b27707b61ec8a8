"""Samples: adding and listing them, names, labels, and the caps."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from noobly.measuring import Metrics, SampleIn
from noobly.measuring.admission import OTHER
from noobly.measuring.events import Overflowed, Recorded
from noobly.testing.measuring.harness import MetricHarness
from noobly.testing.measuring.theme import Theme, values

NAMES = (
    "plain",
    "a/b c",
    "..",
    "two\nlines",
    "\x00",
    "%2F?a=1#b",
    "naïve 鍵 🦊",
    " padded ",
    "'; DROP TABLE series",
    "n" * 256,
)


class SamplesTheme(Theme):
    """``add``, ``add_many``, ``list`` and ``series``."""

    async def test_a_sample_is_in_the_next_answer(self, metrics: Metrics, harness: MetricHarness) -> None:
        await metrics.add("orders", 2.5)
        listed = await metrics.list("orders")
        assert [(one.value, one.at, one.count, one.labels) for one in listed.measurements] == [
            (2.5, harness.clock.time(), 1, {})
        ]
        assert (listed.tier, listed.more) == (0, False)
        assert (await metrics.list("other")).measurements == []

    @pytest.mark.parametrize("name", NAMES, ids=ascii)
    async def test_any_name_will_do(self, metrics: Metrics, name: str) -> None:
        await metrics.add(name, 1)
        await metrics.add(f"{name}x"[-256:], 5)
        assert (await metrics.total(name)).value == 1
        assert name in {one.name for one in await metrics.series(name[:10])}

    @pytest.mark.parametrize("value", [0, -3, 1e308, -1e-308, 5e-324, 0.1, 2**53, 10**300])
    async def test_any_finite_value_will_do(self, metrics: Metrics, value: float) -> None:
        await metrics.add("m", value)
        assert await values(metrics, "m") == [float(value)]
        assert (await metrics.max("m")).value == (await metrics.percentile("m", 50)).value == float(value)

    async def test_they_come_in_order_of_time_however_they_were_added(
        self, metrics: Metrics, harness: MetricHarness
    ) -> None:
        now = harness.clock.time()
        for place in (3, 1, 4, 1, 5, 2):
            await metrics.add("m", place, at=now - 100 + place)
        await metrics.add("m", 6, at=datetime.fromtimestamp(now - 94, UTC))
        assert await values(metrics, "m") == [1, 1, 2, 3, 4, 5, 6]

    async def test_those_of_one_moment_keep_their_order(self, metrics: Metrics) -> None:
        for value in (3, 1, 2):
            await metrics.add("m", value)
        await metrics.add_many([SampleIn(name="m", value=value) for value in (9, 7, 8)])
        assert await values(metrics, "m") == [3, 1, 2, 9, 7, 8]
        assert (await metrics.overview("m")).last == 8

    async def test_a_limit_gives_the_first_ones(self, metrics: Metrics, harness: MetricHarness) -> None:
        now = harness.clock.time()
        await metrics.add_many(
            [
                SampleIn(name="m", value=number, at=now - 50 + number, labels={"odd": str(number % 2)})
                for number in range(20)
            ]
        )
        page = await metrics.list("m", limit=8)
        assert [one.value for one in page.measurements] == list(range(8))
        assert page.more
        assert not (await metrics.list("m", limit=20)).more

    async def test_labels_make_series(self, metrics: Metrics) -> None:
        await metrics.add("orders", 1, {"country": "SE", "kind": "new"})
        await metrics.add("orders", 2, {"kind": "new", "country": "NO"})
        await metrics.add("orders", 4, {"kind": "old", "country": "SE"})
        await metrics.add("orders", 8)
        assert (await metrics.total("orders")).value == 15
        assert (await metrics.total("orders", labels={"country": "SE"})).value == 5
        assert (await metrics.total("orders", labels={"country": "SE", "kind": "old"})).value == 4
        assert (await metrics.total("orders", labels={"country": ""})).value == 8
        assert (await metrics.total("orders", labels={"city": "Oslo"})).value == 0
        assert await values(metrics, "orders", country="NO") == [2]
        assert len(await metrics.series("orders")) == 4

    async def test_an_empty_label_is_none(self, metrics: Metrics) -> None:
        await metrics.add("m", 1, {"a": "", "b": "x"})
        await metrics.add("m", 2, {"b": "x"})
        assert [one.labels for one in await metrics.series()] == [{"b": "x"}]

    async def test_series_are_listed_by_their_latest_sample(self, metrics: Metrics, harness: MetricHarness) -> None:
        for name in ("http.a", "db", "http.b"):
            harness.clock.advance(1)
            await metrics.add(name, 1)
            await metrics.add(name, 7, at=harness.clock.time() - 30)
        found = await metrics.series("http")
        assert [(one.name, one.count, one.last_value) for one in found] == [("http.b", 2, 1), ("http.a", 2, 1)]
        assert found[0].last_at == harness.clock.time()
        assert [one.name for one in await metrics.series(limit=2)] == ["http.b", "db"]
        assert await metrics.series("nothing") == []

    async def test_series_past_the_cap_share_one(self, harness: MetricHarness) -> None:
        async with harness.open(series_per_metric=3) as metrics:
            for number in range(10):
                await metrics.add("m", 1, {"user": str(number), "same": "x"})
            assert (await metrics.total("m")).value == 10
            assert (await metrics.total("m", labels={"overflow": "true"})).value == 7
            assert len(await metrics.series("m")) == 4
            await metrics.add("m", 1, {"same": "x", "user": "2"})
            assert (await metrics.total("m", labels={"user": "2"})).value == 2

    async def test_metrics_past_the_cap_of_all_share_one(self, harness: MetricHarness) -> None:
        async with harness.open(max_series=3) as metrics:
            for number in range(10):
                await metrics.add(f"m{number}", 1)
            await metrics.add("m0", 1, {"a": "b"})
            assert (await metrics.total(OTHER)).value == 7
            assert (await metrics.total("m0")).value == 2
            assert len(await metrics.series()) == 5

    async def test_events_tell(self, harness: MetricHarness) -> None:
        if not harness.direct:
            pytest.skip("the events of a server are not to be had here")
        async with harness.open(series_per_metric=1) as metrics:
            told: list[Overflowed] = []
            recorded: list[Recorded] = []
            metrics.scope.environment.bus.subscribe(Overflowed, told.append)
            metrics.scope.environment.bus.subscribe(Recorded, recorded.append)
            for user in "abc":
                await metrics.add("m", 1, {"user": user})
            await metrics.flush()
            assert [(event.name, event.label) for event in told] == [("m", "user")]
            assert [(event.names, event.count) for event in recorded] == [(("m",), 3)]
