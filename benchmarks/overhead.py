"""What Noobly costs on top of the bare provider: layers, the portable type, and the import."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import cast

from benchmarks._rounds import Costs, Session, Variant, run, sequential
from noobly.caching import Cache, open_cache
from noobly.caching.driver import CacheDriver
from noobly.caching.providers.memory import MemoryCache, MemoryConfig
from noobly.core.binding import bind
from noobly.core.scope import Environment, Policy, Scope
from noobly.layers import Breaker, default_stack

KEYS = [f"user:{number}" for number in range(1000)]
VALUE = {"name": "Ada Lovelace", "roles": ["admin", "author"], "age": 36}
DATA = b"x" * 60


class Nowhere(MemoryCache):
    """A driver that counts as a network one, so that all layers have their say, and does nothing."""

    scheme = "nowhere"
    in_process = False

    async def get(self, key: str, /) -> bytes | None:
        return DATA


def bound(driver: CacheDriver) -> CacheDriver:
    """Return a driver behind the layers that every instance has by default."""
    scope = Scope(
        service="caching", instance="bench", provider=driver.scheme, policy=Policy(), environment=Environment()
    )
    return bind(CacheDriver, driver, default_stack(scope, Breaker(scope)))


def puts(put: Callable[[str, bytes, float | None], Awaitable[None]]) -> Variant:
    async def call(key: str) -> None:
        await put(key, DATA, 60.0)

    return Variant("", sequential(call, KEYS))


async def layers(session: Session, bare: CacheDriver, wrapped: CacheDriver) -> None:
    await session.compare(
        "layers: get on memory",
        [Variant("bare get", sequential(bare.get, KEYS)), Variant("bound get", sequential(wrapped.get, KEYS))],
        base="bare get",
        goals=[Costs("bound get", "bare get", 1.5)],
    )
    await session.compare(
        "layers: put on memory",
        [puts(bare.put)._replace(name="bare put"), puts(wrapped.put)._replace(name="bound put")],
        base="bare put",
        goals=[Costs("bound put", "bare put", 1.5)],
    )
    empty = cast(CacheDriver, Nowhere(MemoryConfig(), Environment()))
    far = bound(empty)
    await session.compare(
        "layers: network stack over a driver that does nothing",
        [Variant("bare call", sequential(empty.get, KEYS)), Variant("bound call", sequential(far.get, KEYS))],
        base="bare call",
        goals=[Costs("bound call", "bare call", 3.5)],
    )


async def portable(session: Session, bare: CacheDriver, cache: Cache) -> None:
    async def put(key: str) -> None:
        await cache.put(key, VALUE)

    async def put_ttl(key: str) -> None:
        await cache.put(key, VALUE, ttl=60)

    async def bare_put(key: str) -> None:
        await bare.put(key, DATA, None)

    for key in KEYS:
        await cache.put(key, VALUE)
    await session.compare(
        "portable: Cache.get on memory",
        [
            Variant("bare get", sequential(bare.get, KEYS)),
            Variant("Cache.get", sequential(cache.get, KEYS)),
        ],
        base="bare get",
        goals=[Costs("Cache.get", "bare get", 1.75)],
        note="Cache.get decodes the JSON value, measures, counts the hit and announces it.",
    )
    await session.compare(
        "portable: Cache.put on memory",
        [
            Variant("bare put", sequential(bare_put, KEYS)),
            Variant("Cache.put", sequential(put, KEYS)),
            Variant("Cache.put with a ttl", sequential(put_ttl, KEYS)),
        ],
        base="bare put",
        goals=[Costs("Cache.put", "bare put", 3.0)],
    )


async def imports(session: Session) -> None:
    def importing(code: str) -> Variant:
        async def work(count: int) -> int:
            for _ in range(count):
                await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True)
            return count

        return Variant(code, work)

    await session.compare(
        "import: a whole interpreter, started and ended",
        [
            importing("pass"),
            importing("import asyncio"),
            importing("import noobly"),
            importing("from noobly import Noobly"),
        ],
        base="pass",
        goals=[Costs("import noobly", "pass", 250_000)],
    )


async def overhead(session: Session) -> None:
    bare = cast(CacheDriver, MemoryCache(MemoryConfig(), Environment()))
    for key in KEYS:
        await bare.put(key, DATA, None)
    async with AsyncExitStack() as stack:
        cache = await stack.enter_async_context(open_cache("memory://"))
        await layers(session, bare, bound(bare))
        await portable(session, bare, cache)
    await imports(session)


if __name__ == "__main__":
    run(overhead, packages=("msgspec", "uvloop"), rounds=11)
