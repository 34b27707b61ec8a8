"""The BullMQ provider and its Redis server: scripts forgotten, markers, bounds and what the server keeps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple, cast

import pytest

from noobly.clients.redis import RedisConnection
from noobly.core.errors import ConfigError
from noobly.core.scope import Environment
from noobly.testing import eventually
from noobly.testing.clock import FakeClock
from noobly.working import Bounds, Jobs, State, Verdict, open_jobs
from noobly.working.records import Held, Settled

from .redis_server import RedisServer, Servers, connected

pytest.importorskip("bullmq")

from noobly.working.providers._bullmq_watch import forget_idle

pytestmark = pytest.mark.servers

PATIENCE = 20
Q = "q"


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[RedisConnection]:
    async with connected(server) as redis:
        yield redis


@asynccontextmanager
async def opened(server: RedisServer, **options: object) -> AsyncIterator[Jobs]:
    async with open_jobs(f"bullmq://127.0.0.1:{server.port}", durability="ignore", **options) as jobs:
        yield jobs


async def end(jobs: Jobs, held: Held, verdict: Verdict = Verdict.SUCCEEDED) -> bool:
    return (await jobs.settle(Q, [Settled(id=held.job.id, token=held.token, verdict=verdict)]))[0]


class TestForgottenScripts:
    async def test_all_goes_on(self, server: RedisServer, redis: RedisConnection) -> None:
        async with opened(server) as jobs:

            @jobs.task(queue=Q)
            async def double(number: int) -> int:
                return 2 * number

            async with jobs.working():
                for number in range(5):
                    await redis.execute("SCRIPT", "FLUSH")
                    handle = await jobs.enqueue(double, number)
                    await redis.execute("SCRIPT", "FLUSH")
                    assert await handle.result(PATIENCE) == 2 * number

    async def test_a_flow_is_added_as_a_whole(self, server: RedisServer, redis: RedisConnection) -> None:
        async with opened(server) as jobs:
            await redis.execute("SCRIPT", "FLUSH")
            children = [jobs.spec("child", number, queue=Q) for number in range(3)]
            (ticket,) = await jobs.add([jobs.spec("parent", queue=Q, after=children)])
            assert not ticket.duplicate
            assert (await jobs.get(ticket.id, queue=Q)).pending == 3


class TestMarkers:
    async def test_a_marker_that_wakes_nobody_is_put_back(self, server: RedisServer, redis: RedisConnection) -> None:
        async with opened(server) as jobs:
            assert await jobs.claim(Q, "worker", wait=0.1) == []  # Its connection still asks for the marker.
            await redis.execute("ZADD", f"bull:{Q}:marker", 7, "1")

            async def listens_no_longer() -> bool:
                return b"cmd=bzpopmin" not in await redis.execute("CLIENT", "LIST")

            await eventually(listens_no_longer, PATIENCE)
            assert await redis.execute("ZRANGE", f"bull:{Q}:marker", 0, -1) == [b"1"]

    async def test_an_idle_worker_hears_of_what_a_busy_one_does_not_take(self, server: RedisServer) -> None:
        async with opened(server) as busy, opened(server) as idle:
            await busy.add([busy.spec("task", queue=Q)])
            assert len(await busy.claim(Q, "busy", wait=2)) == 1
            assert await busy.claim(Q, "busy", wait=0.1) == []
            for number in range(5):
                waiting = asyncio.create_task(idle.claim(Q, "idle", wait=2))
                await busy.add([busy.spec("task", number, queue=Q)])
                async with asyncio.timeout(1):
                    assert [held.job.args for held in await waiting] == [number]


class TestWatches:
    async def test_who_waits_without_a_connection_looks_for_themselves(
        self, server: RedisServer, redis: RedisConnection
    ) -> None:
        async with opened(server) as jobs:
            names = [f"q{number}" for number in range(70)]
            await jobs.add([jobs.spec("task", queue=name, id="a") for name in names[:35]])
            waiting = [asyncio.create_task(jobs.wait("a", queue=name, within=PATIENCE)) for name in names[:35]]
            claiming = [asyncio.create_task(jobs.claim(name, "worker", wait=2)) for name in names[35:]]

            async def blocked() -> bool:
                clients = cast(bytes, await redis.execute("CLIENT", "LIST"))
                return clients.count(b"cmd=bzpopmin") + clients.count(b"cmd=xread") >= 50

            await eventually(blocked, PATIENCE)
            assert len(cast(bytes, await redis.execute("CLIENT", "LIST")).splitlines()) <= 53
            await jobs.add([jobs.spec("task", queue=name) for name in names[35:]])
            assert [len(found) for found in await asyncio.gather(*claiming)] == [1] * 35
            for name in names[:35]:
                (held,) = await jobs.claim(name, "worker")
                await jobs.settle(name, [Settled(id="a", token=held.token, verdict=Verdict.SUCCEEDED)])
            assert {job.state for job in await asyncio.gather(*waiting)} == {State.SUCCEEDED}

    async def test_queues_that_nobody_waits_for_are_forgotten(self) -> None:
        known = {str(number): Idle(number % 2 == 0) for number in range(1000)}
        forget_idle(known)
        assert len(known) == 500
        assert not any(one.idle for one in known.values())
        forget_idle(known)
        assert len(known) == 500


class Idle(NamedTuple):
    idle: bool


class TestBounds:
    async def test_a_bound_that_nobody_asks_for_any_more_ends(
        self, server: RedisServer, redis: RedisConnection
    ) -> None:
        clock = FakeClock()
        environments = [Environment(clock=clock) for _ in range(2)]
        async with (
            opened(server, environment=environments[0]) as before,
            opened(server, environment=environments[1]) as after,
        ):
            await before.add([before.spec("task", number, queue=Q) for number in range(4)])
            assert len(await before.claim(Q, "worker", max=4, bounds=Bounds(running=1))) == 1
            assert await after.claim(Q, "worker", max=4) == []
            clock.advance(11)
            assert len(await self._claimed(server, clock)) == 3
            assert await redis.execute("HKEYS", f"bull:{Q}:meta") == [b"opts.maxLenEvents"]

    async def _claimed(self, server: RedisServer, clock: FakeClock) -> list[Held]:
        async with opened(server, environment=Environment(clock=clock)) as jobs:
            return await jobs.claim(Q, "worker", max=4)

    async def test_a_bound_of_node_stays(self, server: RedisServer, redis: RedisConnection) -> None:
        await redis.execute("HSET", f"bull:{Q}:meta", "concurrency", 2)
        async with opened(server) as jobs:
            await jobs.add([jobs.spec("task", number, queue=Q) for number in range(4)])
            assert len(await jobs.claim(Q, "worker", max=4, bounds=Bounds(running=1))) == 1
        async with opened(server, environment=Environment(clock=FakeClock(4e9))) as jobs:
            assert len(await jobs.claim(Q, "worker", max=4)) == 1
        assert await redis.execute("HGET", f"bull:{Q}:meta", "concurrency") == b"2"


class TestWhatIsBeside:
    async def test_strangers_leave_with_the_sweep(self, server: RedisServer, redis: RedisConnection) -> None:
        await redis.execute("ZADD", f"bull:{Q}:noobly-cancelled", 1, "stranger", 2, "another")
        await redis.execute("ZADD", f"bull:{Q}:noobly-retrying", 0, "stranger")
        async with opened(server) as jobs:
            (ticket,) = await jobs.add([jobs.spec("task", queue=Q, delay=60)])
            assert await jobs.cancel(ticket.id, queue=Q) is State.CANCELLED
            stats = await jobs.stats(Q)
            assert (stats.cancelled, stats.failed, stats.retrying, stats.delayed) == (1, 0, 0, 0)
            assert await jobs.sweep(Q) == 0
        assert await redis.execute("ZRANGE", f"bull:{Q}:noobly-cancelled", 0, -1) == [ticket.id.encode()]
        assert await redis.execute("EXISTS", f"bull:{Q}:noobly-retrying") == 0

    async def test_what_had_to_stay_leaves_however_late(self, server: RedisServer) -> None:
        clock = FakeClock()
        async with opened(server, environment=Environment(clock=clock), keep_succeeded=60.0) as jobs:
            child = jobs.spec("child", queue=Q)
            (ticket,) = await jobs.add([jobs.spec("parent", queue="parents", after=[child])])
            assert await end(jobs, (await jobs.claim(Q, "worker"))[0])
            for _ in range(3):
                clock.advance(7200)
                assert await jobs.sweep(Q) == 0
            assert await jobs.remove(ticket.id, queue="parents")
            assert await jobs.sweep(Q) == 1

    async def test_what_expires_leaves_nothing(self, server: RedisServer, redis: RedisConnection) -> None:
        clock = FakeClock()
        async with opened(server, environment=Environment(clock=clock)) as jobs:
            await jobs.add([jobs.spec("task", number, queue=Q, expires=60) for number in range(3)])
            assert await end(jobs, (await jobs.claim(Q, "worker"))[0])
            assert await jobs.sweep(Q) == 0
            assert await redis.execute("ZCARD", f"bull:{Q}:noobly-expiring") == 3
            clock.advance(61)
            assert await jobs.sweep(Q) == 0
            stats = await jobs.stats(Q)
            assert (stats.expired, stats.succeeded, stats.queued) == (2, 1, 0)
            assert await redis.execute("EXISTS", f"bull:{Q}:noobly-expiring") == 0


class TestDurability:
    async def test_a_server_that_would_lose_jobs(self, server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
        url = f"bullmq://127.0.0.1:{server.port}"
        with caplog.at_level(logging.WARNING, "noobly.working"):
            async with open_jobs(url), open_jobs(url, durability="ignore"):
                pass
        assert [entry.getMessage()[:36] for entry in caplog.records] == ["redis may lose jobs: it has neither "]
        with pytest.raises(ConfigError, match="append-only"):
            async with open_jobs(url, durability="require"):
                pass

    async def test_a_worker_says_so_once(self, server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
        async with open_jobs(f"bullmq://127.0.0.1:{server.port}") as jobs:

            @jobs.task(queue=Q)
            async def work(_: object) -> None:
                pass

            async with jobs.working():
                await (await jobs.enqueue(work)).result(PATIENCE)
        assert [record.message for record in caplog.records if "may lose" in record.message] == [
            "redis may lose jobs: it has neither an append-only file nor a replica"
        ]

    async def test_a_server_that_keeps_what_it_is_given(self, start: Servers) -> None:
        url = f"bullmq://127.0.0.1:{start('--appendonly', 'yes').port}"
        async with open_jobs(url, durability="require") as jobs:
            assert await jobs.queues() == []
