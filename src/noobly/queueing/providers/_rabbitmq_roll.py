"""The names of the queues that were sent to. AMQP cannot list queues, so a queue of its own keeps their names.

Each entry says that a name came or went; the last one of a name counts. Whoever reads them has the queue for itself,
deletes what no longer counts, and lets the server take the rest back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity

from noobly.core.errors import NooblyError, Unavailable
from noobly.core.lifecycle import Tasks
from noobly.queueing.providers._rabbitmq_link import RabbitLink
from noobly.queueing.providers._rabbitmq_names import Place
from noobly.queueing.providers._rabbitmq_sending import Parcel
from noobly.queueing.providers._rabbitmq_tap import Waiting

_ATTEMPTS, _PAUSE, _LATE = 60, 0.05, 1.0
_LOOKS, _SOON = 1000, 0.002
_LOCKED = "RESOURCE_LOCKED"
_GONE = "gone"
_LONG = 1000
"""Entries after which the roll is gone through, hourly at most, for each process adds its own every hour."""
_FRESH = 3600.0
"""Seconds after which a name is entered again, for somebody else may have purged it meanwhile."""


class Roll:
    """Enters names, and calls them."""

    def __init__(self, link: RabbitLink, tasks: Tasks, place: Place) -> None:
        self._link, self._tasks, self._place = link, tasks, place
        self._reading = asyncio.Lock()
        self._entered: dict[str, float] = {}
        self._shortened = -_FRESH

    def enter(self, queue: str) -> list[Parcel]:
        """Return what is to be stored beside the messages of a queue; nothing where that was done lately."""
        now = asyncio.get_running_loop().time()
        if self._entered.get(queue, -_FRESH) > now - _FRESH:
            return []
        self._entered[queue] = now
        return [self._entry(queue, "")]

    def seen(self, entries: int) -> None:
        """Delete what no longer counts, where there were so many entries that this pays."""
        now = asyncio.get_running_loop().time()
        if entries > _LONG and self._shortened <= now - _FRESH:
            self._shortened = now
            self._tasks.spawn(self.names(), "shortening the roll")

    def strike(self, queue: str) -> Parcel:
        """Return what is to be stored for a queue that was purged."""
        self.doubt(queue)
        return self._entry(queue, _GONE)

    def doubt(self, queue: str) -> None:
        """Enter a name again with the next message."""
        self._entered.pop(queue, None)

    def _entry(self, queue: str, kind: str) -> Parcel:
        # The type is the kind of entry, so that a body may be any name.
        return Parcel(self._place, Message(queue.encode(), type=kind, delivery_mode=DeliveryMode.PERSISTENT))

    async def names(self) -> list[str]:
        """Return the names.

        Raises:
            Unavailable: Others read all the time.
        """
        async with self._reading:
            for _ in range(_ATTEMPTS):
                channel = await self._link.channel()
                try:
                    return await self._alone(channel)
                except NooblyError as error:
                    if isinstance(error.__cause__, ChannelNotFoundEntity):
                        return []
                    if _LOCKED not in error.message:
                        raise
                    await asyncio.sleep(_PAUSE)
                finally:
                    await self._close(channel)
        raise Unavailable("the names of the queues cannot be read, for others read them all the time")

    async def _alone(self, channel: AbstractChannel) -> list[str]:
        """Read while nobody else does: a queue that belongs to a connection is the lock, and ends with it."""
        async with self._link.bounded():
            lock = await channel.declare_queue(f"{self._place.name}-lock", exclusive=True, auto_delete=True)
        try:
            return await self._read(channel)
        finally:
            if not channel.is_closed:
                async with self._link.bounded():
                    await lock.delete(if_unused=False, if_empty=False)

    async def _read(self, channel: AbstractChannel) -> list[str]:
        entries: list[AbstractIncomingMessage] = []
        waiting = Waiting()

        async def came(entry: AbstractIncomingMessage) -> None:
            entries.append(entry)
            waiting.move()

        async with self._link.bounded():
            queue = await channel.declare_queue(self._place.name, passive=True)
            tag = await queue.consume(came)
        there = queue.declaration_result.message_count or 0
        while len(entries) < there and await waiting.wait(_LATE):
            pass
        last = {entry.body: entry for entry in entries}
        async with self._link.bounded():
            await queue.cancel(tag)  # First, or what is given back would come again.
            kept = await _give_back(entries, last)
            for _ in range(_LOOKS):
                if ((await queue.declare()).message_count or 0) >= kept:
                    break
                await asyncio.sleep(_SOON)  # The server takes them back a little later.
        return [name.decode() for name, entry in last.items() if entry.type != _GONE]

    async def _close(self, channel: AbstractChannel) -> None:
        async with self._link.bounded():
            await channel.close()


async def _give_back(entries: Sequence[AbstractIncomingMessage], last: Mapping[bytes, AbstractIncomingMessage]) -> int:
    """Keep what counts, and return how much that is.

    The rest is deleted, the oldest first, so that one who is interrupted does not bring a name back.
    """
    kept = 0
    for entry in entries:
        if entry is last[entry.body] and entry.type != _GONE:
            kept += 1
            await entry.nack()
        else:
            await entry.ack()
    return kept
