"""Sending: queues that are made where they are missing, and messages that the server has confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence

import msgspec
from aio_pika import Message
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import DeliveryError, PublishError

from noobly.core.errors import ConfigError, Unavailable
from noobly.queueing.providers._rabbitmq_link import RabbitLink
from noobly.queueing.providers._rabbitmq_names import Place, kept_limit

_TOGETHER, _TOGETHER_BYTES = 500, 8 * 1024 * 1024
_FRESH = 3600.0
"""Seconds after which a queue is declared again, long before a delay queue that nobody declares goes away."""


class Parcel(msgspec.Struct, frozen=True):
    """A message and where it goes; ``also`` are queues it may go to later, by the server's own doing."""

    place: Place
    message: Message
    also: tuple[Place, ...] = ()


class Sending:
    """Publishes through one channel with confirms."""

    def __init__(self, link: RabbitLink) -> None:
        self._link = link
        self._opening = asyncio.Lock()
        self._channel: AbstractChannel | None = None
        self._declared: dict[str, float] = {}
        self._lengths: dict[str, int] = {}

    async def publish(self, parcels: Sequence[Parcel]) -> list[str]:
        """Store messages in order; return for each why it was not stored, empty where it was.

        Raises:
            Unavailable: The connection was lost, so nobody knows what of this was stored.
            ConfigError: A queue is there with other arguments.
        """
        failures: list[str] = []
        for part in _parts(parcels):
            failures += await self._part(part)
        return failures

    def delayed(self, name: str) -> list[str]:
        """Return the delay queues that were made here for a queue of the server."""
        return [known for known in self._declared if known.startswith(f"{name}#")]

    def length(self, name: str) -> int:
        """Return how many messages were in a queue when it was last declared here."""
        return self._lengths.get(name, 0)

    def forget(self, name: str) -> None:
        """Declare a queue again before the next message; somebody has deleted it."""
        self._declared.pop(name, None)

    async def _part(self, parcels: Sequence[Parcel]) -> list[str]:
        await self._declare(parcels)
        results = await self._confirmed(parcels)
        lost = [number for number, result in enumerate(results) if isinstance(result, PublishError)]
        if lost:
            again = [parcels[number] for number in lost]
            for parcel in again:
                self.forget(parcel.place.name)
            await self._declare(again)
            for number, result in zip(lost, await self._confirmed(again), strict=True):
                results[number] = result
        return [_failure(result) for result in results]

    async def _declare(self, parcels: Sequence[Parcel]) -> None:
        """Make the queues that this process has not made lately, on a channel that may fail."""
        now = asyncio.get_running_loop().time()
        places = {place.name: place for parcel in parcels for place in (parcel.place, *parcel.also)}
        missing = [place for place in places.values() if self._declared.get(place.name, -_FRESH) <= now - _FRESH]
        if not missing:
            return
        channel = await self._link.channel()
        for place in missing:
            channel = await self._make(channel, place)
            self._declared[place.name] = now
        async with self._link.bounded():
            await channel.close()

    async def _make(self, channel: AbstractChannel, place: Place) -> AbstractChannel:
        """Make a queue, or see that it is there; return a channel that is open, for a refusal closes the given one."""
        try:
            await self._declared_as(channel, place)
        except ConfigError as error:
            kept = kept_limit(place, error.message)
            if kept is None:
                raise
            channel = await self._link.channel()
            await self._declared_as(channel, kept)
        return channel

    async def _declared_as(self, channel: AbstractChannel, place: Place) -> None:
        async with self._link.bounded():
            queue = await channel.declare_queue(place.name, durable=True, arguments=dict(place.arguments))
        self._lengths[place.name] = queue.declaration_result.message_count or 0

    async def _confirmed(self, parcels: Sequence[Parcel]) -> list[object]:
        """Publish all, then wait for all confirms; a refused message's error is in its place."""
        channel = await self._open()
        async with self._link.bounded():
            results = await asyncio.gather(*(_publish(channel, parcel) for parcel in parcels), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException) and not isinstance(result, PublishError | DeliveryError):
                    raise result
        return list(results)

    async def _open(self) -> AbstractChannel:
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._link.channel(confirms=True)
            return self._channel


def _publish(channel: AbstractChannel, parcel: Parcel) -> Awaitable[object]:
    return channel.default_exchange.publish(parcel.message, parcel.place.name, mandatory=True)


def _failure(result: object) -> str:
    if isinstance(result, PublishError):
        return "the queue was deleted meanwhile"
    return "RabbitMQ refused it" if isinstance(result, DeliveryError) else ""


def demand(failures: Sequence[str], queue: str) -> None:
    """Refuse to go on where a message was not stored.

    Raises:
        Unavailable: One was not.
    """
    for failure in filter(None, failures):
        raise Unavailable(f"a message of queue {queue!r} was not stored: {failure}")


def _parts(parcels: Sequence[Parcel]) -> Iterator[list[Parcel]]:
    """Split a batch so that no part takes long to confirm."""
    part: list[Parcel] = []
    size = 0
    for parcel in parcels:
        if part and (len(part) >= _TOGETHER or size + parcel.message.body_size > _TOGETHER_BYTES):
            yield part
            part, size = [], 0
        part.append(parcel)
        size += parcel.message.body_size
    if part:
        yield part
