"""Figures: totals, averages, extremes, rates and percentiles, compared with the same of a plain list."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from noobly.measuring import Metrics, SampleIn
from noobly.testing.measuring.harness import MetricHarness
from noobly.testing.measuring.theme import Theme, fill


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


class FiguresTheme(Theme):
    """One number about a range."""

    async def test_of_nothing(self, metrics: Metrics, harness: MetricHarness) -> None:
        now = harness.clock.time()
        assert (await metrics.total("m")).value == 0
        for figure in (metrics.average, metrics.min, metrics.max):
            assert await figure("m") == await figure("m", now - 60, now)
            assert ((await figure("m")).value, (await figure("m")).count) == (None, 0)
        assert (await metrics.percentile("m", 50)).value is None
        assert (await metrics.rate("m", now - 60, now)).value == 0
        found = await metrics.overview("m")
        assert (found.count, found.total, found.average, found.last, found.p99) == (0, 0, None, None, None)

    async def test_of_a_few(self, metrics: Metrics) -> None:
        for value in (10, 20.5, -3):
            await metrics.add("m", value)
        total = await metrics.total("m")
        assert (total.value, total.count, total.tier) == (27.5, 3, 0)
        assert (await metrics.average("m")).value == 27.5 / 3
        assert (await metrics.min("m")).value == -3
        assert (await metrics.max("m")).value == 20.5

    async def test_an_overview_is_all_of_them(self, metrics: Metrics, harness: MetricHarness) -> None:
        now = harness.clock.time()
        await fill(metrics, "m", [(now - 50 + number, number % 7) for number in range(40)])
        found = await metrics.overview("m", now - 60, now)
        assert found.count == 40
        assert found.last == 39 % 7
        for figure in ("total", "average", "min", "max", "rate"):
            assert getattr(found, figure) == (await getattr(metrics, figure)("m", now - 60, now)).value
        for q in (50, 90, 95, 99):
            assert getattr(found, f"p{q}") == (await metrics.percentile("m", q, now - 60, now)).value

    async def test_rates(self, metrics: Metrics, harness: MetricHarness) -> None:
        now = harness.clock.time()
        await fill(metrics, "m", [(now - 100, 5), (now - 50, 15)])
        assert (await metrics.rate("m", now - 200, now)).value == 0.1
        assert (await metrics.rate("m", now - 60, now - 40)).value == 0.75
        assert (await metrics.rate("m")).value == 0.2
        harness.clock.advance(100)
        assert (await metrics.rate("m")).value == 0.1
        await metrics.add("now", 1)
        assert (await metrics.rate("now")).value is None

    @pytest.mark.parametrize("shape", ["lognormal", "mixed", "constant", "integers"])
    async def test_percentiles_are_within_1_percent(self, metrics: Metrics, harness: MetricHarness, shape: str) -> None:
        chance, now = random.Random(5), harness.clock.time()
        shapes: dict[str, Callable[[], float]] = {
            "lognormal": lambda: chance.lognormvariate(0, 3),
            "mixed": lambda: chance.choice([0.0, chance.gauss(0, 10), -chance.paretovariate(1)]),
            "constant": lambda: 42.0,
            "integers": lambda: float(chance.randrange(100)),
        }
        drawn = [shapes[shape]() for _ in range(3000)]
        await fill(metrics, "m", [(now - 3000 + number, value) for number, value in enumerate(drawn)])
        ranked = sorted(drawn)
        for q in (0, 1, 25, 50, 75, 90, 99, 99.9, 100):
            true, found = ranked[int(q / 100 * 2999)], (await metrics.percentile("m", q)).value
            assert found is not None
            assert abs(found - true) <= 0.01 * abs(true) + 1e-12, (q, found, true)
        assert (await metrics.percentile("m", 100)).value == pytest.approx(ranked[-1], rel=0.01)

    async def test_any_range_is_what_a_list_would_give(self, metrics: Metrics, harness: MetricHarness) -> None:
        chance, now = random.Random(7), harness.clock.time()
        kept = [(now - chance.random() * 3000, chance.gauss(5, 20), str(chance.randrange(3))) for _ in range(2000)]
        await metrics.add_many([SampleIn(name="m", value=value, at=at, labels={"n": n}) for at, value, n in kept])
        for _ in range(40):
            start = now - chance.random() * 3200
            end = start + chance.choice([0.5, 5, 15, 60, 600, 3000]) * chance.random()
            label = chance.choice([None, "0", "1"])
            wanted = [value for at, value, n in kept if start <= at < end and label in (None, n)]
            found = await metrics.overview("m", start, end, labels={"n": label} if label else None)
            assert (found.count, found.tier) == (len(wanted), 0)
            assert _near(found.total, sum(wanted))
            assert (found.min, found.max) == (min(wanted, default=None), max(wanted, default=None))
