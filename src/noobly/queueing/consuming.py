"""Consuming a queue: deliveries kept alive by a heartbeat, a bound on how many are open, and a graceful end."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar
from weakref import ref

import msgspec

from noobly.core.clock import Seconds
from noobly.core.codec import converted
from noobly.core.errors import Conflict, InvalidArgument, NooblyError
from noobly.core.lifecycle import Handle, Tasks
from noobly.core.waiting import SLICE
from noobly.queueing.messages import Delivery, Returned, Value

T = TypeVar("T")

_log = logging.getLogger("noobly.queueing")
_LONGEST_PAUSE = 5.0
_REASON = 1000


class Consumable(Protocol):
    """The methods that consuming is made of."""

    async def receive(
        self, queue: str, *, max: int, wait: Seconds | None, lease: Seconds | None
    ) -> list[Delivery[Value]]: ...
    async def ack_many(self, queue: str, receipts: Sequence[str]) -> list[bool]: ...
    async def nack(self, queue: str, receipt: str, *, delay: Seconds | None = None, reason: str = "") -> Returned: ...
    async def reject(self, queue: str, receipt: str, *, reason: str = "") -> None: ...
    async def extend_many(self, queue: str, receipts: Sequence[str], lease: Seconds | None = None) -> list[bool]: ...


class Message(Handle, Generic[T]):
    """A delivery that settles itself: as a context manager it is acknowledged, or given back if the body raises.

    Attributes:
        delivery: All that is known of it.
        value: What was sent.
        lost: Its lease has ended all the same, so somebody else may work on it too.
    """

    def __init__(self, consumption: Consumption[T], delivery: Delivery[T]) -> None:
        self.delivery = delivery
        self.value = delivery.value
        self.lost = False
        self._consumption = consumption

    @property
    def id(self) -> str:
        """The message's id, the same in every delivery."""
        return self.delivery.id

    async def ack(self) -> None:
        """Say that it is done.

        Raises:
            Conflict: Its lease had ended.
        """
        await self._consumption.ack(self)

    async def nack(self, *, delay: Seconds | None = None, reason: str = "") -> Returned:
        """Give it back, to be delivered again; see ``Queues.nack``."""
        return await self._consumption.nack(self, delay=delay, reason=reason)

    async def reject(self, reason: str = "") -> None:
        """Put it among the dead letters."""
        await self._consumption.reject(self, reason)

    async def __aenter__(self) -> T:
        return self.value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        """Settle the message; an exception of the body is logged and goes no further, a cancellation does."""
        if not self._consumption.holds(self):
            return isinstance(error, Exception)
        if error is None:
            await self.ack()
        elif isinstance(error, Exception):
            _log.warning("message %s of queue %r failed: %r", self.id, self.delivery.queue, error)
            await self.nack(reason=_told(error))
        else:
            await asyncio.shield(self.nack(delay=0, reason="its receiver was stopped"))
        return isinstance(error, Exception)


class Consumption(Handle, Generic[T]):
    """The messages of one queue, one after another: ``async for message in queues.consume("orders"): …``.

    At most ``concurrency`` messages are open at once: the next one comes when one of them is settled. Their leases are
    extended until they are settled, or nobody holds the consumption any more. As a context manager it gives back at its
    end what is still open.
    """

    def __init__(
        self, queues: Consumable, tasks: Tasks, queue: str, type: type[T], *, concurrency: int, lease: float
    ) -> None:
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or not 1 <= concurrency <= 1000:
            raise InvalidArgument(f"concurrency must be a whole number of 1 to 1000, not {concurrency!r}")
        self.queue = queue
        self._queues, self._tasks, self._type = queues, tasks, type
        self._concurrency, self._lease = concurrency, lease
        self._open: dict[str, Message[T]] = {}
        self._arrived: deque[Message[T]] = deque()
        self._changed = asyncio.Event()
        self._stopped = False
        self._failures = 0
        self._beating: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Receive nothing more: the iteration ends within 2 seconds, and open messages can still be settled."""
        self._stopped = True
        self._changed.set()

    async def close(self) -> None:
        """Stop, and give back what is open."""
        self.stop()
        for message in list(self._open.values()):
            with suppress(NooblyError):
                await self.nack(message, delay=0)
        if self._beating is not None:
            self._beating.cancel()

    def holds(self, message: Message[T]) -> bool:
        """Return whether a message is open: neither settled, nor its lease known to have ended."""
        return message.delivery.receipt in self._open

    async def ack(self, message: Message[T]) -> None:
        """See ``Message.ack``."""
        self._settle(message)  # First, so that no heartbeat finds it done, or keeps it from others where this fails.
        good = await self._queues.ack_many(self.queue, [message.delivery.receipt])
        if not good[0]:
            raise Conflict(f"message {message.id} of queue {self.queue!r} is done, but its lease had ended before")

    async def nack(self, message: Message[T], *, delay: Seconds | None = None, reason: str = "") -> Returned:
        """See ``Message.nack``."""
        self._settle(message)
        return await self._queues.nack(self.queue, message.delivery.receipt, delay=delay, reason=reason)

    async def reject(self, message: Message[T], reason: str) -> None:
        """See ``Message.reject``."""
        self._settle(message)
        await self._queues.reject(self.queue, message.delivery.receipt, reason=reason)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message[T]:
        while not self._arrived:
            if self._stopped:
                raise StopAsyncIteration
            await self._fetch()
        return self._arrived.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.close())

    def _settle(self, message: Message[T]) -> None:
        self._open.pop(message.delivery.receipt, None)
        self._changed.set()

    async def _fetch(self) -> None:
        """Receive what there is room for; while the store is down, try again after a pause."""
        free = self._concurrency - len(self._open)
        if free <= 0:
            self._changed.clear()
            await self._changed.wait()
            return
        try:
            found = await self._queues.receive(self.queue, max=free, wait=SLICE, lease=self._lease)
        except NooblyError as error:
            if not error.temporary:
                raise
            await self._pause(error)
            return
        self._failures = 0
        for delivery in found:
            await self._admit(delivery)
        if self._beating is None and self._open:
            self._beating = self._tasks.spawn(_beat(ref(self), self._lease), f"heartbeat of queue {self.queue!r}")

    async def _pause(self, error: NooblyError) -> None:
        if self._failures == 0:
            _log.warning("queue %r cannot be received from; trying again: %s", self.queue, error)
        self._failures += 1
        pause = max(error.retry_after or 0.0, min(_LONGEST_PAUSE, 0.05 * 2 ** min(self._failures, 10)))
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._changed.wait()

    async def _admit(self, delivery: Delivery[Value]) -> None:
        """Open a message; one that is not of the wanted type goes to the dead letters."""
        try:
            value = converted(delivery.value, self._type, f"message {delivery.id} of queue {self.queue!r}")
        except InvalidArgument as error:
            _log.warning("%s; it goes to the dead letters", error.message)
            with suppress(NooblyError):
                await self._queues.reject(self.queue, delivery.receipt, reason=error.message)
            return
        message = Message(self, msgspec.structs.replace(delivery, value=value))
        self._open[delivery.receipt] = message
        self._arrived.append(message)

    async def beat(self) -> None:
        """Extend the leases of all open messages; those that have ended are open no more."""
        receipts = list(self._open)
        if not receipts:
            return
        try:
            good = await self._queues.extend_many(self.queue, receipts, self._lease)
        except NooblyError as error:
            _log.warning("leases of queue %r could not be extended; trying again: %s", self.queue, error)
            return
        for receipt, stands in zip(receipts, good, strict=True):
            message = None if stands else self._open.pop(receipt, None)
            if message is not None:
                message.lost = True
                self._changed.set()
                _log.warning("message %s of queue %r lost its lease; it may be worked on twice", message.id, self.queue)


def _told(error: Exception) -> str:
    """Return an exception as text that can be sent."""
    return f"{type(error).__name__}: {error}"[:_REASON].encode(errors="replace").decode()


async def _beat(consumption: ref[Consumption[T]], lease: float) -> None:
    """Keep leases alive, as long as anybody holds the consumption or one of its messages."""
    while True:
        await asyncio.sleep(lease / 3)
        living = consumption()
        if living is None:
            return
        await living.beat()
        del living
