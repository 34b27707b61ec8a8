"""Joined calls: told apart, bounded, and right where callers are cancelled or the work fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from noobly.core.errors import Closed, Unavailable
from noobly.core.lifecycle import Tasks
from noobly.queueing.providers._gather import Gather, portions


class TestGather:
    """Calls of one turn of the loop are one call of the store."""

    def setup_method(self) -> None:
        self.ran: list[list[int]] = []
        self.tasks = Tasks()
        self.failing = False
        self.gather = Gather(self.run, self.tasks, lambda _: 1, 100)

    async def run(self, queue: str, items: Sequence[int]) -> list[int]:
        self.ran.append(list(items))
        if self.failing:
            raise Unavailable("it is down")
        return [-item for item in items]

    async def call(self, *items: int) -> list[int]:
        return await self.gather("q", items)

    async def test_joined_in_order_and_told_apart(self) -> None:
        assert await asyncio.gather(self.call(1), self.call(2, 3), self.call(4)) == [[-1], [-2, -3], [-4]]
        assert self.ran == [[1, 2, 3, 4]]

    async def test_no_more_than_is_allowed_goes_together(self) -> None:
        await asyncio.gather(self.call(*range(60)), self.call(*range(60)), self.call(*range(150)))
        assert [len(one) for one in self.ran] == [60, 60, 150]

    async def test_a_call_cancelled_in_its_turn_asks_for_nothing(self) -> None:
        kept, dropped = asyncio.create_task(self.call(1)), asyncio.create_task(self.call(2))
        asyncio.get_running_loop().call_soon(dropped.cancel)
        assert await kept == [-1]
        assert self.ran == [[1]]

    async def test_an_error_is_raised_to_each_as_its_own(self) -> None:
        self.failing = True
        errors = await asyncio.gather(self.call(1), self.call(2), return_exceptions=True)
        assert [str(error) for error in errors] == ["it is down"] * 2
        assert errors[0] is not errors[1]
        self.failing = False
        assert await self.call(3) == [-3]

    async def test_closing_wakes_who_waits(self) -> None:
        waiting = asyncio.create_task(self.call(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await self.tasks.close()
        with pytest.raises(Closed):
            await waiting

    def test_portions(self) -> None:
        assert list(portions([], [], 5)) == []
        assert list(portions([1, 9, 2, 3], [1, 9, 2, 3], 5)) == [[1], [9], [2, 3]]
