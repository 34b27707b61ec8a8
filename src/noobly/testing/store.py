"""What the harnesses of all suites have in common: opening a provider by its URL, its time, its server."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Generic, TypedDict, TypeVar, Unpack

from noobly.core.capability import Capability
from noobly.core.clock import Clock, SystemClock
from noobly.core.errors import Unsupported
from noobly.core.lifecycle import Portable
from noobly.core.scope import Environment
from noobly.layers.health import Live
from noobly.layers.opening import Request
from noobly.testing.clock import FakeClock, FixedChance
from noobly.testing.servers import OwnedServer

P = TypeVar("P", bound=Portable)

CHANCE = 0.5
"""What chance always draws in a suite, so that a pause with jitter is half its bound."""

_STEP = 0.02


class About(TypedDict, total=False):
    """What is known of a provider; all is false, and the tick 0.1, where nothing is said."""

    capabilities: frozenset[Capability]
    """What it claims."""
    shared: bool
    """Two instances opened from the URL see the same."""
    durable: bool
    """What it keeps outlives closing."""
    options: Mapping[str, object]
    """Options for every opening; those of a test win."""
    tick: float
    """The shortest time, in seconds, that it measures well."""
    real_time: bool
    """It reads a clock of its own; else its clock stands still until ``advance``."""
    server: OwnedServer | None
    """Its server, where it may be stopped."""


class Store(ABC, Generic[P]):
    """A provider under test.

    Args:
        url: What to open.
        **about: What is known of it.
    """

    direct = True

    def __init__(self, url: str, **about: Unpack[About]) -> None:
        self.url = url
        self.capabilities = about.get("capabilities", frozenset())
        self.shared = about.get("shared", False)
        self.durable = about.get("durable", False)
        self.options = dict(about.get("options", {}))
        self.tick = about.get("tick", 0.1)
        self._server = about.get("server")
        self.restartable = self._server is not None
        self._fake: FakeClock | None = None if about.get("real_time") else FakeClock(time.time())

    @property
    def real_time(self) -> bool:
        """Whether ``advance`` takes as long as it says."""
        return self._fake is None

    @property
    def clock(self) -> Clock:
        """The clock that is handed to what is opened."""
        return self._fake or SystemClock()

    def environment(self) -> Environment:
        """Return what each opening is handed: its clock, and a chance that always draws the same."""
        return Environment(clock=self.clock, chance=FixedChance(CHANCE))

    @abstractmethod
    async def enter(self, stack: AsyncExitStack, request: Request) -> Live[P]:
        """Open an instance whose end is registered on a stack."""
        ...

    @asynccontextmanager
    async def open(self, *, require: Sequence[Capability] = (), **options: object) -> AsyncIterator[P]:
        """Open an instance with these options; all of one harness share what they keep, if they share anything."""
        request = Request(url=self.url, options=self.options | options, require=require)
        async with AsyncExitStack() as stack:
            live = await self.enter(stack, request)
            await live.check()
            yield live.portable

    def now(self) -> float:
        """Return the time of what is kept, in seconds since the epoch; the store's may differ a little."""
        return self.clock.time()

    def flow(self) -> None:
        """Let what is opened from now on read the machine's clock."""
        self._fake = None

    async def advance(self, seconds: float) -> None:
        """Let time pass for the store, at once where its clock can be set."""
        if self._fake is None:
            await asyncio.sleep(seconds)
        else:
            self._fake.advance(seconds)

    async def elapse(self, seconds: float) -> None:
        """Let time pass as slowly as it really does, so that what works by itself, as heartbeats do, has its turn."""
        if self._fake is None:
            await asyncio.sleep(seconds)
            return
        steps = max(1, round(seconds / _STEP))
        for _ in range(steps):
            await asyncio.sleep(seconds / steps)
            self._fake.advance(seconds / steps)

    async def stop(self) -> None:
        """End the store.

        Raises:
            Unsupported: It has no server that a test may stop.
        """
        await asyncio.to_thread(self._owned().stop)

    async def restart(self) -> None:
        """End the store, if it runs, and start it.

        Raises:
            Unsupported: It has no server that a test may stop.
        """
        await asyncio.to_thread(self._owned().restart)

    def _owned(self) -> OwnedServer:
        if self._server is None:
            raise Unsupported(f"{self.url} has no server that a test may stop")
        return self._server
