"""Holding messages: each settles itself, and all leases are kept alive until their messages are settled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Generic, Protocol, TypeVar
from weakref import ref

from noobly.core.clock import Seconds
from noobly.core.errors import Conflict, NooblyError
from noobly.core.failure import cause, error_text
from noobly.core.lifecycle import Handle, Tasks
from noobly.layers.spans import tracing
from noobly.queueing.following import followed
from noobly.queueing.messages import Delivery, Returned

T = TypeVar("T")

_log = logging.getLogger("noobly.queueing")
_REASON = 1000


class Settles(Protocol):
    """The methods that holding is made of."""

    async def ack_many(self, queue: str, receipts: Sequence[str]) -> list[bool]: ...
    async def nack(self, queue: str, receipt: str, *, delay: Seconds | None = None, reason: str = "") -> Returned: ...
    async def reject(self, queue: str, receipt: str, *, reason: str = "") -> None: ...
    async def release_many(self, queue: str, receipts: Sequence[str]) -> list[bool]: ...
    async def extend_many(self, queue: str, receipts: Sequence[str], lease: Seconds | None = None) -> list[bool]: ...


class Message(Handle, Generic[T]):
    """A delivery that settles itself: as a context manager it is acknowledged, or given back if the body raises.

    Attributes:
        delivery: All that is known of it.
        value: What was sent.
        lost: Its lease has ended all the same, so somebody else may work on it too.
    """

    def __init__(self, held: Held[T], delivery: Delivery[T]) -> None:
        self.delivery = delivery
        self.value = delivery.value
        self.lost = False
        self._held = held
        self._following: AbstractContextManager[object] | None = None

    @property
    def id(self) -> str:
        """The message's id, the same in every delivery."""
        return self.delivery.id

    async def ack(self) -> None:
        """Say that it is done.

        Raises:
            Conflict: Its lease had ended.
        """
        if not await self._held.ack(self.delivery.receipt):
            raise Conflict(
                f"message {self.id} of queue {self.delivery.queue!r} is done, but its lease had ended before"
            )

    async def nack(self, *, delay: Seconds | None = None, reason: str = "") -> Returned:
        """Give it back, to be delivered again; see ``Queues.nack``."""
        return await self._held.nack(self.delivery.receipt, delay=delay, reason=reason)

    async def reject(self, reason: str = "") -> None:
        """Put it among the dead letters."""
        await self._held.reject(self.delivery.receipt, reason)

    async def release(self) -> None:
        """Give it back as if it had not been received; see ``Queues.release_many``."""
        await self._held.release([self.delivery.receipt])

    async def __aenter__(self) -> T:
        self._following = followed(self.delivery, traced=self._held.traced)
        if self._following is not None:
            self._following.__enter__()
        return self.value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Settle the message; an exception of the body is logged and goes no further, a cancellation does.

        Where it cannot be settled, that is logged, and it comes again when its lease has ended.
        """
        try:
            await self._end(error)
        finally:
            if self._following is not None:
                with suppress(ValueError):  # It is left elsewhere than it was entered, and has ended already.
                    self._following.__exit__(kind, error, traceback)
        return isinstance(error, Exception)

    async def _end(self, error: BaseException | None) -> None:
        if isinstance(error, Exception):
            _log.warning(
                "message %s of queue %r failed: %r", self.id, self.delivery.queue, error, exc_info=cause(error)
            )
        if self._held.holds(self.delivery.receipt):
            await (self._done() if error is None else self._held.complete(self._settle(self._failed(error))))

    async def _done(self) -> None:
        try:
            await self._settle(self.ack())
        except asyncio.CancelledError:
            # Cheaper than a task for each message: only this one is acknowledged once more, which does no harm.
            await self._held.complete(self._ack_again())
            raise

    async def _ack_again(self) -> None:
        with suppress(NooblyError):
            await self.ack()

    async def _failed(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            await self.nack(reason=error_text(error)[:_REASON])
        else:  # Whoever worked on it was stopped, which is not the message's fault.
            await self.release()

    async def _settle(self, work: Coroutine[object, object, None]) -> None:
        """Do what settles it; a store that fails ends nobody's work."""
        try:
            await work
        except Conflict:
            _log.warning("message %s of queue %r lost its lease; it may be worked on twice", self.id, self._held.queue)
        except NooblyError as failure:
            _log.warning(
                "message %s of queue %r could not be settled and comes again: %s", self.id, self._held.queue, failure
            )


class Held(Generic[T]):
    """The open deliveries of one consumer: received, and not settled yet.

    Leases are extended for messages that somebody holds and, as long as the consumer is there, for all.

    Args:
        queues: Who settles.
        tasks: Owns the work under way.
        queue: The queue.
        lease: Seconds of a lease.
        consumer: Who receives, held weakly; it may go before its messages do.
    """

    def __init__(self, queues: Settles, tasks: Tasks, queue: str, lease: float, consumer: object) -> None:
        self.queue, self.lease, self.traced = queue, lease, tracing()
        self.changed = asyncio.Event()
        self._queues, self._tasks = queues, tasks
        self._consumer = ref(consumer)
        self._open: dict[str, ref[Message[T]] | None] = {}
        self._beating: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def holds(self, receipt: str) -> bool:
        """Return whether a delivery is open: neither settled, nor its lease known to have ended."""
        return receipt in self._open

    def add(self, receipts: Sequence[str]) -> None:
        """Keep deliveries alive from now on."""
        self._open |= dict.fromkeys(receipts)
        if self._beating is None and receipts:
            self._beating = self._tasks.spawn(_beat(ref(self), self.lease), f"heartbeat of queue {self.queue!r}")

    def message(self, delivery: Delivery[T]) -> Message[T]:
        """Return an open delivery as the message that its receiver holds."""
        message = Message(self, delivery)
        self._open[delivery.receipt] = ref(message)
        return message

    async def ack(self, receipt: str) -> bool:
        """Delete a message; return whether its lease still stood."""
        self.forget(receipt)  # First, so that no heartbeat finds it done, or keeps it from others where this fails.
        return (await self._queues.ack_many(self.queue, [receipt]))[0]

    async def nack(self, receipt: str, *, delay: Seconds | None, reason: str) -> Returned:
        """See ``Queues.nack``."""
        self.forget(receipt)
        return await self._queues.nack(self.queue, receipt, delay=delay, reason=reason)

    async def reject(self, receipt: str, reason: str) -> None:
        """See ``Queues.reject``."""
        self.forget(receipt)
        await self._queues.reject(self.queue, receipt, reason=reason)

    async def release(self, receipts: Sequence[str]) -> None:
        """Give open deliveries back as if they had not been received."""
        for receipt in receipts:
            self.forget(receipt)
        if receipts:
            await self._queues.release_many(self.queue, receipts)

    def forget(self, receipt: str) -> None:
        """Keep a delivery alive no longer."""
        self._open.pop(receipt, None)
        self.changed.set()

    async def complete(self, work: Coroutine[object, object, None]) -> None:
        """Settle something to the end, also where the caller is cancelled meanwhile."""
        await self._tasks.complete(work, f"settling of queue {self.queue!r}")

    async def close(self) -> None:
        """Give back what is open."""
        if self._beating is not None:
            self._beating.cancel()
        with suppress(NooblyError):
            await self.release(list(self._open))

    async def beat(self) -> None:
        """Extend the leases of what is held; those that have ended are open no more."""
        receipts = self._living()
        if not receipts:
            return
        try:
            good = await self._queues.extend_many(self.queue, receipts, self.lease)
        except NooblyError as error:
            _log.warning("leases of queue %r could not be extended; trying again: %s", self.queue, error)
            return
        for receipt, stands in zip(receipts, good, strict=True):
            if not stands and receipt in self._open:
                self._lose(receipt)

    def _living(self) -> list[str]:
        if self._consumer() is not None:
            return list(self._open)
        return [receipt for receipt, message in self._open.items() if message is not None and message() is not None]

    def _lose(self, receipt: str) -> None:
        known = self._open[receipt]
        self.forget(receipt)
        message = known() if known is not None else None
        if message is not None:
            message.lost = True
            _log.warning("message %s of queue %r lost its lease; it may be worked on twice", message.id, self.queue)


async def _beat(held: ref[Held[T]], lease: float) -> None:
    """Keep leases alive, as long as anybody holds the consumer or one of its messages."""
    while True:
        await asyncio.sleep(lease / 3)
        living = held()
        if living is None:
            return
        await living.beat()
        del living
