"""How the working suite reaches one provider: opening, time, restarts, and what the provider claims.

One harness serves one test, and what it opens is empty at first. Write a class with these members for a provider of
your own, or use ``EmbeddedJobs`` and ``ServerJobs``, which do with a URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol, Unpack

from noobly.core.capability import Capability
from noobly.layers.health import Live
from noobly.layers.opening import Request
from noobly.testing.store import CHANCE, About, Store
from noobly.working import Jobs
from noobly.working.opening import enter_jobs

__all__ = ["CHANCE", "EmbeddedJobs", "JobHarness", "ServerJobs"]


class JobHarness(Protocol):
    """What the working suite needs to know of a provider and asks of it."""

    capabilities: frozenset[Capability]
    """What the provider claims; the suite tests these, and that everything else is refused as Unsupported."""
    shared: bool
    """Two instances opened from this harness see the same jobs."""
    durable: bool
    """Jobs are still there after closing and opening again."""
    restartable: bool
    """``stop`` and ``restart`` work, and what was added outlives them where the provider is durable."""
    direct: bool
    """The jobs stand beside their store, so its events are to be had here; false for those behind a server."""
    apart: bool
    """A heart in a thread of its own reaches the store, also while the loop of its worker is held up."""
    tick: float
    """The shortest time, in seconds, that the store measures well: lengths of time in the suite are multiples of it."""

    @property
    def real_time(self) -> bool:
        """The store reads a clock of its own, so ``advance`` takes as long as it says."""
        ...

    def open(self, *, require: Sequence[Capability] = (), **options: object) -> AbstractAsyncContextManager[Jobs]:
        """Open jobs with these options; all of one harness share their jobs, if they share anything."""
        ...

    def now(self) -> float:
        """Return the time that jobs bear, in seconds since the epoch; the store's may differ a little."""
        ...

    def flow(self) -> None:
        """Let what is opened from now on read the machine's clock, for workers live in real time."""
        ...

    async def advance(self, seconds: float) -> None:
        """Let time pass for the jobs and for their store, at once where their clock can be set."""
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


class EmbeddedJobs(Store[Jobs]):
    """A provider inside this process, whose only clock is that of the jobs.

    Args:
        url: What to open.
        apart: See the protocol.
        **about: What ``Store`` takes: ``capabilities``, ``shared``, ``durable``, ``options``, ``tick``.
    """

    def __init__(self, url: str, *, apart: bool = False, **about: Unpack[About]) -> None:
        super().__init__(url, **about)
        self.apart = apart

    async def enter(self, stack: AsyncExitStack, request: Request) -> Live[Jobs]:
        """See ``Store``."""
        return await enter_jobs(stack, request, self.environment())


class ServerJobs(EmbeddedJobs):
    """A provider whose store is a server, which it reaches by the machine's clock.

    Args:
        url: What to open; the test sees to it that nothing is there.
        **about: What ``Store`` takes, ``server`` included.
    """

    def __init__(self, url: str, **about: Unpack[About]) -> None:
        usual: About = {"shared": True, "durable": True, "real_time": True, "tick": 0.25}
        super().__init__(url, apart=True, **(usual | about))
