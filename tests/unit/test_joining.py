"""Joined calls: told apart, bounded, and right where callers are cancelled or the work fails."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from noobly.core.errors import Closed, Unavailable
from noobly.core.joining import Gather, portions
from noobly.core.lifecycle import Tasks


class TestGather:
    """Calls of one turn of the loop are one call of the store."""

    def setup_method(self) -> None:
        self.ran: list[list[int]] = []
        self.tasks = Tasks()
        self.failing = False
        self.going, self.working = asyncio.Event(), asyncio.Event()
        self.going.set()
        self.unclaimed: list[tuple[str, int]] = []

    @pytest_asyncio.fixture(autouse=True)
    async def gather_(self) -> None:
        self.gather = Gather(
            self.alone, self.run, self.tasks, abs, 100, lambda key, result: self.unclaimed.append((key, result))
        )
        # From here on there is company.
        self.going.clear()
        company = [asyncio.create_task(self.call(0)) for _ in range(3)]
        await asyncio.sleep(0)
        self.going.set()
        await asyncio.gather(*company)
        self.ran.clear()
        self.working.clear()

    async def alone(self, queue: str, item: int) -> int:
        return (await self.run(queue, [item]))[0]

    async def run(self, queue: str, items: list[int]) -> list[int]:
        self.ran.append(items)
        self.working.set()
        await self.going.wait()
        if self.failing:
            raise Unavailable("it is down")
        return [-item for item in items]

    async def call(self, item: int) -> int:
        return await self.gather("q", item)

    async def test_joined_in_order_and_told_apart(self) -> None:
        assert await asyncio.gather(*map(self.call, (1, 2, 3))) == [-1, -2, -3]
        assert self.ran == [[1, 2, 3]]

    async def test_one_after_the_other_each_goes_by_itself(self) -> None:
        assert [await self.call(item) for item in (1, 2, 3)] == [-1, -2, -3]
        assert self.ran == [[1], [2], [3]]
        self.going.clear()
        first = asyncio.create_task(self.call(4))
        await asyncio.sleep(0)
        assert self.ran[-1] == [4]
        others = [asyncio.create_task(self.call(item)) for item in (5, 6)]
        await asyncio.sleep(0)
        self.going.set()
        assert await asyncio.gather(first, *others) == [-4, -5, -6]
        assert self.ran[3:] == [[4], [5, 6]]

    async def test_a_failure_alone_is_raised_as_it_is(self) -> None:
        await self.call(1)
        self.failing = True
        with pytest.raises(Unavailable, match="it is down"):
            await self.call(2)
        self.failing = False
        assert await self.call(3) == -3

    async def test_calls_with_another_key_go_by_themselves(self) -> None:
        await asyncio.gather(self.call(1), self.gather("other", 2), self.call(3))
        assert sorted(self.ran) == [[1, 3], [2]]

    async def test_no_more_than_is_allowed_goes_together(self) -> None:
        await asyncio.gather(*map(self.call, (60, 40, 1, 150, 99)))
        assert self.ran == [[60, 40], [1], [150], [99]]

    async def test_what_a_cancelled_call_asked_for_is_unclaimed(self) -> None:
        self.going.clear()
        kept, dropped = asyncio.create_task(self.call(1)), asyncio.create_task(self.call(2))
        await self.working.wait()
        dropped.cancel()
        self.going.set()
        assert await kept == -1
        assert self.unclaimed == [("q", -2)]

    async def test_a_call_cancelled_in_its_turn_asks_for_nothing(self) -> None:
        kept, dropped = asyncio.create_task(self.call(1)), asyncio.create_task(self.call(2))
        asyncio.get_running_loop().call_soon(dropped.cancel)
        assert await kept == -1
        assert self.ran == [[1]]

    async def test_an_error_is_raised_to_each_as_its_own(self) -> None:
        self.failing = True
        errors = await asyncio.gather(self.call(1), self.call(2), return_exceptions=True)
        assert [str(error) for error in errors] == ["it is down"] * 2
        assert errors[0] is not errors[1]
        self.failing = False
        assert await self.call(3) == -3

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
