"""Word between the processes of one machine that share a file: one gives a signal, all that watch the file hear it.

A signal is a new time stamp of the file. Linux reports it through inotify, so to watch costs nothing while it is quiet
(https://man7.org/linux/man-pages/man7/inotify.7.html); elsewhere the time stamp is looked at, over and over.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

__all__ = ["FileSignal"]

_IN_ATTRIB = 0x4
"""The event of a changed time stamp."""

_PAUSE = 0.01
"""Seconds between two looks at the time stamp, where the system does not report it."""


class FileSignal:
    """A signal by way of one file; ``start`` begins to watch it and registers its end.

    A signal says only that something has happened. It is lost where nobody watches, and where the file may not be
    touched by its user, so whoever waits for one should look for himself every now and then.

    Args:
        path: The file; it exists when the watch begins.
        heard: Called on the loop after signals of any process, this one included; once for several in a row.
    """

    def __init__(self, path: str | Path, heard: Callable[[], None]) -> None:
        self._path = os.fspath(path)
        self._heard = heard
        self._giving = False

    async def start(self, stack: AsyncExitStack) -> None:
        """Begin to watch."""
        self._loop = asyncio.get_running_loop()
        watch = _inotify(self._path)
        if watch is None:
            self._stamp = self._stamped()
            self._timer = self._loop.call_later(_PAUSE, self._look)
            stack.callback(self._end_looking)
            return
        stack.callback(os.close, watch)
        self._loop.add_reader(watch, self._read, watch)
        stack.callback(self._loop.remove_reader, watch)

    def give(self) -> None:
        """Give a signal; several of one turn of the loop become one."""
        if not self._giving:
            self._giving = True
            self._loop.call_soon(self._touch)

    def _touch(self) -> None:
        self._giving = False
        now = time.time_ns()
        # By name: to open and close the file would drop the locks that SQLite has on it in this process.
        with suppress(OSError):
            os.utime(self._path, ns=(now, now))

    def _read(self, watch: int) -> None:
        with suppress(BlockingIOError):
            os.read(watch, 65536)
        self._heard()

    def _look(self) -> None:
        self._timer = self._loop.call_later(_PAUSE, self._look)
        stamp = self._stamped()
        if stamp != self._stamp:
            self._stamp = stamp
            self._heard()

    def _end_looking(self) -> None:
        self._timer.cancel()

    def _stamped(self) -> int:
        try:
            return Path(self._path).stat().st_mtime_ns
        except OSError:
            return 0


def _inotify(path: str) -> int | None:
    """Return a descriptor to read events of a file from; None where the system gives none."""
    if sys.platform != "linux":
        return None
    system = ctypes.CDLL(None)
    watch = int(system.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if watch < 0:
        return None
    if system.inotify_add_watch(watch, os.fsencode(path), _IN_ATTRIB) < 0:
        os.close(watch)
        return None
    return watch
