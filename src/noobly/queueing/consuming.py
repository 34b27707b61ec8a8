"""Consuming a queue: one message after another, a bound on how many are open, and a graceful end."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import Generic, Protocol, Self, TypeVar

from noobly.core.checks import whole
from noobly.core.clock import Seconds
from noobly.core.errors import InvalidArgument, NooblyError
from noobly.core.lifecycle import Handle, Tasks
from noobly.core.waiting import SLICE
from noobly.queueing.admitting import admitted, refused
from noobly.queueing.holding import Held, Message, Settles
from noobly.queueing.messages import Delivery, Value

T = TypeVar("T")

_log = logging.getLogger("noobly.queueing")
_LONGEST_PAUSE = 5.0


class Consumable(Settles, Protocol):
    """The methods that consuming is made of."""

    async def receive(
        self, queue: str, *, max: int, wait: Seconds | None, lease: Seconds | None
    ) -> list[Delivery[Value]]: ...


class Consumption(Handle, Generic[T]):
    """The messages of one queue, one after another: ``async for message in queues.consume("orders"): …``.

    At most ``concurrency`` messages are open at once: the next one comes when one of them is settled. Their leases are
    extended until they are settled, or nobody holds the consumption any more. As a context manager it gives back at its
    end what is still open; that is no failure, and nothing goes to the dead letters by it.
    """

    def __init__(
        self, queues: Consumable, tasks: Tasks, queue: str, type: type[T], *, concurrency: int, lease: float
    ) -> None:
        self.queue, self.concurrency = queue, whole(concurrency, "concurrency", 1, 1000)
        self._queues, self._tasks, self._type = queues, tasks, type
        self._held: Held[T] = Held(queues, tasks, queue, lease, self)
        self._arrived: deque[Delivery[Value]] = deque()
        self._stopped = False
        self._failures = 0

    def stop(self) -> None:
        """Hand out nothing more: the iteration ends within 2 seconds, and open messages can still be settled."""
        self._stopped = True
        self._held.changed.set()

    async def close(self) -> None:
        """Stop, and give back what is open."""
        self.stop()
        await self._held.complete(self._held.close())

    def holds(self, message: Message[T]) -> bool:
        """Return whether a message is open: neither settled, nor its lease known to have ended."""
        return self._held.holds(message.delivery.receipt)

    async def beat(self) -> None:
        """Extend the leases of all open messages; those that have ended are open no more."""
        await self._held.beat()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message[T]:
        while not self._stopped:
            if not self._arrived:
                await self._fetch()
            elif (message := await self._next()) is not None:
                return message
        await self._give_back()
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _next(self) -> Message[T] | None:
        """Return the next message that arrived, if its lease still stands and it is of the wanted type."""
        arrived = self._arrived.popleft()
        if not self._held.holds(arrived.receipt):
            return None
        try:
            return self._held.message(admitted(arrived, self._type))
        except InvalidArgument as error:
            self._held.forget(arrived.receipt)
            await self._held.complete(refused(self._queues, arrived, error.message))
            return None

    async def _give_back(self) -> None:
        """Give back what arrived and was not handed out."""
        receipts = [one.receipt for one in self._arrived if self._held.holds(one.receipt)]
        self._arrived.clear()
        with suppress(NooblyError):
            await self._held.release(receipts)

    async def _fetch(self) -> None:
        """Receive what there is room for; while the store is down, try again after a pause."""
        free = self.concurrency - len(self._held)
        changed = self._held.changed
        if free <= 0:
            changed.clear()
            await changed.wait()
            return
        try:
            found = await self._queues.receive(self.queue, max=free, wait=SLICE, lease=self._held.lease)
        except NooblyError as error:
            if not error.temporary:
                raise
            await self._pause(error)
            return
        self._failures = 0
        self._arrived += found
        self._held.add([one.receipt for one in found])

    async def _pause(self, error: NooblyError) -> None:
        if self._failures == 0:
            _log.warning("queue %r cannot be received from; trying again: %s", self.queue, error)
        self._failures += 1
        pause = max(error.retry_after or 0.0, min(_LONGEST_PAUSE, 0.05 * 2 ** min(self._failures, 10)))
        self._held.changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._held.changed.wait()
