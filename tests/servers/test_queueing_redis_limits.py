"""Queues on a Redis server that is short of memory, cannot save, holds large messages, or ends with its clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from noobly.clients.redis import RedisConnection, RedisReplyError, classify
from noobly.core.errors import NooblyError, Unavailable
from noobly.queueing import Message, Outbound, Queues, open_queues

from .redis_server import RedisServer, connected

LARGE = b"x" * 1024 * 1024


def url(server: RedisServer, **options: object) -> str:
    query = "&".join(f"{name}={value}" for name, value in {"durability": "ignore", **options}.items())
    return f"redis://127.0.0.1:{server.port}?{query}"


@pytest.fixture
async def queues(server: RedisServer) -> AsyncIterator[Queues]:
    async with open_queues(url(server)) as queues:
        yield queues


@pytest.fixture
async def control(server: RedisServer) -> AsyncIterator[RedisConnection]:
    async with connected(server) as connection:
        yield connection


async def test_an_answer_holds_no_more_large_messages_than_fit(queues: Queues) -> None:
    for how in ({}, {"priority": 3}):
        for _ in range(40):
            await queues.send("q", LARGE, **how)
        assert 10 <= len(await queues.peek("q", max=1000)) <= 20
        assert len(await queues.peek("q", max=1000, skip=37)) == 3
        found = await queues.receive("q", max=100)
        assert 10 <= len(found) <= 17
        while found:
            assert all(one.deliveries == 1 for one in found)
            await queues.ack_many("q", [one.receipt for one in found])
            found = await queues.receive("q", max=100)
        assert (await queues.stats("q")).in_flight == 0


async def test_a_full_server_lets_queues_drain(queues: Queues, control: RedisConnection) -> None:
    for number in range(4):
        await queues.send("q", number)
    await queues.send("other", LARGE)
    held = await queues.receive("q", max=3)
    await control.execute("CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(Unavailable):
        await queues.send("q", 5)
    await queues.extend("q", held[0].receipt, 60)
    await queues.nack("q", held[1].receipt, delay=0)
    await queues.reject("q", held[2].receipt)
    await queues.pause("q")
    assert await queues.receive("q") == []
    await queues.resume("q")
    await queues.ack("q", held[0].receipt)
    assert (await queues.stats("q")).dead == 1


async def test_a_server_that_takes_no_writes_for_now_is_unavailable(queues: Queues, control: RedisConnection) -> None:
    await control.execute("CONFIG", "SET", "min-replicas-to-write", "1")
    with pytest.raises(Unavailable, match="NOREPLICAS"):
        await queues.send("q", 1)
    failing = RedisReplyError.parse("MISCONF Redis is configured to save RDB snapshots, but it's unable to persist")
    assert isinstance(classify(failing), Unavailable)


async def test_what_was_stored_of_a_large_batch_is_told(queues: Queues, control: RedisConnection) -> None:
    await control.execute("CONFIG", "SET", "maxmemory", "30mb")
    receipts = await queues.send_many("q", [Outbound(message=LARGE) for _ in range(60)])
    stored = [one for one in receipts if not one.error]
    assert 0 < len(stored) < 60
    assert await queues.size("q") == len(stored)
    assert all("OOM" in one.error for one in receipts[len(stored) :])


async def test_a_worker_that_stops_leaves_nothing_under_lease(server: RedisServer) -> None:
    async with open_queues(url(server)) as looking:
        for _ in range(5):
            await looking.send_many("q", [Outbound(message=number) for number in range(200)])
            async with open_queues(url(server)) as queues:
                begun = asyncio.Event()

                async def handle(message: Message[object], begun: asyncio.Event = begun) -> None:
                    if message.value == 20:
                        begun.set()

                working = asyncio.create_task(queues.work("q", handle, concurrency=10))
                await begun.wait()
                working.cancel()
                await asyncio.wait([working])
            assert (await looking.stats("q")).in_flight == 0
            await looking.purge("q")


async def test_tenants_whose_turn_has_passed_leave_nothing_behind(
    server: RedisServer, control: RedisConnection
) -> None:
    async with open_queues(url(server, groups="fair")) as queues:
        await queues.send("q", "late", delay=60)
        for number in range(60):
            for _ in range(2):
                await queues.send("q", number, group=f"tenant {number}")
            for one in await queues.receive("q", max=2):
                await queues.ack("q", one.receipt)
        assert await control.execute("ZCARD", "{noobly:q}:t") in range(5)


async def test_namespaces_with_a_colon_are_not_others_with_other_queues(server: RedisServer) -> None:
    async with (
        open_queues(url(server, namespace="a:b")) as one,
        open_queues(url(server, namespace="a")) as other,
    ):
        await one.send("c", 1)
        assert await other.receive("b:c") == []
        assert await other.queues() == []
        assert await one.dequeue("c") == 1


async def test_a_restart_without_its_data_makes_no_receipt_twice(server: RedisServer) -> None:
    async with open_queues(url(server), attempts=5, backoff=0.05, breaker_failures=100) as queues:
        await queues.send("q", "before", priority=5)
        (old,) = await queues.receive("q")
        server.kill()
        server.start()
        await _sent_again(queues)
        (new,) = await queues.receive("q")
        assert await queues.ack_many("q", [old.receipt]) == [False]
        assert await queues.ack_many("q", [new.receipt]) == [True]


async def _sent_again(queues: Queues) -> None:
    while True:
        try:
            await queues.send("q", "after", priority=5)
        except NooblyError:
            await asyncio.sleep(0.02)
        else:
            return
