"""What happens to a cache when servers, connections and other processes misbehave."""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from noobly.app import Noobly
from noobly.caching import Cache, open_cache
from noobly.core.errors import DeadlineExceeded, Unavailable
from noobly.layers.health import State
from noobly.settings import Instance, Settings
from noobly.testing import OwnedServer, TcpProxy, eventually, private_or_skip, server_or_skip

WORKER = Path(__file__).parent / "stampede_worker.py"
PROCESSES = 4


@pytest.fixture
def redis() -> Iterator[OwnedServer]:
    with private_or_skip("redis") as server:
        yield server


@pytest.fixture
def shared_redis() -> Iterator[str]:
    with server_or_skip("redis") as url:
        yield url


async def misses(cache: Cache, reason: str) -> int:
    return (await cache.stats()).misses_by_reason.get(reason, 0)


async def test_1000_misses_in_4_processes_run_the_factory_once(shared_redis: str) -> None:
    namespace = f"stampede-{uuid.uuid4().hex}"
    arguments = [str(WORKER), shared_redis, namespace, str(PROCESSES)]
    workers = [await asyncio.create_subprocess_exec(sys.executable, *arguments) for _ in range(PROCESSES)]
    async with asyncio.timeout(60):
        assert await asyncio.gather(*(worker.wait() for worker in workers)) == [0] * PROCESSES
    async with open_cache(shared_redis, namespace=namespace) as cache:
        assert await cache.get("runs") == 1
        assert await cache.get("answers") == 1000
        await cache.clear()


async def test_an_invalidation_by_another_client_during_a_slow_factory_wins(shared_redis: str) -> None:
    namespace = f"race-{uuid.uuid4().hex}"
    async with (
        open_cache(shared_redis, namespace=namespace) as ours,
        open_cache(shared_redis, namespace=namespace) as theirs,
    ):
        for wins in (lambda: theirs.invalidate(["t"]), lambda: theirs.delete("a:k"), lambda: theirs.clear("a")):
            started, go = asyncio.Event(), asyncio.Event()

            async def slow(started: asyncio.Event = started, go: asyncio.Event = go) -> str:
                started.set()
                await go.wait()
                return "old"

            computing = asyncio.create_task(ours.get_or_compute("a:k", slow, tags=["t"]))
            await started.wait()
            await wins()
            go.set()
            assert await computing == "old"
            assert await theirs.get("a:k") is None
            assert await ours.get("a:k") is None
        await ours.clear()


async def test_redis_paused_for_10_seconds_comes_back_by_itself(redis: OwnedServer) -> None:
    settings = Settings(
        services={"caching": {"default": Instance(url=redis.url, options={"timeout": 0.5, "breaker_pause": 0.2})}}
    )
    async with Noobly.open(settings=settings) as noobly:
        cache = noobly.caching
        await cache.put("k", 1)
        with paused(redis):
            began = time.monotonic()
            assert await cache.get("k", "default") == "default"
            with pytest.raises((Unavailable, DeadlineExceeded)):
                await cache.put("k", 2)
            while time.monotonic() - began < 10:
                assert await cache.get("k") is None
                await asyncio.sleep(0.05)
            assert await misses(cache, "unavailable") > 10
            [health] = [report for report in await noobly.health() if report.service == "caching"]
            assert health.state is State.DOWN
            assert health.circuit == "open"
        # The write that was given up may have taken effect once the server went on.
        await eventually(lambda: answers(cache, {1, 2}), timeout=5)
        [health] = [report for report in await noobly.health() if report.service == "caching"]
        assert (health.state, health.circuit) == (State.OK, "closed")


@contextmanager
def paused(redis: OwnedServer) -> Iterator[None]:
    redis.pause()
    try:
        yield
    finally:
        redis.resume()


async def answers(cache: Cache, values: set[int]) -> bool:
    return await cache.get("k") in values


async def returned(cache: Cache, value: object) -> bool:
    return await cache.get("k") == value


async def wrote(cache: Cache) -> bool:
    try:
        await cache.put("k", "new")
    except (Unavailable, DeadlineExceeded):
        return False
    return True


async def test_redis_restarted_comes_back_by_itself_and_no_write_is_silently_lost(redis: OwnedServer) -> None:
    async with open_cache(redis.url, timeout=1.0, breaker_pause=0.1) as cache:
        await cache.put("k", "old")
        redis.kill()
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await cache.put("k", "lost")
        assert await cache.get("k") is None
        assert await cache.get_or_compute("k", lambda: "computed") == "computed"
        assert (await cache.stats()).computed == {"unsaved": 1}
        redis.start()
        await eventually(lambda: wrote(cache), timeout=5)
        assert await cache.get("k") == "new"


class TestTiered:
    """Memory in front of Redis, with a proxy on one client's connection that can be cut or fall silent."""

    async def test_a_change_by_another_client_is_seen_at_once(self, redis: OwnedServer) -> None:
        async with open_cache(f"tiered+{redis.url}") as ours, open_cache(redis.url) as theirs:
            await ours.put("k", "old")
            assert await ours.get("k") == "old"
            await theirs.put("k", "new")
            await eventually(lambda: returned(ours, "new"), timeout=2)
            await theirs.delete("k")
            await eventually(lambda: returned(ours, None), timeout=2)

    async def test_a_cut_connection_drops_the_memory_and_reads_are_right_afterwards(self, redis: OwnedServer) -> None:
        async with TcpProxy(redis.host, redis.port) as proxy:
            url = f"tiered+redis://{proxy.host}:{proxy.port}"
            async with open_cache(url, breaker_pause=0.05) as ours, open_cache(redis.url) as theirs:
                await ours.put("k", "old")
                assert await ours.get("k") == "old"
                await proxy.cut()
                await theirs.put("k", "new")
                await eventually(lambda: returned(ours, None), timeout=2)
                proxy.restore()
                await eventually(lambda: returned(ours, "new"), timeout=5)

    async def test_a_silent_connection_keeps_the_staleness_bound(self, redis: OwnedServer) -> None:
        bound = 1.0
        async with TcpProxy(redis.host, redis.port) as proxy:
            url = f"tiered+redis://{proxy.host}:{proxy.port}"
            options = {"l1_ttl": bound, "timeout": 0.3, "breaker_pause": 0.05, "stall_timeout": 0.5}
            async with open_cache(url, **options) as ours, open_cache(redis.url) as theirs:
                await ours.put("k", "old")
                proxy.blackhole()
                changed = time.monotonic()
                await theirs.put("k", "new")
                last_stale = changed
                while time.monotonic() - changed < 2 * bound:
                    if await ours.get("k") == "old":
                        last_stale = time.monotonic()
                    await asyncio.sleep(0.01)
                assert last_stale - changed <= bound + 0.1
                proxy.restore()
                await eventually(lambda: returned(ours, "new"), timeout=5)
