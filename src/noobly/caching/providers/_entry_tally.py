"""What one process knows about the size of a file cache's folder, and when it must look again."""

from __future__ import annotations

import threading
from typing import NamedTuple

import msgspec

from noobly.caching.providers._entry_file import Place, cost


class Bounds(msgspec.Struct, frozen=True):
    """What the folder may hold."""

    bytes: int
    entries: int


class File(NamedTuple):
    """A file of the folder, when it was last used (wall clock) and the bytes of disk it takes."""

    used: float
    cost: int
    place: Place


class Tally:
    """What this process believes to be in the folder; others change it too, so it is counted anew now and then."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._bytes = self._entries = 0
        self._written_bytes = self._written = 0

    def replaced(self, before: int | None, after: int | None) -> None:
        """Note that a file of ``before`` bytes became one of ``after``; None for no file."""
        old, new = (0 if size is None else cost(size) for size in (before, after))
        with self._lock:
            self._bytes += new - old
            self._entries += (after is not None) - (before is not None)
            self._written_bytes += new
            self._written += after is not None

    def due(self) -> bool:
        """Return whether it is time to count, or to delete."""
        often = self._written_bytes > self._bounds.bytes // 8 or self._written > self._bounds.entries // 8 + 1
        return often or self._bytes > self._bounds.bytes or self._entries > self._bounds.entries

    def counted(self, files: list[File]) -> bool:
        """Take what was counted; return whether it is over the bounds."""
        with self._lock:
            self._bytes, self._entries = sum(file.cost for file in files), len(files)
            self._written_bytes = self._written = 0
            return self._bytes > self._bounds.bytes or self._entries > self._bounds.entries

    def roomy(self) -> bool:
        """Return whether a tenth is free, so that eviction does not begin again with the next entry."""
        most = self._bounds
        return self._bytes <= most.bytes - most.bytes // 10 and self._entries <= most.entries - most.entries // 10
