"""Lifetimes: each service lives on one exit stack, owns its tasks, and ends in reverse order of its beginning."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Protocol, Self, TypeVar

from noobly.core.config import Config
from noobly.core.errors import NooblyError, NotFound
from noobly.core.scope import Scope

T = TypeVar("T")

_log = logging.getLogger("noobly.lifecycle")


class Startable(Protocol):
    """A provider that opens something."""

    async def start(self, stack: AsyncExitStack) -> None:
        """Open what it needs and register on the stack how each thing is closed."""
        ...


class Tasks:
    """The background tasks of one service: each is held, and cancelled and awaited when the service ends."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[object]] = set()

    def spawn(self, work: Coroutine[object, object, T], name: str) -> asyncio.Task[T]:
        """Start work that outlives the call; an error nobody awaits is logged."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def complete(self, work: Coroutine[object, object, T], name: str) -> T:
        """Do work to its end, also where the caller is cancelled meanwhile; the cancellation goes on afterwards.

        Args:
            work: What must not be left half done; it ends by itself before long.
            name: What it is, for the name of its task.

        Returns:
            What the work returns.
        """
        task = self.spawn(work, name)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        return task.result()

    def _done(self, task: asyncio.Task[T]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, NooblyError):
            _log.debug("background task %s ended with %r", task.get_name(), error)

    async def close(self, *, patience: float = 0.0) -> None:
        """Cancel all tasks and wait until they have ended.

        Args:
            patience: Seconds that they, and what they start, have to end by themselves first.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while self._running and (left := until - loop.time()) > 0:
            await asyncio.wait(self._running, timeout=left)
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class Handle:
    """Base of what portable types hand out that has async methods of its own, which the blocking facade makes plain."""


class Portable:
    """Base of what users hold of a service: one instance, which knows its siblings by name."""

    service = ""

    def _begin(self, scope: Scope, options: Config) -> None:
        """Prepare what the sugar needs; the remote client begins with this alone."""
        self.siblings: dict[str, Self] = {}
        self.capabilities: frozenset[str] = frozenset()
        self.scope = scope

    async def _end(self) -> None:
        """End what ``_begin`` began."""

    async def start(self) -> None:
        """Begin what takes time; an instance on another server has nothing to begin."""

    async def close(self) -> None:
        """End it; whatever is asked of it afterwards raises ``Closed``."""
        await self._end()

    def __getitem__(self, instance: str) -> Self:
        """Return the sibling with this name: ``noobly.caching["sessions"]``.

        Raises:
            NotFound: No instance of this service has the name; the message lists those that are configured.
        """
        if instance in self.siblings:
            return self.siblings[instance]
        known = ", ".join(sorted(self.siblings)) or "none"
        raise NotFound(f"no {self.service} instance is named {instance!r}; configured are {known}")
