"""One memory provider behind all layers, for several clients in this process, that take turns at every operation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from noobly.caching import Cache, CacheOptions, Can
from noobly.caching.driver import CacheDriver
from noobly.caching.providers.memory import MemoryCache, MemoryConfig
from noobly.core.binding import Layer
from noobly.core.capability import Capability
from noobly.core.operation import Call, Driver, Operation
from noobly.core.registry import Provider, Registry
from noobly.core.scope import Environment
from noobly.layers.opening import Request, open_driver, split
from noobly.testing.harness import EmbeddedHarness


def taking_turns() -> Layer:
    """Let all other tasks run before and after each operation, as the way to a server does."""

    def layer(operation: Operation, driver: Driver, inner: Call) -> Call:
        async def turning(*args: object) -> object:
            await asyncio.sleep(0)
            result = await inner(*args)
            await asyncio.sleep(0)
            return result

        return turning

    return layer


class SharedMemoryHarness(EmbeddedHarness):
    """All caches opened from it have one memory."""

    def __init__(self) -> None:
        super().__init__("memory://", capabilities=frozenset({Can.LIST}), shared=True)
        self._registry = _Handing(MemoryCache(MemoryConfig(), Environment(clock=self.clock)))

    @asynccontextmanager
    async def open(self, *, require: Sequence[Capability] = (), **options: object) -> AsyncIterator[Cache]:
        """See the protocol."""
        request = Request(url="memory://", options=options, require=require, inner=[taking_turns()])
        async with AsyncExitStack() as stack:
            environment = Environment(clock=self.clock)
            settings = split(request, CacheOptions)
            opened = await open_driver(stack, self._registry, CacheDriver, settings, request, environment)
            cache = Cache(opened.driver, opened.scope, opened.options)
            stack.push_async_callback(cache.close)
            yield cache


class _Handing(Registry):
    """Hands out one provider whatever is opened."""

    def __init__(self, provider: MemoryCache) -> None:
        super().__init__("caching", {"memory": Provider("")})
        provider.in_process = False  # So that deadline, limit, retry and circuit breaker are under test too.
        self._provider = provider

    def load(self, scheme: str) -> type[object]:
        """Return what stands for a provider class and makes nothing."""
        provider = self._provider

        def hand_out(_class: type[object], _config: MemoryConfig, _environment: Environment) -> MemoryCache:
            return provider

        return type("Handle", (), {"Config": MemoryConfig, "__new__": hand_out})
