"""Deadline: the whole call ends in its time. One timer sweeps all calls of an instance, so a call costs no timer."""

from __future__ import annotations

import asyncio
from itertools import takewhile

import msgspec

from noobly.core.errors import DeadlineExceeded

_TICKS = 20
"""The sweep runs this often within one timeout, so a call may last 1/20 longer than it should."""


class Watched(msgspec.Struct, eq=False):
    """A call under way, and how often its task was asked to end before it began."""

    task: asyncio.Task[object] | None
    cancelling: int
    due: float
    expired: bool = False


class Sweep:
    """Cancels calls whose time is over, the first one first; ``loop`` is where the next sweep is planned, if any."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.calls: dict[Watched, None] = {}
        self.loop: asyncio.AbstractEventLoop | None = None

    def watch(self) -> Watched:
        """Begin to watch the current task's call, until it is taken out of ``calls``."""
        loop = self.loop or self.begin()
        task = asyncio.current_task(loop)
        watched = Watched(task, task.cancelling() if task else 0, loop.time() + self.timeout)
        self.calls[watched] = None
        return watched

    def missed(self, watched: Watched, error: BaseException, operation: str) -> DeadlineExceeded | None:
        """Return what a call's error really is if the sweep ended it; None if something else did."""
        if not (watched.expired and watched.task and isinstance(error, asyncio.CancelledError)):
            return None
        if watched.task.uncancel() > watched.cancelling:
            return None
        return DeadlineExceeded(f"{operation} took over {self.timeout} s")

    def begin(self) -> asyncio.AbstractEventLoop:
        """Plan the next sweep."""
        self.loop = loop = asyncio.get_running_loop()
        loop.call_later(self.timeout / _TICKS, self.sweep, loop)
        return loop

    def sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the calls whose time is over."""
        now = loop.time()
        for watched in list(takewhile(lambda call: call.due <= now, self.calls)):
            del self.calls[watched]
            if watched.task is not None:
                watched.expired = True
                watched.task.cancel()
        self.loop = None
        if self.calls:
            self.begin()
