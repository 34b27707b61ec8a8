"""Waiting in slices: how long each may take, and when it is over."""

from __future__ import annotations

import asyncio

from noobly.core.waiting import awaited


async def test_each_call_may_wait_a_slice() -> None:
    slices: list[float] = []

    async def ask(within: float) -> list[int]:
        slices.append(within)
        return [1] if len(slices) == 3 else []

    assert await awaited(ask, 100.0, 2.0) == [1]
    assert slices == [2.0, 2.0, 2.0]
    assert await awaited(ask, 0.0, 2.0) == []
    assert slices[3:] == [0.0]


async def test_answers_that_come_too_soon_take_nothing_from_the_time() -> None:
    asked = 0

    async def ask(_: float) -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return asked

    assert await awaited(ask, 100.0, 2.0, enough=lambda found: found == 1000) == 1000


async def test_the_last_answer_is_returned_when_the_time_is_over() -> None:
    async def ask(within: float) -> str:
        await asyncio.sleep(within)
        return "not yet"

    assert await awaited(ask, 0.05, 0.02, enough=lambda _: False) == "not yet"
