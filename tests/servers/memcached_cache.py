"""A memcached provider on a private server, and a look into the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiomcache

from noobly.caching.providers.memcached import MemcachedCache, MemcachedConfig
from noobly.core.clock import fresh_id
from noobly.core.scope import Environment
from noobly.testing import FakeClock, RunningServer


@asynccontextmanager
async def opened(
    server: RunningServer, clock: FakeClock | None = None, namespace: str = "", **options: int
) -> AsyncIterator[MemcachedCache]:
    config = MemcachedConfig(host=server.host, port=server.port, namespace=namespace or fresh_id(), **options)
    async with AsyncExitStack() as stack:
        cache = MemcachedCache(config, Environment(clock=clock))
        await cache.start(stack)
        yield cache


@asynccontextmanager
async def raw(server: RunningServer) -> AsyncIterator[aiomcache.Client]:
    client = aiomcache.Client(server.host, server.port, pool_size=1)
    yield client
    await client.close()
