"""How a conformance suite reaches one provider: opening, time, restarts, and what the provider claims.

One harness serves one test, and what it opens is empty at first. Write a class with these members for a provider of
your own, or use ``EmbeddedHarness`` and ``ServerHarness``, which do with a URL.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol, cast

from noobly.caching import Cache, CacheOptions
from noobly.caching.driver import CacheDriver
from noobly.caching.opening import enter_cache
from noobly.caching.providers import REGISTRY
from noobly.core.binding import bind
from noobly.core.capability import Capability
from noobly.core.clock import fresh_id
from noobly.core.errors import Unsupported
from noobly.core.scope import Environment
from noobly.layers.classify import classify
from noobly.layers.opening import Request, make, split
from noobly.testing.clock import FakeClock
from noobly.testing.servers import OwnedServer

_STORED_AT_MOST = 8 * 1024 * 1024
_STEP = 0.05


class Harness(Protocol):
    """What the caching suite needs to know of a provider and asks of it."""

    capabilities: frozenset[Capability]
    """What the provider claims; the suite tests these, and that everything else is refused as Unsupported."""
    shared: bool
    """Two caches opened from this harness see the same entries."""
    real_time: bool
    """The store reads a clock of its own, so ``advance`` takes as long as it says."""
    restartable: bool
    """``stop`` and ``restart`` work."""
    direct: bool
    """The cache stands beside its store, so its events are to be had here; false for one behind another server."""
    tick: float
    """The shortest ttl, in seconds, that the store measures well: lengths of time in the suite are multiples of it."""
    value_bytes: int
    """The longest value the suite shall store."""

    def open(self, *, require: Sequence[Capability] = (), **options: object) -> AbstractAsyncContextManager[Cache]:
        """Open a cache with these options; all caches of one harness share its namespace, if they share anything."""
        ...

    async def advance(self, seconds: float) -> None:
        """Let time pass for the cache and for its store."""
        ...

    async def jump(self, seconds: float) -> None:
        """Let time pass at least for the cache, at once where its clock can be set; the store may not notice."""
        ...

    async def stop(self) -> None:
        """End the store."""
        ...

    async def restart(self) -> None:
        """End the store, if it runs, and start it; it may have lost everything."""
        ...


class EmbeddedHarness:
    """A provider inside this process, whose only clock is the cache's.

    Args:
        url: What to open.
        capabilities: What it claims.
        shared: Whether two caches opened from the URL see the same entries.
        options: Options for every opening; those of a test win.
        value_bytes: The longest value it takes.
    """

    real_time = False
    direct = True
    restartable = False

    def __init__(
        self,
        url: str,
        *,
        capabilities: frozenset[Capability] = frozenset(),
        shared: bool = False,
        options: Mapping[str, object] | None = None,
        value_bytes: int = _STORED_AT_MOST,
    ) -> None:
        self.url = url
        self.capabilities = capabilities
        self.shared = shared
        self.options = dict(options or {})
        self.value_bytes = value_bytes
        self.tick = 1.0
        self.clock = FakeClock(time.time())

    @asynccontextmanager
    async def open(self, *, require: Sequence[Capability] = (), **options: object) -> AsyncIterator[Cache]:
        """See the protocol."""
        request = Request(url=self.url, options=self.options | options, require=require)
        async with AsyncExitStack() as stack:
            live = await enter_cache(stack, request, Environment(clock=self.clock))
            yield live.portable

    @asynccontextmanager
    async def open_bare(self, **options: object) -> AsyncIterator[CacheDriver]:
        """Open the provider without layers, except for the one that maps its client's exceptions."""
        settings = split(Request(url=self.url, options=self.options | options), CacheOptions)
        async with AsyncExitStack() as stack:
            driver = make(REGISTRY, settings, (), Environment(clock=self.clock), "default")
            start = getattr(driver, "start", None)
            if start is not None:
                await start(stack)
            yield bind(CacheDriver, cast(CacheDriver, driver), [classify()])

    async def advance(self, seconds: float) -> None:
        """See the protocol."""
        self.clock.advance(seconds)

    async def jump(self, seconds: float) -> None:
        """See the protocol."""
        self.clock.advance(seconds)

    async def stop(self) -> None:
        """See the protocol.

        Raises:
            Unsupported: Always; there is no server.
        """
        raise Unsupported(f"{self.url} has no server that a test may stop")

    async def restart(self) -> None:
        """See the protocol.

        Raises:
            Unsupported: Always; there is no server.
        """
        await self.stop()


class ServerHarness(EmbeddedHarness):
    """A provider whose store is a server with a clock of its own.

    Args:
        url: What to open; the provider must have the option ``namespace``, and each harness has one of its own.
        capabilities: What it claims.
        tick: See the protocol.
        options: Options for every opening; those of a test win.
        value_bytes: The longest value it takes.
        server: The server, where it may be stopped; None where it belongs to others.
    """

    real_time = True

    def __init__(
        self,
        url: str,
        *,
        capabilities: frozenset[Capability] = frozenset(),
        tick: float = 0.25,
        options: Mapping[str, object] | None = None,
        value_bytes: int = _STORED_AT_MOST,
        server: OwnedServer | None = None,
    ) -> None:
        given = {"namespace": f"conformance-{fresh_id()}", **(options or {})}
        super().__init__(url, capabilities=capabilities, shared=True, options=given, value_bytes=value_bytes)
        self.tick = tick
        self._server = server
        self.restartable = server is not None

    async def advance(self, seconds: float) -> None:
        """See the protocol; this takes real time."""
        steps = max(1, round(seconds / _STEP))
        for _ in range(steps):  # Both clocks go together, for a provider may read both.
            await asyncio.sleep(seconds / steps)
            self.clock.advance(seconds / steps)

    async def stop(self) -> None:
        """See the protocol."""
        if self._server is None:
            await super().stop()
        else:
            await asyncio.to_thread(self._server.stop)

    async def restart(self) -> None:
        """See the protocol."""
        if self._server is None:
            await super().restart()
        else:
            await asyncio.to_thread(self._server.restart)

    async def clean(self) -> None:
        """Delete what the test stored, for the server may belong to others."""
        async with self.open() as cache:
            await cache.clear()


async def passes(harness: Harness, condition: Callable[[], Awaitable[bool]], *, ticks: float) -> bool:
    """Let so many ticks pass, then up to two more until the condition holds, for stores that expire late.

    Returns:
        Whether it held.
    """
    await harness.advance(ticks * harness.tick)
    for _ in range(4):
        if await condition():
            return True
        await harness.advance(harness.tick / 2)
    return await condition()
