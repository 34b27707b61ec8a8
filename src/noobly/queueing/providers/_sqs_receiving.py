"""Receiving that may be cancelled: SQS hands out all the same, to nobody, until the lease ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import NamedTuple, TypeVar

from noobly.clients.aws import AwsError
from noobly.queueing.providers._sqs_calls import Calls, outcomes
from noobly.queueing.providers._sqs_queues import Directory
from noobly.queueing.providers._sqs_wire import ABSENT, Message

T = TypeVar("T")

_PATIENCE = 3.0
"""Seconds that closing waits for messages that came to nobody to be given back; no call waits longer for them."""
_BUDGET = 1.0
"""Seconds after which a receive that has found something asks for no more."""
_AT_ONCE = 8


class Claim(NamedTuple):
    """Where messages are received from, and for how many seconds they are held."""

    queue: str
    url: str
    lease: int


class Arrival(NamedTuple):
    """A message, and the time of the clock at which its lease ends."""

    message: Message
    until: float


class Receiving:
    """Receives, and gives back what comes for a receiver that is gone.

    Args:
        queues: Forgets those that were deleted.
        calls: Asks SQS.
        together: How many messages one call may ask for.
        now: The clock.
    """

    def __init__(self, queues: Directory, calls: Calls, together: int, now: Callable[[], float]) -> None:
        self._queues, self._calls, self._together, self._now = queues, calls, together, now
        self._running: set[asyncio.Task[object]] = set()

    async def receive(self, claim: Claim, most: int, wait: int) -> list[Arrival]:
        """Receive messages, in as many calls as that takes; where it is cut short, all that came go back.

        Args:
            claim: Where from, and for how long.
            most: How many at most.
            wait: Seconds that the first call waits for a message; the others do not wait.
        """
        found: list[Arrival] = []
        try:
            await self._fill(found, claim, most, wait)
        except BaseException:
            if found:
                self._spawn(self._calls.hide(claim.url, [(one.message.receipt_handle, 0) for one in found]))
            raise
        return found

    async def _fill(self, found: list[Arrival], claim: Claim, most: int, wait: int) -> None:
        now = asyncio.get_running_loop().time
        until = now() + _BUDGET + wait
        full = await self._take(found, claim, min(most, self._together), wait) == self._together
        while full and len(found) < most and now() < until:
            asked = min(self._together, most - len(found))
            rounds = min(_AT_ONCE, (most - len(found)) // self._together) or 1
            came = await outcomes([partial(self._take, found, claim, asked, 0)] * rounds, rounds)
            full = all(one == asked for one in came)

    async def _take(self, found: list[Arrival], claim: Claim, most: int, wait: int) -> int:
        """Receive up to ten messages, add them to what was found and return how many they are."""
        try:
            came = await self._received(claim, most, wait)
        except AwsError as error:
            if error.code not in ABSENT:
                raise
            self._queues.forget(claim.queue)
            return 0
        until = self._now() + claim.lease
        found += [Arrival(one, until) for one in came]
        return len(came)

    async def _received(self, claim: Claim, most: int, wait: int) -> list[Message]:
        taking = self._spawn(self._calls.receive(claim.url, most, claim.lease, wait))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._spawn(self._give_back(claim.url, taking))
            raise

    async def _give_back(self, url: str, taking: asyncio.Task[list[Message]]) -> None:
        if found := await taking:
            await self._calls.hide(url, [(one.receipt_handle, 0) for one in found])

    async def close(self) -> None:
        """Wait a little for what is under way, and then end it."""
        if running := list(self._running):
            await asyncio.wait(running, timeout=_PATIENCE)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _spawn(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work, name="receiving from SQS")
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[T]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # The receiver gets it; of one that is gone, the lease ends.
