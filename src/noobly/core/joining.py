"""Joining calls: what is asked in one turn of the event loop goes to the store together.

Many tasks that send or acknowledge at the same time would each pay for a round trip that one call can make for all.
A call that is alone goes by itself and at once, for a turn of the loop and a task would cost about as much as the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

from noobly.core.errors import Closed, NooblyError
from noobly.core.lifecycle import Tasks

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


def _thrown_away(_: object, __: object) -> None:
    """Do nothing with a result that nobody waits for any more."""


class Gather(Generic[Key, Item, Result]):
    """Joins the calls that have a key in common, such as the queue.

    Args:
        alone: Does the work for one item whose call has no company.
        run: Does the work for a key's items and gives a result for each, in their order.
        tasks: Owns the work under way.
        weigh: What an item weighs.
        heaviest: What joined items weigh together at most; one may weigh more.
        unclaimed: Gets the result of a call that was cancelled while the work was under way.
    """

    def __init__(
        self,
        alone: Callable[[Key, Item], Awaitable[Result]],
        run: Callable[[Key, list[Item]], Awaitable[Sequence[Result]]],
        tasks: Tasks,
        weigh: Callable[[Item], int],
        heaviest: int,
        unclaimed: Callable[[Key, Result], None] = _thrown_away,
    ) -> None:
        self._alone, self._run, self._tasks = alone, run, tasks
        self._weigh, self._heaviest = weigh, heaviest
        self._unclaimed = unclaimed
        self._loop = asyncio.get_running_loop()
        self._calm = True
        self._under_way = 0
        self._asked: dict[Key, list[tuple[Item, asyncio.Future[Result]]]] = {}

    def __call__(self, key: Key, item: Item) -> Awaitable[Result]:
        """Return the result for an item, to be awaited at once; what is joined is a future.

        A joined call that is cancelled before its turn ends asks for nothing. An error that the work raises is raised
        to every caller it was done for.
        """
        if self._calm:
            if not self._under_way:
                return self._by_itself(key, item)
            self._calm = False
        future: asyncio.Future[Result] = self._loop.create_future()
        calls = self._asked.get(key)
        if calls is None:
            calls = self._asked[key] = []
            self._loop.call_soon(self._leave, key)
        calls.append((item, future))
        return future

    async def _by_itself(self, key: Key, item: Item) -> Result:
        self._under_way += 1
        try:
            return await self._alone(key, item)
        finally:
            self._under_way -= 1

    def _leave(self, key: Key) -> None:
        self._calm = len(self._asked[key]) == 1 and not self._under_way
        calls = [call for call in self._asked.pop(key) if not call[1].done()]
        for part in portions(calls, [self._weigh(item) for item, _ in calls], self._heaviest):
            self._under_way += 1
            task = self._tasks.spawn(self._work(key, part), f"joined calls: {key!r}")
            closing(task, f"{key!r}", [future for _, future in part])

    async def _work(self, key: Key, calls: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._run(key, [item for item, _ in calls])
        except Exception as error:  # noqa: BLE001 - raised to the callers
            fail([future for _, future in calls], error)
            return
        finally:
            self._under_way -= 1
        for (_, future), result in zip(calls, results, strict=True):
            if future.done():
                self._unclaimed(key, result)
            else:
                future.set_result(result)


def portions(items: Sequence[Item], weights: Sequence[int], heaviest: int) -> Iterator[Sequence[Item]]:
    """Cut items into runs that weigh so much at most; one that weighs more is a run of its own."""
    if items and sum(weights) <= heaviest:
        yield items
        return
    start = total = 0
    for at, weight in enumerate(weights):
        if total + weight > heaviest and at > start:
            yield items[start:at]
            start, total = at, 0
        total += weight
    if items:
        yield items[start:]


def closing(task: asyncio.Task[None], subject: str, futures: Sequence[asyncio.Future[Result]]) -> None:
    """Let nobody wait for a task that is cancelled, which may happen before it has begun."""

    def ended(task: asyncio.Task[None]) -> None:
        if task.cancelled():
            fail(futures, Closed(f"it was closed while {subject} was asked for"))

    task.add_done_callback(ended)


def fail(futures: Sequence[asyncio.Future[Result]], error: Exception) -> None:
    """Raise an error to all who wait: to each one of its own, so that none shares a traceback with another."""
    for future in futures:
        if not future.done():
            future.set_exception(_own(error))


def _own(error: Exception) -> Exception:
    if not isinstance(error, NooblyError):
        return error
    own = type(error)(error.message, retry_after=error.retry_after)
    own.__cause__ = error.__cause__ or error
    return own
