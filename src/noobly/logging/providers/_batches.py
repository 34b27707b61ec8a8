"""The journal of the latest batches of a log file: which were stored, also before a restart and by other processes.

A batch is announced before it is written. Whoever finds the last announced batch incomplete knows that its writer
died over it, and where it began; so a batch is in the file once and as a whole, or not at all. Everything here blocks,
and is called with the file's lock held.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import NamedTuple

_ENTRY = struct.Struct("<16sQQQ")
_MOST = 4096
_KEPT = 2048


class Announced(NamedTuple):
    """A batch as it was announced: its id's digest, and the file and positions it was to fill."""

    digest: bytes
    inode: int
    start: int
    end: int


class Batches:
    """Remembers between 2,048 and 4,096 batches.

    Args:
        path: The journal's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._size = 0
        self._digests: set[bytes] = set()
        self._last: Announced | None = None

    def refresh(self) -> Announced | None:
        """Read what others announced; return the last of all where it came from another process."""
        status = self._opened()
        if status.st_size == self._size:
            return None
        if status.st_size < self._size:
            self._forget()
        whole = status.st_size - status.st_size % _ENTRY.size
        os.ftruncate(self._file, whole)
        for entry in _ENTRY.iter_unpack(os.pread(self._file, whole - self._size, self._size)):
            self._last = Announced(*entry)
            self._digests.add(self._last.digest)
        self._size = whole
        return self._last

    def has(self, batch: str) -> bool:
        """Return whether a batch was stored; ``refresh`` comes first."""
        return _digest(batch) in self._digests

    def announce(self, batch: str, inode: int, start: int, end: int) -> None:
        """Write down that a batch is about to be written."""
        if self._size >= _MOST * _ENTRY.size:
            self._shorten()
        entry = Announced(_digest(batch), inode, start, end)
        packed = _ENTRY.pack(*entry)
        try:
            written = os.pwrite(self._file, packed, self._size)
            if written < len(packed):
                os.pwrite(self._file, packed[written:], self._size + written)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._digests.add(entry.digest)
        self._last = entry
        self._size += _ENTRY.size

    def retract(self) -> None:
        """Forget the batch announced last, which was not stored."""
        if self._last is not None:
            self._digests.discard(self._last.digest)
            self._size -= _ENTRY.size
            os.ftruncate(self._file, self._size)
            self._last = None

    def close(self) -> None:
        """Close the journal's file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _opened(self) -> os.stat_result:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            status = None
        if self._file < 0 or status is None or not os.path.samestat(status, os.fstat(self._file)):
            self.close()
            self._forget()
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(self._path, flags, 0o600)
        return os.fstat(self._file)

    def _forget(self) -> None:
        self._size = 0
        self._digests.clear()
        self._last = None

    def _shorten(self) -> None:
        kept = os.pread(self._file, _KEPT * _ENTRY.size, self._size - _KEPT * _ENTRY.size)
        shorter = self._path.with_name(f"{self._path.name}.new")
        shorter.write_bytes(kept)
        shorter.chmod(0o600)
        shorter.replace(self._path)
        self.refresh()


def _digest(batch: str) -> bytes:
    return hashlib.blake2b(batch.encode(), digest_size=16).digest()
