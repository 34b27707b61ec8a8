"""Waiting for rows of an SQLite file without asking for them over and over.

Who waits is woken when this process says that something has arrived, when another process on the machine does and a
look at the file confirms it, and when something comes due. A wake is a hint: whoever is woken looks for himself, and
looks again after a while without one.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from noobly.clients.file_signal import FileSignal
from noobly.clients.sqlite import Database
from noobly.core.lifecycle import Tasks

__all__ = ["Arrivals", "Glimpse", "Look"]


class Glimpse(NamedTuple):
    """What a look at one name has found.

    Args:
        ready: How many rows could be taken now; counted no further than was asked.
        due: Seconds until the next row comes due; None where none will.
    """

    ready: int
    due: float | None


_EVERYBODY = 1_000_000
"""More than may ever wait."""

Look = Callable[[sqlite3.Connection, Mapping[str, int]], Mapping[str, Glimpse]]
"""Looks for rows of several names, each counted up to a number; it only reads."""


class Arrivals:
    """Those who wait for rows, by name; ``start`` begins to watch the file and registers its end.

    Args:
        path: The file of the database.
        database: Where to look; it is open when the watch begins.
        look: What to look for.
    """

    def __init__(self, path: str | Path, database: Database, look: Look) -> None:
        self._database = database
        self._look = look
        self._waiting: dict[str, dict[asyncio.Future[None], float]] = {}
        self._signal = FileSignal(path, self._heard)
        self._changed = asyncio.Event()
        self.heard = 0

    async def start(self, stack: AsyncExitStack) -> None:
        """Begin to watch."""
        self._loop = asyncio.get_running_loop()
        tasks = Tasks()
        stack.push_async_callback(tasks.close)
        await self._signal.start(stack)
        tasks.spawn(self._watch(), "watch for arrivals of other processes")

    def tell(self, name: str, count: int) -> None:
        """Say that rows of a name have arrived: wake that many who wait for it here, and tell other processes."""
        self.wake(name, count)
        self._signal.give()

    def tell_all(self, names: Iterable[str]) -> None:
        """Say that something has changed for all who wait for some names, here and in other processes."""
        if self._waiting:  # Names may be many, and are only made up as they are asked for.
            for name in names:
                self.wake(name, _EVERYBODY)
        self._signal.give()

    def wake(self, name: str, count: int) -> None:
        """Wake up to ``count`` who wait for a name in this process."""
        for future in self._waiting.get(name, ()):
            if count <= 0:
                return
            if not future.done():
                future.set_result(None)
                count -= 1

    async def wait(self, name: str, heard: int, pause: float) -> None:
        """Wait until rows of a name may have arrived, ``pause`` seconds at most.

        Args:
            name: The name.
            heard: The attribute ``heard`` before the last look, so that nothing is missed which came since.
            pause: Seconds.
        """
        if heard != self.heard:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.setdefault(name, {})[future] = self._loop.time() + pause
        timer = self._loop.call_later(pause, _settle, future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.wake(name, 1)  # It was meant for somebody who can still take it.
            raise
        finally:
            timer.cancel()
            self._forget(name, future)

    def _forget(self, name: str, future: asyncio.Future[None]) -> None:
        waiting = self._waiting[name]
        del waiting[future]
        if not waiting:
            del self._waiting[name]

    def _heard(self) -> None:
        self.heard += 1
        self._changed.set()

    async def _watch(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._waiting:
                with suppress(sqlite3.Error):  # Those who wait will look for themselves.
                    await self._wake_waiting({name: len(waiting) for name, waiting in self._waiting.items()})

    async def _wake_waiting(self, asked: Mapping[str, int]) -> None:
        found = await self._database.read(lambda connection: self._look(connection, asked))
        now = self._loop.time()
        for name, glimpse in found.items():
            self.wake(name, glimpse.ready)
            if glimpse.ready == 0 and glimpse.due is not None and self._sleeps_beyond(name, now + glimpse.due):
                self.wake(name, 1)

    def _sleeps_beyond(self, name: str, due: float) -> bool:
        """Return whether nobody who waits for a name will look by himself when something comes due."""
        waiting: Sequence[float] = tuple(self._waiting.get(name, {}).values())
        return bool(waiting) and min(waiting) > due + 0.001


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
