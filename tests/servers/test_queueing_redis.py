"""The Redis provider of queueing over each topology: keys, order, waking; what queues do is the suite's business."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from noobly.clients.redis import RedisConnection
from noobly.core.clock import fresh_id
from noobly.core.config import Secret
from noobly.core.errors import Closed, ConfigError, PermissionDenied, Unavailable
from noobly.core.scope import Environment
from noobly.queueing import Can, Outbound, Queues, open_queues
from noobly.queueing.driver import Failure, Posted
from noobly.queueing.providers import _redis_looks as looks
from noobly.queueing.providers._redis_records import Keys
from noobly.queueing.providers.redis import RedisQueueConfig, RedisQueues
from noobly.testing import eventually

from .redis_server import RedisServer, Servers, connected, free_port, tls_files
from .test_redis_provider import fails_over, form_cluster, is_primary, knows_replica

QUIET = "durability=ignore"


@pytest.fixture
async def queues(server: RedisServer) -> AsyncIterator[Queues]:
    async with open_queues(f"redis://127.0.0.1:{server.port}?{QUIET}") as queues:
        yield queues


@pytest.fixture
async def control(server: RedisServer) -> AsyncIterator[RedisConnection]:
    async with connected(server) as connection:
        yield connection


@asynccontextmanager
async def bare(server: RedisServer) -> AsyncIterator[RedisQueues]:
    config = RedisQueueConfig(hosts=f"127.0.0.1:{server.port}", durability="ignore")
    async with AsyncExitStack() as stack:
        driver = RedisQueues(config, Environment())
        await driver.start(stack)
        yield driver


def posted(number: int, **options: object) -> Posted:
    return Posted(id=f"id{number}", body=str(number).encode(), **options)  # type: ignore[arg-type]


async def drained(driver: RedisQueues, most: int = 100) -> list[int]:
    found: list[int] = []
    while batch := await driver.receive("q", most, 600.0, 0.0):
        found += [int(one.message.body) for one in batch]
        await driver.ack("q", [one.receipt for one in batch])
    return found


async def exercise(queues: Queues) -> None:
    """Use each script once, with a receiver that waits."""
    key = fresh_id()
    waiting = asyncio.create_task(queues.receive("q", wait=20))
    await queues.send("q", 1)
    (first,) = await waiting
    await queues.extend("q", first.receipt, 60)
    await queues.nack("q", first.receipt, delay=0, reason="not yet")
    await queues.send_many("q", [Outbound(message=2, priority=9), Outbound(message=3, group="g", dedup=key)])
    assert (await queues.send("q", 3, dedup=key)).duplicate
    assert [one.value for one in await queues.peek("q")] == [2, 1, 3]
    found = await queues.receive("q", max=10)
    assert [one.value for one in found] == [2, 1, 3]
    await queues.ack("q", found[0].receipt)
    await queues.reject("q", found[1].receipt, reason="never")
    (dead,) = await queues.dead_letters("q")
    assert (dead.value, dead.attempts, dead.first_error, dead.last_error) == (1, 2, "not yet", "never")
    assert (await queues.redrive("q")).moved == 1
    stats = await queues.stats("q")
    assert (stats.ready, stats.in_flight, stats.dead) == (1, 1, 0)
    await queues.pause("q")
    assert await queues.receive("q") == []
    await queues.resume("q")
    assert await queues.queues() == ["q"]
    assert await queues.purge("q") == 1
    await queues.ack("q", found[2].receipt)
    assert await queues.queues() == []


class TestTopologies:
    async def test_alone(self, queues: Queues) -> None:
        await exercise(queues)

    async def test_tls_with_a_user_and_a_password(self, start: Servers, tmp_path: Path) -> None:
        options, _ = tls_files(tmp_path)
        server = start(*options, "--requirepass", "s3cret", tls=True)
        url = f"rediss://default@127.0.0.1:{server.port}/2?ca={tmp_path / 'ca.pem'}&{QUIET}"
        async with open_queues(url, password=Secret("s3cret")) as queues:
            await exercise(queues)

    async def test_a_cluster_of_three_primaries(self, start: Servers) -> None:
        buses = [str(free_port()) for _ in range(3)]
        nodes = [start("--cluster-enabled", "yes", "--cluster-port", bus) for bus in buses]
        await form_cluster(nodes, buses[0])
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes[:2])
        async with open_queues(f"redis+cluster://{hosts}?{QUIET}") as queues:
            await exercise(queues)
            await self._buries_in_another_slot(queues)
            nodes[0].kill()  # The node that tells of messages: those of the others come all the same.
            await eventually(lambda: still_works(queues, 20), timeout=30)

    async def _buries_in_another_slot(self, queues: Queues) -> None:
        driver = queues._driver
        await driver.send("q", [posted(1, priority=3, group="g")])
        (found,) = await driver.receive("q", 1, 60.0, 0.0)
        assert await driver.bury("q", "elsewhere", Failure(found.receipt, 0.0, "bad"))
        assert not await driver.bury("q", "elsewhere", Failure(found.receipt, 0.0, "bad"))
        (dead,) = await driver.receive("elsewhere", 1, 60.0, 0.0)
        assert (dead.message.id, dead.message.priority, dead.message.group) == ("id1", 3, "g")
        assert (dead.message.attempts, dead.message.first_error, dead.message.died_at > 0) == (1, "bad", True)
        assert (await driver.counts("q")).in_flight == 0

    async def test_sentinel_and_a_failover(self, start: Servers) -> None:
        first = start()
        second = start("--replicaof", "127.0.0.1", str(first.port))
        sentinel = start(
            sentinel=f"sentinel monitor main 127.0.0.1 {first.port} 1\nsentinel down-after-milliseconds main 500\n"
        )
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0?{QUIET}&breaker_pause=0.05"
        async with open_queues(url) as queues:
            await exercise(queues)
            async with connected(sentinel) as control:
                await eventually(lambda: knows_replica(control), timeout=25)
                await eventually(lambda: fails_over(control), timeout=25)
                await eventually(lambda: is_primary(control, second), timeout=25)
            await eventually(lambda: still_works(queues, 1), timeout=25)
            await exercise(queues)


async def still_works(queues: Queues, names: int) -> bool:
    """Send to and receive from queues, some of which live on each node that is left."""
    worked = 0
    for number in range(names):
        try:
            await queues.send(f"again{number}", number)
            found = await queues.receive(f"again{number}", wait=1)
            worked += len(found)
            await queues.ack(f"again{number}", found[0].receipt)
            await queues.purge(f"again{number}")
        except Unavailable:
            continue
    return worked > names / 3


class TestKeys:
    @pytest.mark.parametrize("queue", ["q", "a{b}c", "}", "{}", "q.dead", "日本"])
    def test_a_queue_and_its_dead_letters_share_one_tag(self, queue: str) -> None:
        keys = Keys("name}space", queue)
        tags = {key.partition(b"{")[2].partition(b"}")[0] for key in keys.all}
        assert len(tags) == 1
        assert tags != {b""}
        assert Keys("name}space", queue + ".dead").slot == keys.slot or queue.endswith(".dead")
        assert len({*keys.all, *Keys("name}space", "q2").all, *Keys("name", "space:q").all}) == 3 * len(keys.all)

    async def test_only_what_is_acknowledged_is_trimmed(self, server: RedisServer, control: RedisConnection) -> None:
        async with bare(server) as driver:
            await driver.send("q", [posted(number) for number in range(10)])
            stream = driver._keys_of("q").all[0]
            found = await driver.receive("q", 5, 600.0, 0.0)
            assert await control.execute("XLEN", stream) == 10
            await driver.ack("q", [one.receipt for one in found[1:3]])
            assert await control.execute("XLEN", stream) == 8
            counts = await driver.counts("q")
            assert (counts.ready, counts.in_flight) == (5, 3)
            assert await driver.purge("q") == 5
            assert await control.execute("XLEN", stream) == 3
            assert await driver.ack("q", [one.receipt for one in found]) == [True, False, False, True, True]

    async def test_nothing_is_left_of_a_purged_queue(self, server: RedisServer, control: RedisConnection) -> None:
        async with bare(server) as driver:
            await driver.send("q", [posted(1), posted(2, group="g", tenant="t", dedup="k", window=60.0)])
            await driver.send("q", [posted(3, group="g"), posted(4, delay=60.0)])
            assert await driver.purge("q") == 4
            assert await control.execute("KEYS", "*") == []

    @pytest.mark.parametrize("priority", [0, 5])
    async def test_no_receipt_comes_again_within_a_millisecond(self, server: RedisServer, priority: int) -> None:
        seen: set[str] = set()
        async with bare(server) as driver:
            for number in range(300):
                await driver.send("q", [posted(number, priority=priority)])
                (found,) = await driver.receive("q", 1, 60.0, 0.0)
                seen.add(found.receipt)
                assert await driver.ack("q", [found.receipt]) == [True]
                await driver.purge("q")
        assert len(seen) == 300

    @pytest.mark.parametrize("kind", [{}, {"priority": 5}], ids=["stream", "hash"])
    async def test_nor_where_the_server_has_all_in_one_piece(self, server: RedisServer, kind: dict[str, int]) -> None:
        receipts: list[str] = []
        async with bare(server) as driver:
            for _ in range(50):
                _, (_, ended), _, _, (_, leased) = await asyncio.gather(
                    driver.send("q", [posted(1, **kind)]),
                    driver._claim("q", 1, 0.0, False),
                    driver._run(looks.PURGE, "q", ()),
                    driver.send("q", [posted(2, **kind)]),
                    driver._claim("q", 1, 60.0, False),
                )
                receipts += [one.receipt for one in (*ended, *leased)]
                await driver.ack("q", receipts[-1:])
                await driver.purge("q")
        assert len(receipts) == len(set(receipts)) == 100

    async def test_asking_leaves_nothing_behind(self, queues: Queues, control: RedisConnection) -> None:
        assert await queues.receive("q") == []
        assert (await queues.size("q"), await queues.peek("q"), await queues.purge("q")) == (0, [], 0)
        assert await queues.ack_many("q", ["1ms1-1/00000000", "1mmx.1/00000000"]) == [False, False]
        assert await control.execute("KEYS", "*") == []

    async def test_a_receipt_is_good_in_its_queue_only(self, server: RedisServer) -> None:
        async with bare(server) as driver:
            for queue in ("q", "other"):
                await driver.send(queue, [posted(1, group="g")])
            (here,) = await driver.receive("q", 1, 60.0, 0.0)
            (there,) = await driver.receive("other", 1, 60.0, 0.0)
            alike = here.receipt.partition("/")[0] + "/" + there.receipt.partition("/")[2]
            assert await driver.ack("q", [there.receipt, alike]) == [False, False]
            assert await driver.ack("other", [there.receipt]) == [True]


class TestOrder:
    @pytest.mark.parametrize("most", [1, 3, 100])
    async def test_messages_of_both_kinds_come_as_they_were_sent(self, server: RedisServer, most: int) -> None:
        async with bare(server) as driver:
            for start in range(0, 40, 8):
                batch = [posted(start + at, group=f"g{start + at}" if at % 3 == 1 else None) for at in range(8)]
                await driver.send("q", batch)
            assert await drained(driver, most) == list(range(40))

    async def test_what_goes_through_no_stream_may_be_the_first(self, server: RedisServer) -> None:
        async with bare(server) as driver:
            for _ in range(50):
                await driver.send("q", [posted(0, group="g"), posted(1)])
                assert await drained(driver) == [0, 1]
                await driver.purge("q")

    async def test_what_comes_back_comes_before_what_was_sent_later(self, server: RedisServer) -> None:
        async with bare(server) as driver:
            await driver.send("q", [posted(number) for number in range(6)])
            found = await driver.receive("q", 4, 600.0, 0.0)
            await driver.nack("q", [Failure(one.receipt, 0.0, "") for one in (found[2], found[0])])
            await driver.ack("q", [one.receipt for one in (found[1], found[3])])
            await driver.send("q", [posted(6, priority=1), posted(7, tenant="t")])
            assert await drained(driver, 2) == [6, 0, 2, 4, 5, 7]

    async def test_a_large_claim_stops_at_some_megabytes(self, server: RedisServer) -> None:
        async with bare(server) as driver:
            body = bytes(1024 * 1024)
            await driver.send("q", [Posted(id=str(number), body=body) for number in range(120)])
            counts = []
            while found := await driver.receive("q", 1000, 600.0, 0.0):
                counts.append(len(found))
            assert sum(counts) == 120
            assert max(counts) <= 100


class TestWaiting:
    async def test_a_cancelled_receiver_leaves_its_message_to_others(self, server: RedisServer) -> None:
        async with bare(server) as driver, bare(server) as other:
            waiting = [asyncio.create_task(driver.receive("q", 1, 600.0, 2.0)) for _ in range(2)]
            await eventually(lambda: waits(driver, 2), timeout=5)
            await other.send("q", [posted(1), posted(2)])
            waiting[0].cancel()
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            found = [one for answer in answers if isinstance(answer, list) for one in answer]
            if len(found) < 2:
                found += await other.receive("q", 1, 600.0, 2.0)
            assert {one.message.id for one in found} == {"id1", "id2"}

    async def test_cancelled_in_the_turn_its_message_came(self, server: RedisServer) -> None:
        async with bare(server) as driver, bare(server) as other:
            for turn in range(20):
                await other.send("q", [posted(turn)])
                receiving = asyncio.create_task(driver.receive("q", 1, 600.0, 0.0))
                await asyncio.sleep(0)
                while not driver._receivers["q"].idle:  # noqa: ASYNC110 - the very turn it became idle is meant
                    await asyncio.sleep(0)
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
                found = [] if receiving.cancelled() else receiving.result()
                (left,) = found or await other.receive("q", 1, 600.0, 2.0)
                assert left.message.id == f"id{turn}"
                await other.ack("q", [left.receipt])

    async def test_closing_lets_nobody_wait(self, server: RedisServer) -> None:
        async with bare(server) as driver:
            waiting = asyncio.create_task(driver.receive("q", 1, 60.0, 2.0))
            sending = asyncio.create_task(driver.send("q", [posted(1)]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        with pytest.raises(Closed):
            await sending
        with pytest.raises(Closed):
            await waiting

    async def test_many_queues_are_waited_for_and_forgotten(
        self, server: RedisServer, control: RedisConnection
    ) -> None:
        async with bare(server) as driver:
            await asyncio.gather(*(driver.receive(f"q{number}", 1, 60.0, 0.001) for number in range(1001)))
            await driver.receive("last", 1, 60.0, 0.001)
            assert len(driver._receivers) <= 1000
            await eventually(lambda: subscribed(control, 10), timeout=5)

    async def test_a_user_who_may_not_subscribe_is_told(self, server: RedisServer, control: RedisConnection) -> None:
        await control.execute("ACL", "SETUSER", "deaf", "on", ">pass", "~*", "+@all", "resetchannels")
        url = f"redis://deaf@127.0.0.1:{server.port}?{QUIET}"
        async with open_queues(url, password=Secret("pass")) as queues:
            await queues.send("q", 1)
            with pytest.raises(PermissionDenied):
                await queues.receive("q", wait=1)
            sizes = await asyncio.gather(*(queues.size("q") for _ in range(5)))
            assert sizes == [1] * 5  # Answers still come to those who asked.


async def waits(driver: RedisQueues, count: int) -> bool:
    receivers = driver._receivers.get("q")
    return receivers is not None and len(receivers._waiting) == count


async def subscribed(control: RedisConnection, most: int) -> bool:
    channels = await control.execute("PUBSUB", "CHANNELS", "*")
    return isinstance(channels, list) and len(channels) <= most


class TestDurability:
    async def test_a_server_in_memory_only_is_warned_of(
        self, server: RedisServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        url = f"redis://127.0.0.1:{server.port}"
        with caplog.at_level(logging.WARNING, "noobly.queueing"):
            async with open_queues(url):
                pass
            (record,) = caplog.records
            assert "neither an append-only file nor a replica" in record.getMessage()
            async with open_queues(f"{url}?{QUIET}"):
                pass
            assert len(caplog.records) == 1
        with pytest.raises(ConfigError, match="append-only"):
            async with open_queues(url, durability="require"):
                pass

    async def test_a_server_that_evicts_is_warned_of(self, start: Servers) -> None:
        server = start("--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
        with pytest.raises(ConfigError, match="allkeys-lru"):
            async with open_queues(f"redis://127.0.0.1:{server.port}", durability="require"):
                pass

    async def test_a_server_that_keeps_what_it_is_given(self, start: Servers, caplog: pytest.LogCaptureFixture) -> None:
        server = start("--appendonly", "yes")
        async with open_queues(f"redis://127.0.0.1:{server.port}", durability="require") as queues:
            await queues.send("q", 1)
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


class TestReplicas:
    async def test_a_message_is_on_a_replica_when_sending_returns(self, start: Servers) -> None:
        first = start()
        second = start("--replicaof", "127.0.0.1", str(first.port))
        url = f"redis://127.0.0.1:{first.port}?{QUIET}&replicas=1"
        async with open_queues(url) as queues, connected(second) as replica:
            await eventually(lambda: follows(replica), timeout=25)
            for number in range(20):
                await queues.send("q", number)
                assert await replica.execute("XLEN", Keys("noobly", "q").all[0]) == number + 1

    async def test_without_replicas_sending_fails(self, server: RedisServer) -> None:
        async with open_queues(f"redis://127.0.0.1:{server.port}?{QUIET}&replicas=1") as queues:
            with pytest.raises(Unavailable, match="on 0 replicas"):
                await queues.send("q", 1)

    async def test_a_cluster_cannot_wait(self) -> None:
        with pytest.raises(ConfigError, match="replicas"):
            async with open_queues("redis+cluster://127.0.0.1:1?replicas=1"):
                pass


async def follows(replica: RedisConnection) -> bool:
    report = await replica.execute("INFO", "replication")
    return isinstance(report, bytes) and b"master_link_status:up" in report


def test_it_can_do_all() -> None:
    able = RedisQueues.features | {Can.PEEK, Can.PAUSE}
    assert able == frozenset(Can)
