"""How the queueing suite reaches one provider: opening, time, restarts, and what the provider claims.

One harness serves one test, and what it opens is empty at first. Write a class with these members for a provider of
your own, or use ``EmbeddedQueues`` and ``ServerQueues``, which do with a URL.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol, Unpack, cast

from noobly.core.binding import bind
from noobly.core.capability import Capability
from noobly.core.clock import fresh_id
from noobly.layers.classify import classify
from noobly.layers.health import Live
from noobly.layers.opening import Request, make, split
from noobly.queueing import QueueOptions, Queues
from noobly.queueing.driver import QueueDriver
from noobly.queueing.opening import enter_queues
from noobly.queueing.providers import REGISTRY
from noobly.testing.store import CHANCE, About, Store

__all__ = ["CHANCE", "EmbeddedQueues", "QueueHarness", "ServerQueues"]

_STORED_AT_MOST = 1024 * 1024


class QueueHarness(Protocol):
    """What the queueing suite needs to know of a provider and asks of it."""

    capabilities: frozenset[Capability]
    """What the provider claims; the suite tests these, and that everything else is refused as Unsupported."""
    shared: bool
    """Two queues opened from this harness see the same messages."""
    durable: bool
    """Messages are still there after closing and opening again."""

    @property
    def real_time(self) -> bool:
        """The store reads a clock of its own, so ``advance`` takes as long as it says."""
        ...

    restartable: bool
    """``stop`` and ``restart`` work, and what was sent outlives them where the provider is durable."""
    direct: bool
    """The queues stand beside their store, so their events are to be had here; false for those behind a server."""
    tick: float
    """The shortest time, in seconds, that the store measures well: lengths of time in the suite are multiples of it."""
    value_bytes: int
    """The longest message the suite shall send."""

    def open(self, *, require: Sequence[Capability] = (), **options: object) -> AbstractAsyncContextManager[Queues]:
        """Open queues with these options; all queues of one harness share their messages, if they share anything."""
        ...

    def open_bare(self, **options: object) -> AbstractAsyncContextManager[QueueDriver]:
        """Open the provider without layers, for what no sender of ours does.

        It sees the messages of queues that are open; where two openings share nothing, it is the driver of the queues
        that were opened last.
        """
        ...

    def now(self) -> float:
        """Return the time that messages bear, in seconds since the epoch; the store's may differ a little."""
        ...

    async def advance(self, seconds: float) -> None:
        """Let time pass for the queues and for their store, at once where their clock can be set."""
        ...

    async def elapse(self, seconds: float) -> None:
        """Let time pass as slowly as it really does, so that what works by itself, as heartbeats do, has its turn."""
        ...

    async def stop(self) -> None:
        """End the store."""
        ...

    async def restart(self) -> None:
        """End the store, if it runs, and start it."""
        ...


class EmbeddedQueues(Store[Queues]):
    """A provider inside this process, whose only clock is that of the queues.

    Args:
        url: What to open.
        value_bytes: The longest message it takes.
        **about: What ``Store`` takes: ``capabilities``, ``shared``, ``durable``, ``options``, ``tick``.
    """

    def __init__(self, url: str, *, value_bytes: int = _STORED_AT_MOST, **about: Unpack[About]) -> None:
        super().__init__(url, **about)
        self.value_bytes = value_bytes
        self.under: QueueDriver | None = None

    async def enter(self, stack: AsyncExitStack, request: Request) -> Live[Queues]:
        """See ``Store``."""
        live = await enter_queues(stack, request, self.environment())
        self.under = live.portable._driver
        return live

    @asynccontextmanager
    async def open_bare(self, **options: object) -> AsyncIterator[QueueDriver]:
        """See the protocol."""
        if self.under is not None and not self.shared:
            yield self.under
            return
        settings = split(Request(url=self.url, options=self.options | options), QueueOptions)
        async with AsyncExitStack() as stack:
            driver = make(REGISTRY, settings, (), self.environment(), "default")
            start = getattr(driver, "start", None)
            if start is not None:
                await start(stack)
            yield bind(QueueDriver, cast(QueueDriver, driver), [classify()])


class ServerQueues(EmbeddedQueues):
    """A provider whose store is a server with a clock of its own.

    Args:
        url: What to open; the provider must have the option ``namespace``, and each harness has one of its own.
        value_bytes: The longest message it takes.
        **about: What ``Store`` takes, ``server`` included.
    """

    def __init__(self, url: str, *, value_bytes: int = _STORED_AT_MOST, **about: Unpack[About]) -> None:
        named = {"namespace": f"conformance-{fresh_id()}", **about.get("options", {})}
        usual: About = {"shared": True, "durable": True, "real_time": True, "tick": 0.25}
        super().__init__(url, value_bytes=value_bytes, **(usual | about | About(options=named)))

    async def clean(self) -> None:
        """Delete the queues of the test, for the server may belong to others."""
        async with self.open_bare() as driver:
            for queue in await driver.queues():
                await driver.purge(queue)
