"""Caches: Noobly against a dictionary, cachetools, cashews and aiocache in memory, on Redis and on memcached.

Servers are private and share one core with this process, for a wake-up across cores costs more than a command. All
sides run on the same event loop (``--loop``).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import aiocache
import aiomcache
import cashews
import msgspec
import redis.asyncio
from aiocache.serializers import JsonSerializer
from cachetools import TTLCache

from benchmarks._rounds import Call, Faster, Outcome, Session, Variant, run, sequential, together
from noobly.caching import Cache, open_cache
from noobly.testing import OwnedServer, private

KEYS = [f"user:{number}" for number in range(1000)]
VALUE = {"name": "Ada Lovelace", "roles": ["admin", "author"], "age": 36}
NESTED = {"user": {**VALUE, "address": {"city": "London", "lines": ["St James's Square"]}}}
TTL = 3600
TASKS = 100
COMPRESSIONS = ("none", "gzip", "brotli", "zstd")
encode, decode = msgspec.json.encode, msgspec.json.decode


class Peer(msgspec.Struct, frozen=True):
    """A cache in the form that all have in common."""

    name: str
    get: Call
    put: Callable[[str], Awaitable[object]]

    async def filled(self) -> Peer:
        for key in KEYS:
            await self.put(key)
        if not await self.get(KEYS[0]):
            raise AssertionError(f"{self.name} does not find what was put into it")
        return self


def noobly(name: str, cache: Cache) -> Peer:
    return Peer(name, cache.get, lambda key: cache.put(key, VALUE, ttl=TTL))


def dictionary() -> Peer:
    """The least that can be called a cache: JSON bytes and an end in a dictionary, behind ``await``."""
    entries: dict[str, tuple[bytes, float]] = {}

    async def get(key: str) -> object:
        data, end = entries[key]
        return decode(data) if end > time.monotonic() else None

    async def put(key: str) -> None:
        entries[key] = encode(VALUE), time.monotonic() + TTL

    return Peer("dict of JSON and end", get, put)


def tools() -> Peer:
    entries: TTLCache[str, bytes] = TTLCache(100_000, TTL)

    async def get(key: str) -> object:
        return decode(entries[key])

    async def put(key: str) -> None:
        entries[key] = encode(VALUE)

    return Peer("cachetools TTLCache of JSON", get, put)


def cashews_peer(name: str, cache: cashews.Cache) -> Peer:
    return Peer(name, cache.get, lambda key: cache.set(key, VALUE, expire=TTL))


async def open_cashews(stack: AsyncExitStack, url: str) -> cashews.Cache:
    cache = cashews.Cache()
    cache.setup(url)
    await cache.init()
    stack.push_async_callback(cache.close)
    return cache


def aiocache_peer(name: str, cache: aiocache.BaseCache) -> Peer:
    return Peer(name, cache.get, lambda key: cache.set(key, VALUE, ttl=TTL))


async def memory(session: Session, stack: AsyncExitStack) -> None:
    cache = await stack.enter_async_context(open_cache("memory://"))
    peers = [
        await peer.filled()
        for peer in (
            noobly("noobly", cache),
            dictionary(),
            tools(),
            cashews_peer("cashews mem", await open_cashews(stack, "mem://")),
            aiocache_peer("aiocache memory", aiocache.SimpleMemoryCache(serializer=JsonSerializer())),
        )
    ]
    note = "Noobly, the dictionary and aiocache keep JSON; cashews keeps and returns the caller's own object."
    goals = [Faster("noobly", "cashews mem", 5)]
    await session.compare("memory: get, hit", gets(peers), base="noobly", goals=goals, note=note)
    await session.compare("memory: put", puts(peers), base="noobly", note=note)


async def nested(session: Session, stack: AsyncExitStack) -> None:
    """Values whose containers hold others are decoded each time."""
    cache = await stack.enter_async_context(open_cache("memory://"))
    other = await open_cashews(stack, "mem://")
    for key in KEYS:
        await cache.put(key, NESTED, ttl=TTL)
        await other.set(key, NESTED, expire=TTL)
    variants = [Variant("noobly", sequential(cache.get, KEYS)), Variant("cashews mem", sequential(other.get, KEYS))]
    await session.compare("memory: get, hit, nested value", variants, base="noobly")


async def decorated(session: Session, stack: AsyncExitStack) -> None:
    cache = await stack.enter_async_context(open_cache("memory://"))
    other = await open_cashews(stack, "mem://")

    async def load(key: str) -> dict[str, object]:
        return dict(VALUE)

    calls: dict[str, Call] = {
        "noobly": cache.cached("user:{key}", ttl=TTL)(load),
        "cashews mem": other(ttl=TTL, key="user:{key}")(load),
        "aiocache memory": aiocache.cached(ttl=TTL, serializer=JsonSerializer())(load),
    }
    for call in calls.values():
        for key in KEYS:
            await call(key)
    variants = [Variant(name, sequential(call, KEYS)) for name, call in calls.items()]
    await session.compare("memory: decorator, hit", variants, base="noobly")


async def on_redis(session: Session, stack: AsyncExitStack) -> None:
    server = await stack.enter_async_context(private("redis"))
    cache = await stack.enter_async_context(open_cache(f"{server.url}/0"))
    tiered = await stack.enter_async_context(open_cache(f"tiered+{server.url}/1"))
    raw = redis.asyncio.Redis.from_url(server.url)
    stack.push_async_callback(raw.aclose)
    other = await open_cashews(stack, f"{server.url}/2")
    third = aiocache.RedisCache(endpoint=server.host, port=server.port, db=3, serializer=JsonSerializer())
    stack.push_async_callback(third.close)

    async def raw_get(key: str) -> object:
        return decode(await raw.get(key) or b"")

    peers = [
        await peer.filled()
        for peer in (
            noobly("noobly", cache),
            Peer("redis-py pool + msgspec", raw_get, lambda key: raw.set(key, encode(VALUE), ex=TTL)),
            cashews_peer("cashews redis", other),
            aiocache_peer("aiocache redis", third),
        )
    ]
    alone = [Faster("noobly", "redis-py pool + msgspec", 1.8)]
    await session.compare("redis: get, one at a time", gets(peers), base="redis-py pool + msgspec", goals=alone)
    await session.compare("redis: put, one at a time", puts(peers), base="redis-py pool + msgspec")
    many = [Faster("noobly", "redis-py pool + msgspec", 12)]
    title = f"redis: get, {TASKS} tasks"
    await session.compare(title, gets(peers, TASKS), base="redis-py pool + msgspec", goals=many)
    tiers = [await noobly("noobly, tiered", tiered).filled(), peers[0]]
    await session.compare("redis: get, memory in front", gets(tiers), base="noobly")


async def on_memcached(session: Session, stack: AsyncExitStack) -> None:
    server = await stack.enter_async_context(private("memcached"))
    cache = await stack.enter_async_context(open_cache(server.url))
    raw = aiomcache.Client(server.host, server.port, pool_size=10)
    stack.push_async_callback(raw.close)

    async def raw_get(key: str) -> object:
        return decode(await raw.get(key.encode()) or b"")

    async def raw_put(key: str) -> object:
        return await raw.set(key.encode(), encode(VALUE), exptime=TTL)

    peers = [await peer.filled() for peer in (noobly("noobly", cache), Peer("aiomcache + msgspec", raw_get, raw_put))]
    for title, tasks in (("one at a time", 1), (f"{TASKS} tasks", TASKS)):
        await session.compare(f"memcached: get, {title}", gets(peers, tasks), base="aiomcache + msgspec")
    await session.compare("memcached: put, one at a time", puts(peers), base="aiomcache + msgspec")


async def compressed(session: Session) -> None:
    """Ask Redis itself how much memory values take."""
    if session.options.only not in "compression":
        return
    async with private("redis") as server:
        sizes = {kind: await memory_usage(server, kind) for kind in COMPRESSIONS}
    less = {kind: 1 - size / sizes["none"] for kind, size in sizes.items()}
    rows = [[kind, f"{less[kind]:.0%}", f"{size:,.0f}"] for kind, size in sizes.items()]
    goals = [
        Outcome(f"memory saved by {kind}", f"{less[kind]:.0%}", "at least 60%", less[kind] >= 0.6)
        for kind in COMPRESSIONS[1:]
    ]
    note = "MEMORY USAGE of 100 values of about 10 KiB each: lists of records, as JSON."
    session.add("compression: memory on Redis", ["", "less", "bytes per entry"], rows, goals, note)


async def memory_usage(server: OwnedServer, kind: str) -> float:
    raw = redis.asyncio.Redis.from_url(server.url)
    async with open_cache(server.url, compression=kind, namespace=f"bench-{kind}") as cache, raw:
        for number, value in zip(range(100), records(), strict=False):
            await cache.put(f"report:{number}", value)
        used = [await raw.memory_usage(f"bench-{kind}:report:{number}", samples=0) for number in range(100)]
    return sum(size or 0 for size in used) / len(used)


def records() -> Iterator[list[dict[str, object]]]:
    """Yield lists of records of about 10 KiB: field names repeat, and so do some values, as in an API's answers."""
    words = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "juniper"]
    number = 0
    while True:
        rows: list[dict[str, object]] = []
        while len(encode(rows)) < 10 * 1024:
            number += 1
            noise = number * 2654435761 % 2**32
            rows.append(
                {
                    "id": f"{noise:08x}-{number:04x}",
                    "name": f"{words[noise % 10]} {words[noise // 10 % 10]}",
                    "email": f"{words[noise // 100 % 10]}.{noise % 997}@example.com",
                    "active": noise % 3 > 0,
                    "balance": noise % 100_000 / 100,
                    "tags": [words[noise // 1000 % 10], words[noise // 10_000 % 10]],
                }
            )
        yield rows


def gets(peers: list[Peer], tasks: int = 1) -> list[Variant]:
    if tasks == 1:
        return [Variant(peer.name, sequential(peer.get, KEYS)) for peer in peers]
    return [Variant(peer.name, together(peer.get, KEYS, tasks)) for peer in peers]


def puts(peers: list[Peer]) -> list[Variant]:
    return [Variant(peer.name, sequential(peer.put, KEYS)) for peer in peers]


async def caching(session: Session) -> None:
    async with AsyncExitStack() as stack:
        await memory(session, stack)
        await nested(session, stack)
        await decorated(session, stack)
        await on_redis(session, stack)
        await on_memcached(session, stack)
    await compressed(session)


if __name__ == "__main__":
    packages = ("cachetools", "cashews", "aiocache", "redis", "hiredis", "aiomcache", "msgspec", "uvloop")
    run(caching, packages=packages)
