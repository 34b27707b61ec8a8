"""Asking the server about its queues, on a channel that an unknown queue may close."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelNotFoundEntity

from noobly.core.errors import NooblyError
from noobly.queueing.providers._rabbitmq_link import RabbitLink


class Desk:
    """Questions and administration, one after another."""

    def __init__(self, link: RabbitLink) -> None:
        self._link = link
        self._lock = asyncio.Lock()
        self._channel: AbstractChannel | None = None

    async def ping(self) -> None:
        """Make one round trip."""
        async with self._open() as channel, self._link.bounded():
            await (await channel.get_underlay_channel()).flow(active=True)

    async def ready(self, name: str) -> int:
        """Return how many messages of a queue nobody holds; 0 of one that is not there."""
        async with self._open() as channel:
            try:
                async with self._link.bounded():
                    queue = await channel.declare_queue(name, passive=True)
            except NooblyError as error:
                return _none(error)
        return queue.declaration_result.message_count or 0

    async def purge(self, name: str) -> int:
        """Delete what nobody holds; return how many messages that were."""
        async with self._open() as channel:
            try:
                async with self._link.bounded():
                    purged = await (await channel.get_underlay_channel()).queue_purge(name)
            except NooblyError as error:
                return _none(error)
        return purged.message_count or 0

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[AbstractChannel]:
        async with self._lock:
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._link.channel()
            yield self._channel


def _none(error: NooblyError) -> int:
    """Return the count of a queue that is not there; any other error is raised."""
    if isinstance(error.__cause__, ChannelNotFoundEntity):
        return 0
    raise error
