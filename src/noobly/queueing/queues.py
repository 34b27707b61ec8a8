"""The queues that users hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar, overload

from noobly.core.checks import whole
from noobly.core.clock import Seconds
from noobly.core.errors import InvalidArgument, TooLarge, Unavailable
from noobly.core.public import public
from noobly.core.scope import Scope
from noobly.core.waiting import awaited
from noobly.queueing import events, names
from noobly.queueing.admitting import admitted, refused
from noobly.queueing.calls import Calls
from noobly.queueing.driver import Posted, QueueDriver, Sent
from noobly.queueing.handing import Hands
from noobly.queueing.messages import (
    DeadLetter,
    Delivery,
    Outbound,
    Peeked,
    QueueStats,
    Receipt,
    Redriven,
    Returned,
    Value,
)
from noobly.queueing.options import QueueOptions
from noobly.queueing.packing import Packer
from noobly.queueing.receipts import handed, receipt_of
from noobly.queueing.redriving import Redrive
from noobly.queueing.settling import Settling, stale
from noobly.queueing.stats import Analytics
from noobly.queueing.sugar import QueueSugar
from noobly.queueing.waiting import LONGEST_WAIT, Leases, waited

D = TypeVar("D")
T = TypeVar("T")

_MOST_SENT, _MOST_RECEIVED, _DEEPEST = 10_000, 1000, 100_000


class Queues(QueueSugar):
    """Messages under queue names, delivered at least once, on any provider.

    A message is delivered under a lease: its receiver acknowledges it, gives it back, or loses it when the lease ends.
    After ``max_deliveries`` deliveries it goes to the queue's dead letters. Queue names are 1 to 200 characters of any
    text; a queue comes into being with its first message. Messages are what JSON carries, msgspec Structs, dataclasses,
    or bytes. Lengths of time are seconds or ``timedelta``.
    """

    service = "queueing"

    def __init__(self, driver: QueueDriver, scope: Scope, options: QueueOptions) -> None:
        self._begin(scope, options)
        self._driver = driver
        self._leases = Leases(options, driver)
        self._packer = Packer(options, scope.environment.clock, driver)
        self._settling = Settling(driver, scope, options)
        self._hands = Hands(driver, self._packer, self._settling, self._tasks, scope, options)
        self._calls = Calls(driver, self._hands, self._tasks)
        self._redrive = Redrive(driver, self._packer.admit, self._tasks)
        self._analytics = Analytics(scope, self.queues, self.stats, options.depth_queues)
        self._bus = scope.environment.bus
        self._where = (scope.service, scope.instance)
        self._sendings = self._bus.topic(events.Sent, *self._where)
        self._receivings = self._bus.topic(events.Received, *self._where)
        self._ackings = self._bus.topic(events.Acknowledged, *self._where)

    async def close(self) -> None:
        """End what is consumed; messages under way go back when their lease ends."""
        self._analytics.close()
        await self._end()

    @public("POST", "send", permission="write")
    async def send(
        self,
        queue: str,
        message: Value,
        *,
        priority: int = 0,
        delay: Seconds | None = None,
        ttl: Seconds | None = None,
        dedup: str | None = None,
        group: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Receipt:
        """Send a message; once this returns, it survives what the provider survives.

        Args:
            queue: The queue.
            message: The message.
            priority: 0 to 9; messages of higher priority are delivered first, and may starve the others.
            delay: Seconds before which it is not delivered.
            ttl: Seconds after which it is dropped if nobody has received it.
            dedup: A key; a message with the key of one sent within ``dedup_window`` is dropped.
            group: A group, whose messages are delivered in order or in turn with other groups; see ``QueueOptions``.
            headers: Text that travels beside it.

        Raises:
            InvalidArgument: An argument is bad, or the message cannot be encoded.
            TooLarge: It is over the limit.
            Unsupported: The provider cannot do what an argument asks for.
            Unavailable: The store did not take it, and may do so later.
        """
        posted = self._packer.one(names.check(queue), message, priority, (delay, ttl, dedup, group, headers))
        sent = await self._calls.send(queue, posted)
        if sent.error:
            raise Unavailable(f"queue {queue!r} did not take the message: {sent.error}")
        if not sent.duplicate:
            self._tell_sent(queue, 1)
        return Receipt(id=sent.id, duplicate=sent.duplicate)

    @public("POST", "send-many", permission="write")
    async def send_many(self, queue: str, messages: Sequence[Outbound]) -> list[Receipt]:
        """Send up to 10,000 messages in order; one that is bad refuses all before any is sent.

        Returns:
            What became of each; a provider may fail to store some of them.
        """
        if len(messages) > _MOST_SENT:
            raise TooLarge(f"{len(messages)} messages are too many for one call; {_MOST_SENT} is the most")
        packed = [self._packer.pack(names.check(queue), one) for one in messages]
        sent = await self._sent(queue, packed) if packed else []
        return [Receipt(id=one.id, duplicate=one.duplicate, error=one.error) for one in sent]

    @public("POST", "receive", permission="write", waits=True, undo="unreceived")
    async def poll(
        self, queue: str, *, max: int = 1, wait: Seconds | None = None, lease: Seconds | None = None
    ) -> list[Delivery[Value]]:
        """Receive messages, waiting 20 seconds at most; ``receive`` is this without that bound.

        Args:
            queue: The queue.
            max: How many at most, up to 1000.
            wait: Seconds to wait for the first one; None returns at once.
            lease: Seconds they are held for; the option ``lease`` by default.
        """
        most, held = whole(max, "max", 1, _MOST_RECEIVED), self._leases.of(lease)
        names.check(queue)
        if wait is None:
            taking = self._calls.take(queue, most, held)
            try:
                found = await taking
            except asyncio.CancelledError:
                self._calls.lost(queue, taking)
                raise
        else:
            within = waited(wait, LONGEST_WAIT)
            found = await awaited(lambda left: self._calls.wait(queue, most, held, left), within, self._slice)
        if found:
            self._analytics.received[queue].value += len(found)
            if self._receivings.handlers:
                self._receivings.emit(events.Received(*self._where, queue, len(found)))
        return found

    @overload
    async def dequeue(self, queue: str) -> Value | None: ...
    @overload
    async def dequeue(self, queue: str, default: D) -> Value | D: ...
    @overload
    async def dequeue(self, queue: str, *, type: type[T]) -> T | None: ...
    @overload
    async def dequeue(self, queue: str, default: D, *, type: type[T]) -> T | D: ...
    @public("POST", "dequeue", permission="write", absent="default", local=("type",))
    async def dequeue(self, queue: str, default: object = None, *, type: type[object] = object) -> object:
        """Receive one message and acknowledge it at once; ``default`` where there is none.

        The message is lost if the program ends before it has done its work; ``receive`` and ``consume`` are safe. One
        that is not of ``type`` goes to the dead letters, and the next one comes; of a Noobly server, it is lost.
        """
        while found := await self.poll(queue):
            try:
                value = admitted(found[0], type).value
            except InvalidArgument as error:
                await refused(self, found[0], error.message)
                continue
            await self.ack(queue, found[0].receipt)
            return value
        return default

    @public("POST", "ack", permission="write", idempotent=True)
    async def ack(self, queue: str, receipt: str) -> None:
        """Say that a message is done, so that it is never delivered again.

        Raises:
            Conflict: The lease has ended; the message has been or will be delivered to somebody else.
        """
        if not await self._calls.ack(names.check(queue), receipt_of(receipt)):
            raise stale(queue, "acknowledged")
        self._tell_acked(queue, 1)

    @public("POST", "ack-many", permission="write", idempotent=True)
    async def ack_many(self, queue: str, receipts: Sequence[str]) -> list[bool]:
        """Say that messages are done; return for each whether its lease still stood."""
        good = await self._driver.ack(names.check(queue), [receipt_of(one) for one in receipts])
        if any(good):
            self._tell_acked(queue, sum(good))
        return good

    @public("POST", "nack", permission="write")
    async def nack(self, queue: str, receipt: str, *, delay: Seconds | None = None, reason: str = "") -> Returned:
        """Give a message back, to be delivered again; after its last delivery it goes to the dead letters.

        Dead letters that are received from their own queue stay there, however often.

        Args:
            queue: The queue.
            receipt: Which delivery.
            delay: Seconds before which it is not delivered again; by default a random part of ``backoff`` seconds,
                doubled with each delivery, up to ``backoff_cap``.
            reason: The error; its first 1,000 characters are kept.

        Raises:
            Conflict: The lease has ended.
        """
        return await self._settling.fail(names.check(queue), handed(receipt), delay, reason)

    @public("POST", "reject", permission="write")
    async def reject(self, queue: str, receipt: str, *, reason: str = "") -> None:
        """Put a message among the dead letters, for trying again would not help; a dead letter stays one.

        Raises:
            Conflict: The lease has ended.
        """
        await self._settling.bury(names.check(queue), handed(receipt), "rejected", reason)

    @public("POST", "release-many", permission="write", idempotent=True)
    async def release_many(self, queue: str, receipts: Sequence[str]) -> list[bool]:
        """Give messages back that nobody has worked on, to be delivered again at once.

        It is as if they had not been delivered, and none goes to the dead letters. Without ``Can.UNCOUNT`` the delivery
        counts all the same.

        Returns:
            For each, whether its lease still stood.
        """
        return await self._settling.release(names.check(queue), receipts)

    @public("POST", "extend", permission="write", idempotent=True)
    async def extend(self, queue: str, receipt: str, lease: Seconds | None = None) -> None:
        """Let a lease end ``lease`` seconds from now.

        Raises:
            Conflict: It has ended already.
        """
        if not (await self.extend_many(queue, [receipt], lease))[0]:
            raise stale(queue, "kept")

    @public("POST", "extend-many", permission="write", idempotent=True)
    async def extend_many(self, queue: str, receipts: Sequence[str], lease: Seconds | None = None) -> list[bool]:
        """Let leases end ``lease`` seconds from now; return for each whether it still stood."""
        held = self._leases.of(lease)
        return await self._driver.extend(names.check(queue), [receipt_of(one) for one in receipts], held)

    @public("GET", "size", permission="read")
    async def size(self, queue: str) -> int:
        """Return how many messages wait, those included that wait for their time; 0 of an unknown queue."""
        counts = await self._driver.counts(names.check(queue))
        return counts.ready + counts.delayed

    @public("GET", "stats", permission="read")
    async def stats(self, queue: str) -> QueueStats:
        """Return how many messages are ready, delayed, under way and dead."""
        counts = await self._driver.counts(names.check(queue))
        buried = None if names.is_dead(queue) else await self._driver.counts(names.dead(queue))
        return QueueStats(
            queue=queue,
            ready=counts.ready,
            delayed=counts.delayed,
            in_flight=counts.in_flight,
            dead=buried.ready + buried.delayed + buried.in_flight if buried else 0,
            oldest=counts.oldest,
            paused=counts.paused,
        )

    @public("GET", "queues", permission="read")
    async def queues(self) -> list[str]:
        """Return the names of the queues that were sent to and not purged since; not those of dead letters."""
        return [name for name in await self._driver.queues() if not names.is_dead(name)]

    @public("POST", "purge", permission="admin", idempotent=True)
    async def purge(self, queue: str) -> int:
        """Delete all messages that nobody works on; return how many there were."""
        count = await self._driver.purge(names.check(queue))
        self._bus.emit(events.Purged(*self._where, queue, count))
        return count

    @public("GET", "peek", permission="read")
    async def peek(self, queue: str, *, max: int = 10, skip: int = 0) -> list[Peeked]:
        """Return messages without delivering them, about in the order of their delivery; fewer where they are large."""
        found = await self._driver.peek(names.check(queue), whole(skip, "skip", 0, _DEEPEST), max)
        return [self._packer.peeked(queue, one) for one in found]

    @public("GET", "dead-letters", permission="read")
    async def dead_letters(self, queue: str, *, max: int = 10, skip: int = 0) -> list[DeadLetter]:
        """Return dead letters of a queue, about in the order in which they died."""
        found = await self._driver.peek(names.dead(queue), whole(skip, "skip", 0, _DEEPEST), max)
        return [self._packer.dead_letter(queue, one) for one in found]

    @public("POST", "redrive", permission="admin", lasts=True)
    async def redrive(
        self, queue: str, *, error: str = "", to: str | None = None, max: int = 1000, rate: float | None = None
    ) -> Redriven:
        """Send dead letters once more, with a new count of deliveries.

        Args:
            queue: The queue they came from.
            error: Only those whose first or last error holds this text; one of an ordered group that is passed over
                hides those behind it in its group.
            to: Where to send them; the queue they came from by default.
            max: How many to look at, up to 10,000.
            rate: Messages per second at most; None for no limit.
        """
        target = names.check(to if to is not None else queue)
        return await self._redrive.run(names.dead(queue), target, error, max, rate)

    @public("POST", "move", permission="admin", lasts=True)
    async def move(self, queue: str, to: str, *, max: int = 1000, rate: float | None = None) -> Redriven:
        """Send messages of one queue to another instead; see ``redrive``."""
        return await self._redrive.run(names.check(queue), names.check(to), "", max, rate)

    @public("POST", "pause", permission="admin", idempotent=True)
    async def pause(self, queue: str) -> None:
        """Deliver nothing more from a queue to anybody, until ``resume``; deliveries under way go on."""
        await self._driver.pause(names.check(queue))

    @public("POST", "resume", permission="admin", idempotent=True)
    async def resume(self, queue: str) -> None:
        """Deliver again."""
        await self._driver.resume(names.check(queue))

    async def _sent(self, queue: str, packed: Sequence[Posted]) -> list[Sent]:
        sent = await self._driver.send(queue, packed)
        if stored := sum(1 for one in sent if not one.duplicate and not one.error):
            self._tell_sent(queue, stored)
        return sent

    def _tell_sent(self, queue: str, count: int) -> None:
        self._analytics.sent[queue].value += count
        if self._sendings.handlers:
            self._sendings.emit(events.Sent(*self._where, queue, count))

    def _tell_acked(self, queue: str, count: int) -> None:
        self._analytics.acknowledged[queue].value += count
        if self._ackings.handlers:
            self._ackings.emit(events.Acknowledged(*self._where, queue, count))
