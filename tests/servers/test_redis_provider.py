"""The Redis provider over each topology that its URL can name; what it does with entries is the suite's business."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from noobly.caching import Cache, open_cache
from noobly.clients.redis import RedisConnection, RedisReplyError
from noobly.core.config import Secret
from noobly.core.errors import ConfigError, Conflict, Unauthenticated, Unavailable
from noobly.testing import eventually

from .redis_server import RedisServer, Servers, connected, free_port, tls_files


async def exercise(cache: Cache) -> None:
    """Use each kind of command once."""
    await cache.put_many({f"user:{number}": number for number in range(50)}, ttl=60)
    assert await cache.get_many([f"user:{number}" for number in range(0, 50, 10)]) == {
        f"user:{number}": number for number in range(0, 50, 10)
    }
    await cache.put("tagged", {"a": 1}, tags=["t"])
    await cache.invalidate(["t"])
    assert await cache.get("tagged") is None
    assert await cache.get_or_compute("made", lambda: "value", tags=["t"]) == "value"
    assert [await cache.increment("n", 2**53), await cache.increment("n")] == [2**53, 2**53 + 1]
    with pytest.raises(Conflict):
        await cache.increment("made")
    async with cache.lock("l"):
        assert await cache.acquire("l") is None
    assert await cache.touch("made", 100)
    assert await cache.touch("made")
    assert sorted([key async for key in cache.keys("user")]) == sorted(f"user:{number}" for number in range(50))
    await cache.clear("user")
    assert sorted([key async for key in cache.keys()]) == ["made", "n"]
    await cache.clear()
    assert [key async for key in cache.keys()] == []


async def test_tls_with_a_user_and_a_password(start: Servers, tmp_path: Path) -> None:
    options, _ = tls_files(tmp_path)
    server = start(*options, "--requirepass", "s3cret", tls=True)
    url = f"rediss://default@127.0.0.1:{server.port}/2?ca={tmp_path / 'ca.pem'}"
    async with open_cache(url, password=Secret("s3cret")) as cache:
        await exercise(cache)
    with pytest.raises(Unauthenticated):
        async with open_cache(url, password=Secret("wrong")):
            pass
    with pytest.raises(Unavailable):
        async with open_cache(f"rediss://127.0.0.1:{server.port}"):
            pass


async def test_sentinel_and_a_failover(start: Servers) -> None:
    first = start()
    second = start("--replicaof", "127.0.0.1", str(first.port))
    sentinel = start(
        sentinel=f"sentinel monitor main 127.0.0.1 {first.port} 1\nsentinel down-after-milliseconds main 500\n"
    )
    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main/0"
    async with open_cache(url, breaker_pause=0.05) as cache:
        await exercise(cache)
        await cache.put("k", 1)
        async with connected(sentinel) as control:
            await eventually(lambda: knows_replica(control), timeout=25)
            await eventually(lambda: fails_over(control), timeout=25)
            await eventually(lambda: is_primary(control, second), timeout=25)
            await eventually(lambda: can_write(cache), timeout=25)
        assert await cache.get("written") is True


async def knows_replica(control: RedisConnection) -> bool:
    replicas = await control.execute("SENTINEL", "REPLICAS", "main")
    return isinstance(replicas, list) and len(replicas) == 1


async def fails_over(control: RedisConnection) -> bool:
    try:
        await control.execute("SENTINEL", "FAILOVER", "main")
    except RedisReplyError:
        return False  # Until the sentinel has seen the replica for long enough.
    return True


async def is_primary(control: RedisConnection, server: RedisServer) -> bool:
    address = await control.execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
    return address == [b"127.0.0.1", str(server.port).encode()]


async def can_write(cache: Cache) -> bool:
    try:
        await cache.put("written", True)
    except Unavailable:
        return False
    return True


async def test_a_cluster_of_three_primaries(start: Servers) -> None:
    buses = [str(free_port()) for _ in range(3)]
    nodes = [start("--cluster-enabled", "yes", "--cluster-port", bus) for bus in buses]
    await form_cluster(nodes, buses[0])
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes[:2])
    async with open_cache(f"redis+cluster://{hosts}") as cache:
        await exercise(cache)


async def form_cluster(nodes: list[RedisServer], bus: str) -> None:
    bounds = [0, 5461, 10923, 16384]
    for index, node in enumerate(nodes):
        async with connected(node) as connection:
            await connection.execute("CLUSTER", "ADDSLOTSRANGE", bounds[index], bounds[index + 1] - 1)
            await connection.execute("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, bus)
    for node in nodes:
        async with connected(node) as connection:
            await eventually(lambda connection=connection: agrees(connection), timeout=25)  # type: ignore[misc]


async def agrees(connection: RedisConnection) -> bool:
    info = await connection.execute("CLUSTER", "INFO")
    assert isinstance(info, bytes)
    return b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://a:1,b:2", "several hosts need"),
        ("redis://a/main/0", "several hosts need"),
        ("redis://a/zero", "database's number"),
        ("redis+sentinel://a/0", "primary's name"),
        ("rediss://a?ca=/does/not/exist", "TLS files"),
        ("redis://a?max_in_flight=0", "wrong setting"),
    ],
)
async def test_urls_that_do_not_fit_together(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        async with open_cache(url):
            pass


async def test_others_keys_are_never_touched(start: Servers) -> None:
    server = start()
    async with (
        connected(server) as connection,
        open_cache(f"redis://127.0.0.1:{server.port}", namespace="a*b") as cache,
    ):
        for key in ("aXb:k", "a*bc", "other"):
            await connection.execute("SET", key, "1")
        await cache.put("k", 1)
        await cache.clear()
        keys = await connection.execute("KEYS", "*")
        assert isinstance(keys, list)
        assert sorted(key for key in keys if isinstance(key, bytes)) == [b"a*bc", b"aXb:k", b"other"]


async def test_two_instances_on_one_server_are_apart(start: Servers) -> None:
    url = f"redis://127.0.0.1:{start().port}"
    async with open_cache(url) as one, open_cache(url, instance="sessions") as two:
        await one.put("k", 1)
        assert await two.get("k") is None
        await two.clear()
        assert await one.get("k") == 1


async def test_it_goes_on_after_many_callers_were_cancelled(start: Servers) -> None:
    async with open_cache(f"redis://127.0.0.1:{start().port}") as cache:
        await cache.put_many({f"k{number}": number for number in range(100)})
        for _ in range(20):
            reads = [asyncio.create_task(cache.get(f"k{number}")) for number in range(100)]
            await asyncio.sleep(0)
            for read in reads[::2]:
                read.cancel()
            answers = await asyncio.gather(*reads, return_exceptions=True)
            assert answers[1::2] == list(range(1, 100, 2))
