"""Joining calls: what is asked in one turn of the event loop goes to the store together.

Many tasks that send or acknowledge at the same time would each pay for a round trip that one call can make for all.
A call that is alone leaves at the end of the turn too, so it waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Generic, TypeVar

from noobly.core.errors import Closed, NooblyError
from noobly.core.lifecycle import Tasks

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Call(Generic[Item, Result]):
    __slots__ = ("future", "items", "weight")

    def __init__(self, items: Sequence[Item], weight: int, future: asyncio.Future[list[Result]]) -> None:
        self.items = items
        self.weight = weight
        self.future = future


class Gather(Generic[Item, Result]):
    """Joins the calls for one queue.

    Args:
        run: Does the work for a queue's items and gives a result for each, in their order.
        tasks: Owns the work under way.
        weigh: What an item weighs.
        heaviest: What joined calls weigh together at most; one call may weigh more.
    """

    def __init__(
        self,
        run: Callable[[str, Sequence[Item]], Awaitable[list[Result]]],
        tasks: Tasks,
        weigh: Callable[[Item], int],
        heaviest: int,
    ) -> None:
        self._run, self._tasks, self._weigh, self._heaviest = run, tasks, weigh, heaviest
        self._asked: dict[str, list[_Call[Item, Result]]] = {}

    def __call__(self, queue: str, items: Sequence[Item]) -> asyncio.Future[list[Result]]:
        """Return the results for these items, to be awaited at once.

        A call that is cancelled before its turn ends asks for nothing; later, its results are thrown away. An error
        that the work raises is raised to every caller it was done for.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Result]] = loop.create_future()
        weight = self._weigh(items[0]) if len(items) == 1 else sum(map(self._weigh, items))
        calls = self._asked.get(queue)
        if calls is None:
            calls = self._asked[queue] = []
            loop.call_soon(self._leave, queue)
        calls.append(_Call(items, weight, future))
        return future

    def _leave(self, queue: str) -> None:
        calls = [call for call in self._asked.pop(queue) if not call.future.done()]
        for part in portions(calls, [call.weight for call in calls], self._heaviest):
            task = self._tasks.spawn(self._work(queue, part), f"joined calls of queue {queue!r}")
            closing(task, queue, [call.future for call in part])

    async def _work(self, queue: str, calls: Sequence[_Call[Item, Result]]) -> None:
        try:
            results = await self._run(queue, [item for call in calls for item in call.items])
        except Exception as error:  # noqa: BLE001 - raised to the callers
            fail([call.future for call in calls], error)
            return
        start = 0
        for call in calls:
            end = start + len(call.items)
            if not call.future.done():
                call.future.set_result(results[start:end])
            start = end


def portions(items: Sequence[Item], weights: Sequence[int], heaviest: int) -> Iterator[Sequence[Item]]:
    """Cut items into runs that weigh so much at most; one that weighs more is a run of its own."""
    start = total = 0
    for at, weight in enumerate(weights):
        if total + weight > heaviest and at > start:
            yield items[start:at]
            start, total = at, 0
        total += weight
    if items:
        yield items[start:]


def closing(task: asyncio.Task[None], queue: str, futures: Sequence[asyncio.Future[Result]]) -> None:
    """Let nobody wait for a task that is cancelled, which may happen before it has begun."""

    def ended(task: asyncio.Task[None]) -> None:
        if task.cancelled():
            fail(futures, Closed(f"the queues were closed while queue {queue!r} was used"))

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
