"""Fair turns between the processes that write to one SQLite file.

SQLite lets whoever waits for another writer look again after ever longer pauses, so a process that writes without a
pause keeps all others out. Here whoever waits holds the turn, and who wants to write again has to get the turn first.
Turns only make it fair; what keeps writers apart is SQLite's own lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # There is none on Windows, where writers take turns as SQLite has it.
    fcntl = None  # type: ignore[assignment] # checked on Linux, where it is a module

__all__ = ["Turn"]

_PAUSE = 0.0005
_PATIENCE = 0.1
"""Seconds after which a process does without, for the one that has the turn may have been stopped."""


class Turn:
    """The turn to write to a file: a lock of the log beside it, which the system ends with the process.

    Args:
        path: The file of the database; a connection to it is open for as long as this is used.
    """

    def __init__(self, path: Path) -> None:
        # Of SQLite's files, this is the one that it does not lock itself, so that nothing is lost by closing it.
        log = path.with_name(path.name + "-wal")
        self._log = os.open(log, os.O_RDONLY | os.O_CLOEXEC) if fcntl is not None and log.exists() else None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the turn for the body of a ``with``; after a while, without it."""
        if self._log is None:
            yield
            return
        until = time.monotonic() + _PATIENCE
        while not (taken := _take(self._log)) and time.monotonic() < until:
            time.sleep(_PAUSE)
        try:
            yield
        finally:
            if taken:
                fcntl.flock(self._log, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the turn up for good."""
        if self._log is not None:
            os.close(self._log)
            self._log = None


def _take(log: int) -> bool:
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
