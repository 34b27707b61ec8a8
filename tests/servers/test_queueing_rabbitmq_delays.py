"""Delays on RabbitMQ, which the server counts down by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

from noobly.core.clock import fresh_id
from noobly.queueing import Queues, names, open_queues
from noobly.queueing.providers import _rabbitmq_ladder, _rabbitmq_moving
from noobly.testing import eventually, server_or_skip
from noobly.testing.queueing.theme import LONG, PATIENCE, one

from ..rabbit import swept

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with server_or_skip("rabbitmq") as url:
        yield url


@pytest.fixture
async def namespace(server: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    async with swept(server, monkeypatch):
        yield f"delays-{fresh_id()}"


@pytest.fixture
async def queues(server: str, namespace: str) -> AsyncIterator[Queues]:
    async with open_queues(server, namespace=namespace) as queues:
        yield queues


@pytest.fixture
async def channel(server: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(server) as connection, connection.channel() as channel:
        yield channel


async def test_another_program_gets_a_message_when_it_is_due_and_not_before(
    namespace: str, queues: Queues, channel: AbstractChannel
) -> None:
    began = time.monotonic()
    await queues.send("q", 1, delay=0.7)
    queue = await channel.get_queue(f"{namespace}.q")

    found: list[AbstractIncomingMessage] = []

    async def came() -> bool:
        message = await queue.get(fail=False)
        if message is not None:
            found.append(message)
        return message is not None

    await eventually(came, PATIENCE)
    assert time.monotonic() - began >= 0.7
    assert [message.body for message in found] == [b"1"]
    await found[0].ack()


async def test_dead_letters_may_wait_too(queues: Queues) -> None:
    await queues.send("q", 1)
    await queues.reject("q", (await one(queues, "q")).receipt)
    dead = names.dead("q")
    await queues.nack(dead, (await one(queues, dead)).receipt, delay=0.1)
    assert (await one(queues, dead)).deliveries == 2


async def test_names_that_are_written_alike(queues: Queues, namespace: str) -> None:
    for name in ("q", "a.q", f"{namespace}.q", f"a.{namespace}.q"):
        await queues.send(name, name, delay=0.05)
    for name in ("q", "a.q", f"{namespace}.q", f"a.{namespace}.q"):
        assert (await one(queues, name)).value == name
        assert await queues.receive(name) == []


async def test_a_delay_longer_than_the_server_can_count_down(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it counts to 96 milliseconds."""
    monkeypatch.setattr(_rabbitmq_moving, "LONGEST", 96)
    monkeypatch.setattr(_rabbitmq_ladder, "_MOST", 3)
    began = time.monotonic()
    await queues.send("q", 1, delay=0.5)
    assert (await one(queues, "q")).deliveries == 1
    assert time.monotonic() - began >= 0.5


async def test_a_delay_queue_that_somebody_deletes(namespace: str, queues: Queues, channel: AbstractChannel) -> None:
    await queues.send("q", 1, delay=0.096)
    assert (await one(queues, "q")).value == 1
    for step in (32, 64):
        await channel.queue_delete(f"{namespace}.q#{step}")
    await queues.send("q", 2, delay=0.096)
    assert (await one(queues, "q")).value == 2


async def test_senders_make_the_exchanges_once_for_all(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    made, declare = 0, aio_pika.Channel.declare_exchange

    async def counted(channel: aio_pika.Channel, name: str, *args: Any, **rest: Any) -> AbstractExchange:
        nonlocal made
        made += not rest.get("passive")
        return await declare(channel, name, *args, **rest)

    monkeypatch.setattr(aio_pika.Channel, "declare_exchange", counted)
    await asyncio.gather(*(queues.send(f"q{number}", number) for number in range(10)))
    assert made == len(_rabbitmq_ladder.STEPS) + 1


async def test_short_delays_behind_long_ones(queues: Queues) -> None:
    for value, delay in (("late", LONG), ("later", LONG - 1), ("soon", 0.3), ("sooner", 0.1)):
        await queues.send("q", value, delay=delay)
    assert (await queues.stats("q")).delayed == 4
    assert [(await one(queues, "q")).value for _ in range(2)] == ["sooner", "soon"]
    assert await queues.purge("q") == 2


async def test_a_purge_reaches_what_another_process_delays(server: str, namespace: str, queues: Queues) -> None:
    await queues.send("q", 1, delay=LONG)
    async with open_queues(server, namespace=namespace) as other:
        assert await other.purge("q") == 1
    await queues.send("q", 2, delay=0.05)
    assert (await one(queues, "q")).value == 2
