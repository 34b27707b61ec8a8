"""Leaving a RabbitMQ server as it was found, for it may belong to others. AMQP cannot list queues: they are noted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractExchange, AbstractQueue


@asynccontextmanager
async def swept(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[set[str]]:
    """Note the queues and exchanges that are declared in the body, and delete them behind it."""
    made: set[str] = set()
    exchanges: set[str] = set()
    declare, declare_exchange = aio_pika.Channel.declare_queue, aio_pika.Channel.declare_exchange

    async def noted(channel: aio_pika.Channel, name: str, *, passive: bool = False, **rest: object) -> AbstractQueue:
        if not passive:
            made.add(name)
        return await declare(channel, name, passive=passive, **rest)

    async def noted_exchange(channel: aio_pika.Channel, name: str, *args: Any, **rest: Any) -> AbstractExchange:
        exchanges.add(name)
        return await declare_exchange(channel, name, *args, **rest)

    monkeypatch.setattr(aio_pika.Channel, "declare_queue", noted)
    monkeypatch.setattr(aio_pika.Channel, "declare_exchange", noted_exchange)
    yield made
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        for name in made:
            await channel.queue_delete(name)
        for name in exchanges:
            await channel.exchange_delete(name)
