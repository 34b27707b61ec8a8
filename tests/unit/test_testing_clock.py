"""Time and chance under a test's control."""

from __future__ import annotations

import asyncio

import pytest

from noobly.core.clock import Chance, Clock
from noobly.core.errors import InvalidArgument
from noobly.testing import FakeClock, FixedChance, eventually


def test_both_clocks_advance_together() -> None:
    fake = FakeClock(start=100.0)
    clock: Clock = fake
    fake.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (102.5, 2.5)


def test_a_step_moves_only_the_wall_clock() -> None:
    clock = FakeClock(start=100.0)
    clock.step(-30)
    assert (clock.time(), clock.monotonic()) == (70.0, 0.0)


def test_time_does_not_run_backwards() -> None:
    clock = FakeClock()
    before = clock.time()
    with pytest.raises(InvalidArgument, match="step"):
        clock.advance(-1)
    assert (clock.time(), clock.monotonic()) == (before, 0.0)


def test_chance_gives_its_values_in_turn() -> None:
    chance: Chance = FixedChance(0.0, 0.5)
    assert [chance.random() for _ in range(5)] == [0.0, 0.5, 0.0, 0.5, 0.0]


@pytest.mark.parametrize("values", [(), (1.0,), (0.5, -0.1)])
def test_chance_refuses_what_random_would_never_return(values: tuple[float, ...]) -> None:
    with pytest.raises(InvalidArgument):
        FixedChance(*values)


async def test_eventually_asks_until_it_is_true() -> None:
    answers = iter([False, 0, None, "yes"])
    await eventually(lambda: next(answers))
    assert next(answers, "exhausted") == "exhausted"


async def test_eventually_awaits_an_async_condition() -> None:
    answers = iter([False, True])

    async def condition() -> bool:
        await asyncio.sleep(0)
        return next(answers)

    await eventually(condition)
    assert next(answers, None) is None


async def never() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("condition", [lambda: False, never])
async def test_eventually_gives_up(condition: object) -> None:
    assert callable(condition)
    with pytest.raises(AssertionError, match=r"(lambda|never).* did not become true within 0\.02 s"):
        await eventually(condition, timeout=0.02)


async def test_eventually_passes_on_what_the_condition_raises() -> None:
    def broken() -> bool:
        raise TimeoutError("the condition's own")

    with pytest.raises(TimeoutError, match="own"):
        await eventually(broken)
