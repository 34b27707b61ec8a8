"""The conformance suite of metric drivers: what ``measuring/driver.py`` promises, on the bare provider.

    class TestMine(MetricDriverSuite):
        @pytest.fixture
        def harness(self) -> DriverHarness:
            return EmbeddedDriver("mine://")

Run it first while writing a provider; ``noobly.testing.measuring`` then says whether metrics work on it.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol, cast

import pytest

from noobly.core.binding import bind
from noobly.core.scope import Environment
from noobly.layers.classify import classify
from noobly.layers.opening import Request, make, split
from noobly.measuring import sketch
from noobly.measuring.driver import Answer, MetricDriver, Rollup, Sample, Selector
from noobly.measuring.options import MetricOptions
from noobly.measuring.providers import REGISTRY
from noobly.testing.clock import FakeClock

HOUR = 3600.0
BEGIN = 1_700_000_000.0 - 1_700_000_000.0 % HOUR
"""An hour's beginning, so that steps of every tier begin with it."""
EVER = (-math.inf, math.inf)
NAMES = (
    "plain",
    "with space",
    "a/b",
    "..",
    "two\nlines",
    "\x00",
    "\x00x",
    "naïve 鍵 🦊",
    "%",
    "_",
    "[a]*",
    "'\"\\",
    "k" * 256,
)


class DriverHarness(Protocol):
    """How the suite reaches one provider."""

    clock: FakeClock
    """The only clock that the store reads."""

    def open_bare(self) -> AbstractAsyncContextManager[MetricDriver]:
        """Open the provider without layers, except for the one that maps its client's exceptions."""
        ...


class EmbeddedDriver:
    """A provider inside this process.

    Args:
        url: What to open.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = FakeClock(BEGIN)

    @asynccontextmanager
    async def open_bare(self) -> AsyncIterator[MetricDriver]:
        """See the protocol."""
        settings = split(Request(url=self.url), MetricOptions)
        async with AsyncExitStack() as stack:
            driver = make(REGISTRY, settings, (), Environment(clock=self.clock), "default")
            start = getattr(driver, "start", None)
            if start is not None:
                await start(stack)
            yield bind(MetricDriver, cast(MetricDriver, driver), [classify()])


def taken(at: float, value: float, name: str = "m", **labels: str) -> Sample:
    """Return a sample of so many seconds after the beginning."""
    return Sample(name, tuple(sorted(labels.items())), BEGIN + at, value)


async def asked(
    driver: MetricDriver,
    span: tuple[float, float] = EVER,
    step: float = 0,
    *,
    name: str = "m",
    sketches: bool = False,
    limit: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> Answer:
    """Ask for a range of seconds after the beginning."""
    start, end = (BEGIN + bound for bound in span)
    wanted = dict(labels or {})
    selector = Selector(name=name, labels=wanted, start=start, end=end, sketches=sketches, limit=limit)
    return await driver.query(selector, step)


def raw(answer: Answer) -> list[tuple[float, float]]:
    """Return raw samples as times after the beginning and values."""
    assert all(one.count == 1 and one.min == one.max == one.last == one.sum for one in answer.rollups)
    return [(one.at - BEGIN, one.sum) for one in answer.rollups]


def figures(rollups: Sequence[Rollup]) -> list[tuple[float, int, float, float, float, float]]:
    """Return rollups as time after the beginning, count, sum, least, greatest and latest."""
    return [(one.at - BEGIN, one.count, one.sum, one.min, one.max, one.last) for one in rollups]


class MetricDriverSuite:
    """Every promise of the driver protocol; a subclass overrides the ``harness`` fixture."""

    @pytest.fixture
    def harness(self) -> DriverHarness:
        """Return a harness that no other test uses."""
        raise NotImplementedError("override the harness fixture: it says how to open the provider under test")

    @pytest.fixture
    async def driver(self, harness: DriverHarness) -> AsyncIterator[MetricDriver]:
        """Open the bare provider."""
        async with harness.open_bare() as driver:
            yield driver

    async def test_nothing_is_there_at_first(self, driver: MetricDriver) -> None:
        await driver.health()
        await driver.record([])
        assert (await asked(driver)).rollups == []
        assert (await asked(driver, step=math.inf, sketches=True)).rollups == []
        assert await driver.series("", 10) == []
        assert await driver.retain() == 0

    async def test_raw_samples_come_in_order_of_time(self, driver: MetricDriver) -> None:
        await driver.record([taken(3, 30), taken(1, -10.5)])
        await driver.record([taken(2, 1e300), taken(0.25, 0)])
        answer = await asked(driver)
        assert (answer.tier, answer.step) == (0, 0)
        assert raw(answer) == [(0.25, 0), (1, -10.5), (2, 1e300), (3, 30)]

    async def test_a_range_has_its_start_and_not_its_end(self, driver: MetricDriver) -> None:
        await driver.record([taken(at, at) for at in range(10)])
        assert raw(await asked(driver, (2, 5))) == [(2, 2), (3, 3), (4, 4)]
        assert raw(await asked(driver, (8.5, math.inf))) == [(9, 9)]
        assert raw(await asked(driver, (-math.inf, 0.5))) == [(0, 0)]
        assert raw(await asked(driver, (20, 30))) == []

    async def test_steps_begin_at_their_multiples(self, driver: MetricDriver) -> None:
        await driver.record([taken(at, at) for at in (1, 9.5, 10, 29, 21)])
        answer = await asked(driver, step=10)
        assert answer.step == 10
        assert figures(answer.rollups) == [(0, 2, 10.5, 1, 9.5, 9.5), (10, 1, 10, 10, 10, 10), (20, 2, 50, 21, 29, 29)]
        assert [one.last_at - BEGIN for one in answer.rollups] == [9.5, 10, 29]

    async def test_an_endless_step_is_the_whole_range(self, driver: MetricDriver) -> None:
        await driver.record([taken(at, at) for at in (70, 5, 4000)])
        answer = await asked(driver, step=math.inf)
        assert figures(answer.rollups) == [(5, 3, 4075, 5, 4000, 4000)]
        answer = await asked(driver, (6, 4000), math.inf)
        assert [(one.count, one.sum) for one in answer.rollups] == [(1, 70)]

    async def test_of_samples_at_one_time_the_one_that_came_last_is_the_latest(self, driver: MetricDriver) -> None:
        await driver.record([taken(5, 1), taken(5, 2)])
        await driver.record([taken(5, 3), taken(4, 9)])
        (rollup,) = (await asked(driver, step=math.inf)).rollups
        assert (rollup.count, rollup.last, rollup.last_at) == (4, 3, BEGIN + 5)

    async def test_series_stay_apart(self, driver: MetricDriver) -> None:
        await driver.record([taken(1, 1), taken(1, 2, a="x"), taken(1, 3, a="y", b="z"), taken(1, 4, "other", a="x")])

        async def meant(**labels: str) -> list[float]:
            return sorted(value for _, value in raw(await asked(driver, labels=labels)))

        assert await meant() == [1, 2, 3]
        assert await meant(a="x") == [2]
        assert await meant(a="y", b="z") == [3]
        assert await meant(b="") == [1, 2]
        assert await meant(a="x", b="z") == []
        answer = await asked(driver, step=math.inf)
        assert sorted((sorted(one.labels.items()), one.sum) for one in answer.rollups) == [
            ([], 1),
            ([("a", "x")], 2),
            ([("a", "y"), ("b", "z")], 3),
        ]

    async def test_every_name_and_value_of_a_label(self, driver: MetricDriver) -> None:
        await driver.record([taken(n, n, name, label=name) for n, name in enumerate(NAMES)])
        for n, name in enumerate(NAMES):
            (rollup,) = (await asked(driver, name=name, labels={"label": name})).rollups
            assert (rollup.sum, rollup.labels) == (n, {"label": name})
            assert [one.name for one in await driver.series(name, 100)] == [
                other for other in reversed(NAMES) if other.startswith(name)
            ]

    async def test_a_limit_takes_the_earliest_of_all_series(self, driver: MetricDriver) -> None:
        await driver.record([taken(at, at, n=f"{at % 3}") for at in range(30)])
        assert raw(await asked(driver, limit=7)) == [(at, at) for at in range(7)]
        assert raw(await asked(driver, (10, 14), limit=100)) == [(at, at) for at in range(10, 14)]

    async def test_sketches_come_when_asked_for(self, driver: MetricDriver) -> None:
        chance = random.Random(3)
        values = [chance.lognormvariate(0, 2) for _ in range(1000)]
        await driver.record([taken(at, value) for at, value in enumerate(values)])
        (rollup,) = (await asked(driver, step=math.inf, sketches=True)).rollups
        median = sketch.quantile(sketch.decode(rollup.sketch), 0.5)
        assert median is not None
        assert median == pytest.approx(sorted(values)[499], rel=0.0101)
        (rollup,) = (await asked(driver, step=math.inf)).rollups
        assert rollup.sketch == b""

    async def test_the_series_there_are(self, driver: MetricDriver) -> None:
        await driver.record([taken(5, 50, "mem.used"), taken(1, 10, "mem.free", host="a"), taken(9, 1, "cpu")])
        await driver.record([taken(2, 20, "mem.free", host="a"), taken(7, 70, "mem.free", host="b")])
        found = [
            (one.name, one.labels, one.count, one.last_at - BEGIN, one.last_value)
            for one in await driver.series("mem.", 10)
        ]
        assert found == [
            ("mem.free", {"host": "b"}, 1, 7, 70),
            ("mem.used", {}, 1, 5, 50),
            ("mem.free", {"host": "a"}, 2, 2, 20),
        ]
        assert [one.name for one in await driver.series("", 2)] == ["cpu", "mem.free"]

    async def test_what_is_past_its_retention_goes_tier_by_tier(
        self, driver: MetricDriver, harness: DriverHarness
    ) -> None:
        await driver.record([taken(at, 1) for at in range(0, 7200, 5)])
        harness.clock.advance(7200)
        for passed, tier in ((0.0, 0.0), (24 * HOUR, 10.0), (15 * 24 * HOUR, 60.0)):
            harness.clock.advance(passed)
            dropped = await driver.retain()
            assert (dropped > 0, await driver.retain()) == (True, 0)
            answer = await asked(driver, (0, 7200), math.inf)
            assert (answer.rollups[0].count, answer.rollups[0].sum) == (1440, 1440)
            assert answer.tier > tier
        harness.clock.advance(400 * 24 * HOUR)
        assert await driver.retain() > 0
        assert await driver.series("", 10) == []
        assert (await asked(driver, step=math.inf)).rollups == []

    async def test_many_at_once(self, driver: MetricDriver) -> None:
        batches = [[taken(n + batch / 100, 1, n=f"{n % 4}") for n in range(20)] for batch in range(50)]
        await asyncio.gather(*(driver.record(batch) for batch in batches))
        rollups = (await asked(driver, step=math.inf)).rollups
        assert sorted((one.labels["n"], one.count) for one in rollups) == [(f"{n}", 250) for n in range(4)]
        assert len(raw(await asked(driver))) == 1000

    async def test_all_of_it_is_there_again_or_nothing(self, harness: DriverHarness) -> None:
        async with harness.open_bare() as driver:
            await driver.record([taken(at, at) for at in range(100)])
        async with harness.open_bare() as driver:
            assert [one.sum for one in (await asked(driver, step=math.inf)).rollups] in ([], [4950])
            assert len(raw(await asked(driver))) in (0, 100)
