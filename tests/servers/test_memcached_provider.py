"""The memcached provider against a real memcached: long and short lives, keys, clearing, sizes."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Iterator

import pytest

from noobly.caching import Can, open_cache
from noobly.core.clock import fresh_id
from noobly.core.errors import Closed, ConfigError, TooLarge, Unsupported
from noobly.testing import FakeClock, OwnedServer, RunningServer, private_or_skip

from .memcached_cache import opened, raw

pytestmark = pytest.mark.servers

DAY = 86400.0
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[OwnedServer]:
    with private_or_skip("memcached") as started:
        yield started


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(start=time.time())


async def test_it_serves_a_cache_and_refuses_what_it_cannot_do(server: OwnedServer) -> None:
    async with open_cache(server.url, namespace=fresh_id()) as cache:
        await cache.put("user:1", {"name": "Ada"}, ttl=60, tags=["users"])
        assert await cache.get("user:1") == {"name": "Ada"}
        await cache.invalidate(["users"])
        assert await cache.get("user:1") is None
        async with cache.lock("report"):
            assert await cache.acquire("report") is None
        with pytest.raises(Unsupported):
            await cache.list_keys()
        await cache.clear("1:2:3:4:5:6:7:8")
        with pytest.raises(Unsupported, match="8 levels"):
            await cache.clear("1:2:3:4:5:6:7:8:9")
    with pytest.raises(Closed):
        await cache.put("key", 1)
    with pytest.raises(Unsupported, match="list"):
        async with open_cache(server.url, require=[Can.LIST]):
            pass


async def test_a_namespace_keeps_to_itself(server: OwnedServer) -> None:
    async with open_cache(server.url) as one, open_cache(server.url, instance="other") as other:
        await one.put("key", 1)
        await other.put("key", 2)
        await other.clear()
        assert (await one.get("key"), await other.get("key")) == (1, None)
        await one.clear()
    for bad in ("with space", "a=b", "a@b", "", "x" * 65):
        with pytest.raises(ConfigError, match="namespace"):
            async with open_cache(server.url, namespace=bad):
                pass


async def test_a_life_of_more_than_30_days(server: OwnedServer, clock: FakeClock) -> None:
    namespace = fresh_id()
    async with opened(server, clock, namespace) as cache:
        for days in (29.99999, 30, 40):
            await cache.put("key", b"1", days * DAY)
            assert days * DAY <= seconds_left(server, f"{namespace}=key") <= days * DAY + 3
        assert await cache.touch("key", 50 * DAY)
        clock.advance(49 * DAY)
        assert await cache.get("key") == b"1"
        clock.advance(DAY)
        assert await cache.get("key") is None
        for ttl in (None, 200 * 365 * DAY, 9.9e9):
            await cache.put("key", b"2", ttl)
            assert seconds_left(server, f"{namespace}=key") == -1
            assert await cache.get("key") == b"2"


def seconds_left(server: RunningServer, name: str) -> int:
    with socket.create_connection((server.host, server.port), timeout=5) as link:
        link.sendall(f"mg {name} t\r\n".encode())
        return int(link.recv(100).decode().removeprefix("HD t"))


async def test_ends_are_exact_to_less_than_a_second(server: OwnedServer, clock: FakeClock) -> None:
    async with opened(server, clock) as cache:
        await cache.put("key", b"1", 0.25)
        assert await cache.increment("count", 1, 0.25) == 1
        clock.advance(0.24)
        assert await cache.get("key") == b"1"
        assert await cache.increment("count", 1, 9) == 2, "a counter keeps its end"
        clock.advance(0.02)
        assert await cache.get_many(["key", "count"]) == [None, None]
        assert await cache.swap("key", b"1", b"2", None) is False
        assert await cache.delete_many(["key"]) == [False]
        assert await cache.touch("key", 9) is False
        assert await cache.increment("count", 1, None) == 1
        assert sum(await asyncio.gather(*(cache.add("key", b"3", 9) for _ in range(30)))) == 1
        assert await cache.get("key") == b"3"


async def test_what_a_swap_deletes_is_gone_at_once(server: OwnedServer) -> None:
    async with opened(server, namespace="swapped") as cache, raw(server) as client:
        await cache.put("key", b"1", None)
        assert await cache.swap("key", b"0", None, None) is False
        assert await cache.swap("key", b"1", None, None) is True
        assert await client.get(b"swapped=key") is None
        assert await cache.add("key", b"2", None) is True
        assert await cache.get("key") == b"2"


LONG = [
    "with space",
    "line\nbreak\r\n",
    "tab\t",
    "nul\0",
    "é",
    "日本",
    "a" * 251,
    "ü" * 2048,
    "a:b c:d",
    " ",
    "\x7f",
    ":",
]


async def test_keys_that_memcached_cannot_take_are_hashed(server: OwnedServer) -> None:
    namespace = fresh_id()
    keys = [*LONG, "a" * 217, "a" * 218, "#", "=", "@", "%", *("a" * 300 + str(n) for n in range(5))]
    async with opened(server, namespace=namespace) as cache, raw(server) as client:
        await cache.put_many([(key, key.encode()) for key in keys], None)
        assert await cache.get_many(keys) == [key.encode() for key in keys]
        stored = await client.get(f"{namespace}=#".encode())
        assert stored is not None
        await client.set(f"{namespace}==".encode(), stored)
        assert await cache.get("=") is None, "the entry of another key under this one's name is none"
        await client.set(f"{namespace}==".encode(), b"foreign")
        assert await cache.get("=") is None
        assert await cache.add("=", b"new", None) is True
        assert await cache.delete_many([*keys, *keys]) == [True] * len(keys) + [False] * len(keys)
        assert await cache.get_many(keys) == [None] * len(keys)


async def test_many_keys_in_one_call(server: OwnedServer) -> None:
    keys = [f"n{n % 700}:{n}" for n in range(3000)]
    async with opened(server) as cache:
        await cache.put_many([(key, key.encode()) for key in keys], 60)
        assert await cache.get_many([*keys, *keys[:10], "none"]) == [key.encode() for key in [*keys, *keys[:10]]] + [
            None
        ]
        assert await cache.get_many([]) == []
        assert await cache.delete_many([]) == []
        await cache.put_many([], None)
        await cache.clear("n1")
        assert sum(await cache.delete_many(keys)) == len([key for key in keys if not key.startswith("n1:")])


async def test_a_second_client_sees_a_clear_at_once(server: OwnedServer) -> None:
    keys = ["a", "a:", "a:1", "a:b", "a:b:1", "a:b:c:1", "a:bc:1", "ab:1", ":x", "::x", "b:a:b:1", "é :1"]
    namespace = fresh_id()
    async with opened(server, namespace=namespace) as one, opened(server, namespace=namespace) as two:
        for cleared in ("a:b", "a", "a:", "a:b:c", ":", "é ", ""):
            await one.put_many([(key, b"1") for key in keys], None)
            await two.clear(cleared)
            for cache in (one, two):
                found = await cache.get_many(keys)
                gone = [key for key, data in zip(keys, found, strict=True) if data is None]
                assert gone == [key for key in keys if not cleared or key.startswith(f"{cleared}:")]
        await one.put("a:1", b"1", None)
        await two.clear("a")
        assert await one.swap("a:1", b"1", b"2", None) is False
        assert await one.touch("a:1", 5) is False
        assert await one.delete_many(["a:1"]) == [False]
        assert await one.increment("a:1", 3, None) == 3
        await two.clear("a")
        assert sum(await asyncio.gather(*(c.add("a:1", b"1", None) for c in (one, two) for _ in range(20)))) == 1


async def test_deep_keys_belong_to_their_first_8_levels(server: OwnedServer) -> None:
    async with opened(server) as cache:
        key = "1:2:3:4:5:6:7:8:9:10"
        for levels in range(1, 9):
            await cache.put(key, b"1", None)
            await cache.clear(key[: 2 * levels - 1])
            assert await cache.get(key) is None
        await cache.put(key, b"1", None)
        with pytest.raises(Unsupported):
            await cache.clear("1:2:3:4:5:6:7:8:9")
        assert await cache.get(key) == b"1"


async def test_entries_whose_epoch_was_dropped_stay_gone(server: OwnedServer) -> None:
    namespace = fresh_id()
    async with opened(server, namespace=namespace) as cache, raw(server) as client:
        for epoch in ("", "a"):
            await cache.put("a:1", b"old", None)
            assert await client.delete(f"{namespace}@{epoch}".encode())
            assert await cache.get("a:1") is None
            await cache.put("a:2", b"new", None)
            assert await cache.get_many(["a:1", "a:2"]) == [None, b"new"]


async def test_values_up_to_the_server_s_limit(server: OwnedServer) -> None:
    key = "k" * 200
    async with opened(server, namespace="n" * 49) as cache:
        largest = cache.limits.value_bytes
        assert MIB - 1024 < largest < MIB
        for size in (largest, largest - 1, largest // 2):
            data = random.Random(size).randbytes(size)
            await cache.put(key, data, None)
            assert await cache.get(key) == data
            assert await cache.swap(key, data, data[:-1] + b"x", 60) is True
    async with open_cache(server.url, item_bytes=4 * MIB, namespace=fresh_id()) as cache:
        await cache.put("key", b"kept")
        with pytest.raises(TooLarge, match="item_bytes"):
            await cache.put("key", b"x" * 2 * MIB)
        await cache.put("key", b"next")
        assert await cache.get("key") == b"next"


async def test_a_server_with_larger_items() -> None:
    with private_or_skip("memcached", "-I", "4m") as roomy:
        async with open_cache(f"{roomy.url}?item_bytes={4 * MIB}") as cache:
            data = random.Random(3).randbytes(3 * MIB)
            await cache.put("key", data)
            assert await cache.get("key") == data
        async with open_cache(roomy.url) as cache:
            with pytest.raises(TooLarge):
                await cache.put("key", data)


async def test_two_clients_count_together(server: OwnedServer) -> None:
    namespace = fresh_id()
    async with opened(server, namespace=namespace) as one, opened(server, namespace=namespace) as two:
        counts = await asyncio.gather(*(cache.increment("n", 1, None) for _ in range(150) for cache in (one, two)))
        assert sorted(counts) == list(range(1, 301))
        assert await one.increment("n", -400, None) == -100
        assert await two.get("n") == b"-100"
        swaps = [cache.swap("n", b"-100", b"%d" % n, None) for n in range(20) for cache in (one, two)]
        assert sum(await asyncio.gather(*swaps)) == 1
