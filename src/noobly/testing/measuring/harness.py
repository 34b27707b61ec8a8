"""How the measuring suite reaches one provider: opening, time, and what survives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

from noobly.core.scope import Environment
from noobly.layers.opening import Request
from noobly.measuring import Metrics
from noobly.measuring.opening import enter_metrics
from noobly.testing.clock import FakeClock


class MetricHarness(Protocol):
    """What the measuring suite needs to know of a provider and asks of it."""

    clock: FakeClock
    """The only clock that metrics and store read."""
    shared: bool
    """Two metrics opened from this harness see the same samples."""
    durable: bool
    """Samples are still there after closing and opening again."""
    direct: bool
    """The metrics stand beside their store, so their events are to be had here; false for one behind a server."""

    def open(self, **options: object) -> AbstractAsyncContextManager[Metrics]:
        """Open metrics with these options."""
        ...


class EmbeddedMetrics:
    """A provider inside this process.

    Args:
        url: What to open; it is empty at first.
        shared: Whether two metrics opened from the URL see the same samples.
        durable: Whether samples outlive closing.
        options: Options for every opening; those of a test win.
    """

    direct = True

    def __init__(
        self,
        url: str,
        *,
        shared: bool = False,
        durable: bool = False,
        options: Mapping[str, object] | None = None,
    ) -> None:
        self.url = url
        self.shared = shared
        self.durable = durable
        self.options = dict(options or {})
        self.clock = FakeClock()

    @asynccontextmanager
    async def open(self, **options: object) -> AsyncIterator[Metrics]:
        """See the protocol."""
        async with AsyncExitStack() as stack:
            request = Request(url=self.url, options=self.options | options)
            live = await enter_metrics(stack, request, Environment(clock=self.clock))
            await live.check()
            yield live.portable
