"""Sending: queues that are made where they are missing, and messages that the server has confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import msgspec
from aio_pika import ExchangeType, Message
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError, PublishError

from noobly.core.errors import ConfigError, NooblyError, Unavailable
from noobly.queueing.providers._rabbitmq_ladder import Rung
from noobly.queueing.providers._rabbitmq_link import RabbitLink
from noobly.queueing.providers._rabbitmq_names import Place, kept_limit

_TOGETHER, _TOGETHER_BYTES = 500, 8 * 1024 * 1024
_FRESH = 3600.0
"""Seconds after which a queue is declared again, long before a delay queue that nobody declares goes away."""


class Parcel(msgspec.Struct, frozen=True):
    """A message and where it goes.

    Args:
        place: The queue.
        message: The message.
        also: Queues it may go to later, by the server's own doing.
        exchange: The exchange that puts it there; the server's default by default.
        key: The routing key; the queue's name by default.
    """

    place: Place
    message: Message
    also: tuple[Place, ...] = ()
    exchange: str = ""
    key: str = ""


class Sending:
    """Publishes through one channel with confirms."""

    def __init__(self, link: RabbitLink, rungs: Sequence[Rung]) -> None:
        self._link, self._rungs = link, rungs
        self._raising, self._raised = asyncio.Lock(), -_FRESH
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

    def knows(self, name: str) -> bool:
        """Return whether a queue of the server was made here."""
        return name in self._declared

    def length(self, name: str) -> int:
        """Return how many messages were in a queue when it was last declared here."""
        return self._lengths.get(name, 0)

    async def _part(self, parcels: Sequence[Parcel]) -> list[str]:
        await self._declare(parcels)
        results = await self._confirmed(parcels)
        lost = [number for number, result in enumerate(results) if isinstance(result, PublishError)]
        if lost:
            again = [parcels[number] for number in lost]
            for place in {place.name for parcel in again for place in (parcel.place, *parcel.also)}:
                self._declared.pop(place, None)
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
        async with self._raising:
            if self._raised <= now - _FRESH:
                await self._raise_ladder()
                self._raised = now
        channel = await self._link.channel()
        for place in missing:
            channel = await self._make(channel, place)
            self._declared[place.name] = now
        async with self._link.bounded():
            await channel.close()

    async def _raise_ladder(self) -> None:
        """Make the exchanges that delayed messages go through, the highest one last, unless that one is there."""
        channel = await self._link.channel()
        try:
            async with self._link.bounded():
                await channel.get_exchange(self._rungs[-1].past.exchange)
        except NooblyError as error:
            if not isinstance(error.__cause__, ChannelNotFoundEntity):
                raise
            channel = await self._link.channel()
            await self._raise_rungs(channel)
        async with self._link.bounded():
            await channel.close()

    async def _raise_rungs(self, channel: AbstractChannel) -> None:
        async with self._link.bounded():
            lower = await channel.declare_exchange(self._rungs[0].exchange, ExchangeType.TOPIC, durable=True)
        for rung in self._rungs:
            async with self._link.bounded():
                upper = await channel.declare_exchange(rung.past.exchange, ExchangeType.TOPIC, durable=True)
                await lower.bind(upper, rung.past.key)
            lower = upper

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
            if place.binding is not None:
                await queue.bind(place.binding.exchange, place.binding.key)
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


async def _publish(channel: AbstractChannel, parcel: Parcel) -> object:
    exchange = channel.default_exchange
    if parcel.exchange:
        exchange = await channel.get_exchange(parcel.exchange, ensure=False)
    return await exchange.publish(parcel.message, parcel.key or parcel.place.name, mandatory=True)


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
