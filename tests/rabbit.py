"""Leaving a RabbitMQ server as it was found, for it may belong to others. AMQP cannot list queues: they are noted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
import pytest
from aio_pika.abc import AbstractQueue


@asynccontextmanager
async def swept(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[set[str]]:
    """Note the queues that are declared in the body, and delete them behind it."""
    made: set[str] = set()
    declare = aio_pika.Channel.declare_queue

    async def noted(channel: aio_pika.Channel, name: str, *, passive: bool = False, **rest: object) -> AbstractQueue:
        if not passive:
            made.add(name)
        return await declare(channel, name, passive=passive, **rest)

    monkeypatch.setattr(aio_pika.Channel, "declare_queue", noted)
    yield made
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        for name in made:
            await channel.queue_delete(name)
