"""Long work on the event loop leaves others their turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from noobly.core import turns
from noobly.core.scope import Environment
from noobly.core.turns import gently
from noobly.measuring import Metrics, SampleIn, open_metrics
from noobly.testing import FakeClock

T = TypeVar("T")


@pytest.fixture
def at_every_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "STRETCH", -1.0)


async def counted(work: Awaitable[T]) -> tuple[T, int]:
    """Return what work returns, and how many turns others had meanwhile."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(other())
    try:
        return await work, turns
    finally:
        task.cancel()


async def collected(items: list[int]) -> list[int]:
    return [item async for item in gently(items)]


async def test_others_have_their_turn_after_each_stretch(at_every_chance: None) -> None:
    found, turns = await counted(collected([1, 2, 3, 4]))
    assert found == [1, 2, 3, 4]
    assert turns >= 3


async def test_within_a_stretch_nobody_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "STRETCH", 3600.0)
    assert await counted(collected([1, 2, 3, 4])) == ([1, 2, 3, 4], 0)


QUESTIONS: list[tuple[Callable[[Metrics, float], Awaitable[object]], int]] = [
    (lambda metrics, now: metrics.range("m", now - 3000, now, 1), 1000),
    (lambda metrics, now: metrics.list("m"), 1000),
    (lambda metrics, now: metrics.percentile("m", 99), 50),
    (lambda metrics, now: metrics.total("m"), 50),
]


@pytest.mark.parametrize(("ask", "least"), QUESTIONS)
async def test_questions_about_many_samples(
    at_every_chance: None, ask: Callable[[Metrics, float], Awaitable[object]], least: int
) -> None:
    clock = FakeClock()
    now = clock.time()
    async with open_metrics(environment=Environment(clock=clock)) as metrics:
        for series in range(20):
            labels = {"series": f"{series}"}
            await metrics.add_many(
                [SampleIn(name="m", value=n, at=now - 3000 + n * 10, labels=labels) for n in range(200)]
            )
        await metrics.flush()
        _, turns = await counted(ask(metrics, now))
        assert turns >= least


async def test_an_answer_is_of_one_moment_whatever_is_added_and_dropped_meanwhile(at_every_chance: None) -> None:
    clock = FakeClock()
    now = clock.time()
    async with open_metrics(environment=Environment(clock=clock)) as metrics:
        await metrics.add_many([SampleIn(name="m", value=1, at=now - 2000 + n) for n in range(2000)])
        await metrics.flush()
        asked = asyncio.create_task(metrics.range("m", now - 2000, now + 10, 10))
        for _ in range(20):
            await asyncio.sleep(0)
        await metrics.add_many([SampleIn(name="m", value=1, at=now - 2000 + n + 0.5) for n in range(2000)])
        clock.advance(86_400.0)
        await metrics.retain()
        assert not asked.done()
        assert sum(point.count for point in (await asked).points) == 2000
