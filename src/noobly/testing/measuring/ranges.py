"""Ranges: their ends, and the points of charts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from noobly.measuring import Metrics
from noobly.testing.measuring.harness import MetricHarness
from noobly.testing.measuring.theme import Theme, fill


class RangesTheme(Theme):
    """``start`` belongs to a range, ``end`` does not."""

    async def test_ranges_are_half_open(self, metrics: Metrics, harness: MetricHarness) -> None:
        now = harness.clock.time()
        await fill(metrics, "m", [(now - 30, 1), (now - 20, 2), (now - 10, 4)])
        assert (await metrics.total("m", now - 30, now - 10)).value == 3
        assert (await metrics.total("m", now - 30, now - 9.999)).value == 7
        assert (await metrics.total("m", now - 29.999)).value == 6
        assert (await metrics.total("m", None, now - 20)).value == 1
        assert (await metrics.total("m", now - 20, now - 20)).value == 0
        assert (await metrics.total("m", now, now - 60)).value == 0
        assert (await metrics.list("m", now, now - 60)).measurements == []

    async def test_datetimes_are_as_good_as_numbers(self, metrics: Metrics, harness: MetricHarness) -> None:
        now = harness.clock.time()
        await fill(metrics, "m", [(now - 30, 1), (now - 20, 2), (now - 10, 4)])
        there = datetime.fromtimestamp(now - 20, UTC)
        assert (await metrics.total("m", there)).value == 6
        assert (await metrics.total("m", there, there + timedelta(seconds=10))).value == 2
        assert (await metrics.total("m", end=there)).value == 1

    async def test_parts_add_up(self, metrics: Metrics, harness: MetricHarness) -> None:
        now = harness.clock.time()
        await fill(metrics, "m", [(now - 1000 + number * 1.7, 1) for number in range(500)])
        edges = [now - 1000, now - 955.5, now - 900, now - 421.1, now - 420, now - 60, now]
        parts = [await metrics.total("m", start, end) for start, end in pairwise(edges)]
        assert sum(part.value or 0 for part in parts) == 500
        assert all(part.tier == 0 for part in parts)

    async def test_points_begin_at_multiples_of_the_step(self, metrics: Metrics, harness: MetricHarness) -> None:
        base = harness.clock.time() // 3600 * 3600 - 3600
        await fill(metrics, "m", [(base + number * 20, number) for number in range(90)])
        chart = await metrics.range("m", base, base + 1800, step=timedelta(minutes=5))
        assert (chart.step, chart.tier) == (300, 0)
        assert [point.at for point in chart.points] == [base + number * 300 for number in range(6)]
        assert [point.count for point in chart.points] == [15] * 6
        first = chart.points[0]
        assert (first.total, first.average, first.min, first.max, first.last) == (105, 7, 0, 14, 14)

    async def test_points_without_samples_are_left_out(self, metrics: Metrics, harness: MetricHarness) -> None:
        base = harness.clock.time() // 60 * 60 - 600
        await fill(metrics, "m", [(base, 1), (base + 150, 2)])
        chart = await metrics.range("m", base - 300)
        assert [(point.at - base, point.total) for point in chart.points] == [(0, 1), (120, 2)]
        assert (await metrics.range("m", base + 200)).points == []

    async def test_a_chart_holds_only_its_range(self, metrics: Metrics, harness: MetricHarness) -> None:
        base = harness.clock.time() // 60 * 60 - 600
        await fill(metrics, "m", [(base + number, 1) for number in range(300)])
        chart = await metrics.range("m", base + 30, base + 150.5, step=60)
        assert [(point.at - base, point.count) for point in chart.points] == [(0, 30), (60, 60), (120, 31)]

    async def test_odd_steps(self, metrics: Metrics, harness: MetricHarness) -> None:
        base = harness.clock.time() // 3600 * 3600 - 3600
        await fill(metrics, "m", [(base + number, 1) for number in range(700)])
        for step in (0.5, 7, 15, 30, 90, 3600):
            chart = await metrics.range("m", base, base + 700, step=step)
            assert chart.step == step
            assert sum(point.count for point in chart.points) == 700
            assert all(point.at % step == 0 for point in chart.points)

    async def test_all_series_are_in_one_chart(self, metrics: Metrics, harness: MetricHarness) -> None:
        base = harness.clock.time() // 60 * 60 - 600
        for number, label in enumerate("abc"):
            await metrics.add("m", number + 1, {"l": label}, at=base + number)
        (point,) = (await metrics.range("m", base)).points
        assert (point.count, point.total, point.min, point.max, point.last) == (3, 6, 1, 3, 3)
        (point,) = (await metrics.range("m", base, labels={"l": "b"})).points
        assert (point.count, point.total) == (1, 2)
