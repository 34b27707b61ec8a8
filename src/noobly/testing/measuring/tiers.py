"""Tiers: raw samples become steps of 10 seconds, one minute and one hour, and leave; time is the test's."""

from __future__ import annotations

import pytest

from noobly.measuring import Metrics
from noobly.testing.clock import eventually
from noobly.testing.measuring.harness import MetricHarness
from noobly.testing.measuring.theme import DAY, Theme, fill, values

HOUR = 3600.0


class TiersTheme(Theme):
    """What is kept how long, and how exact answers are."""

    async def test_each_tier_has_its_time(self, metrics: Metrics, harness: MetricHarness) -> None:
        base = harness.clock.time()
        await fill(metrics, "m", [(base - 59 + number, number) for number in range(60)])
        for age, tier in ((0, 0), (HOUR, 10), (DAY, 60), (14 * DAY, 3600)):
            harness.clock.advance(base + age + 120 - harness.clock.time() if age else 0)
            await metrics.retain()
            found = await metrics.overview("m")
            assert (found.count, found.total, found.min, found.max, found.tier) == (60, 1770, 0, 59, tier)
            assert found.p50 == pytest.approx(29, rel=0.01)
            assert found.last == 59
        harness.clock.advance(400 * DAY + HOUR)
        assert await metrics.retain() > 0
        assert (await metrics.overview("m")).count == 0
        assert await metrics.series() == []
        assert await metrics.retain() == 0

    async def test_the_finest_tier_that_still_has_a_range_answers(
        self, metrics: Metrics, harness: MetricHarness
    ) -> None:
        now = harness.clock.time() // 60 * 60
        ages = (13 * DAY, 20 * HOUR, 1800.0)
        await fill(metrics, "m", [(now - age + number, 1) for age in ages for number in range(120)])
        await metrics.retain()
        for age, tier in zip(ages, (60, 10, 0), strict=True):
            part = await metrics.total("m", now - age, now - age + 120)
            assert part.tier == tier
            assert part.count == 120
            chart = await metrics.range("m", now - age, now - age + 120, step=1)
            assert chart.step == max(tier, 1)
            assert sum(point.count for point in chart.points) == 120
        assert (await metrics.total("m")).count == 360

    async def test_ends_are_exact_while_raw_samples_last(self, metrics: Metrics, harness: MetricHarness) -> None:
        now = harness.clock.time()
        await fill(metrics, "m", [(now - 7200 + number, 1) for number in range(7200)])
        await metrics.retain()
        for back in (0.5, 11.5, 61.5, 599.5, 3500.5):
            found = await metrics.total("m", now - 7200, now - back)
            assert found.tier == 10
            assert found.value == pytest.approx(7200 - int(back), abs=10)
            recent = await metrics.total("m", now - back)
            assert (recent.value, recent.tier) == (int(back), 0)

    async def test_beyond_that_ends_are_shared_out_by_length(self, metrics: Metrics, harness: MetricHarness) -> None:
        base = harness.clock.time() // 3600 * 3600
        harness.clock.step(base - harness.clock.time())
        await fill(metrics, "m", [(base - 3600 + number, 2) for number in range(3600)])
        harness.clock.advance(15 * DAY)
        await metrics.retain()
        half = await metrics.overview("m", base - 1800, base)
        assert (half.tier, half.count, half.total, half.average) == (3600, 1800, 3600, 2)
        tenth = await metrics.overview("m", base - 3600 + 360, base - 3600 + 720)
        assert (tenth.count, tenth.total) == (360, 720)

    async def test_old_samples_are_listed_as_averages(self, metrics: Metrics, harness: MetricHarness) -> None:
        base = harness.clock.time() // 10 * 10 - 100
        await fill(metrics, "m", [(base, 1), (base + 9, 3), (base + 10, 5)])
        harness.clock.advance(2 * HOUR)
        await metrics.retain()
        listed = await metrics.list("m")
        assert listed.tier == 10
        assert [(one.at - base, one.value, one.count) for one in listed.measurements] == [(0, 2, 2), (10, 5, 1)]

    async def test_late_samples_go_where_they_belong(self, metrics: Metrics, harness: MetricHarness) -> None:
        now = harness.clock.time()
        await fill(metrics, "m", [(now - number * 7.0, 1) for number in range(1000)])
        await metrics.retain()
        late = (now - 300 * DAY, now - 3 * DAY, now - 5 * HOUR, now - 1000, now - 3)
        for at in late:
            await metrics.add("m", 100, at=at)
        for at in late:
            around = await metrics.overview("m", at - 3600, at + 3600)
            assert around.max == 100, at
        assert (await metrics.total("m")).count == 1005
        await metrics.retain()
        assert (await metrics.total("m")).count == 1005

    async def test_a_clock_that_is_set_back_harms_nothing(self, metrics: Metrics, harness: MetricHarness) -> None:
        for turn in range(6):
            for value in range(10):
                await metrics.add("m", value + 10 * turn)
                harness.clock.advance(1)
            harness.clock.step(-45)
            await metrics.retain()
        listed = (await metrics.list("m")).measurements
        assert sorted(one.value for one in listed) == list(range(60))
        assert [one.at for one in listed] == sorted(one.at for one in listed)
        found = await metrics.overview("m")
        assert (found.count, found.total) == (60, sum(range(60)))
        chart = await metrics.range("m", listed[0].at, listed[-1].at + 1, step=10)
        assert sum(point.count for point in chart.points) == 60

    async def test_raw_samples_are_bounded_in_number(self, harness: MetricHarness) -> None:
        async with harness.open(raw_samples=10) as metrics:
            now = harness.clock.time()
            await fill(metrics, "m", [(now - 100 + number, number) for number in range(100)])
            await metrics.retain()
            assert (await metrics.total("m")).value == sum(range(100))
            assert (await metrics.total("m")).tier == 10
            recent = await metrics.list("m", now - 10)
            assert ([one.value for one in recent.measurements], recent.tier) == ([*map(float, range(90, 100))], 0)

    async def test_shorter_keeping(self, harness: MetricHarness) -> None:
        async with harness.open(keep_raw=10, keep_10s=60, keep_1m=120, keep_1h=7200) as metrics:
            await metrics.add("m", 1)
            for age, tier in ((5, 0), (20, 10), (80, 60), (240, 3600)):
                harness.clock.advance(age)
                await metrics.retain()
                assert (await metrics.total("m")).tier == tier
            harness.clock.advance(4 * HOUR)
            await metrics.retain()
            assert await values(metrics, "m") == []

    async def test_it_happens_by_itself(self, harness: MetricHarness) -> None:
        async with harness.open(flush_every=0.01, retain_every=60) as metrics:
            await metrics.add("m", 1)
            harness.clock.advance(2 * HOUR)

            async def rolled_up() -> bool:
                return (await metrics.list("m")).tier == 10

            await eventually(rolled_up)
            assert await values(metrics, "m") == [1]
