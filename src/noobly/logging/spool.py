"""A bounded folder of messages that could not be sent yet: kept in order, over restarts, until they are. Blocking.

Messages stand one after the other in numbered segments. A segment is deleted once all in it was sent, so after a crash
some of its messages are sent again: whoever takes them must know them by their id.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_HEAD = struct.Struct("<II")
_SEGMENTS = 16
"""Segments that a full spool has."""
_PLACES = 64
"""Processes that may use the same folder at once."""


class Spool:
    """Messages of one process; another one that uses the same folder has a place of its own in it.

    Args:
        folder: Where the messages are; it is made for its owner alone, once there is a message.
        most: Bytes it may take; the oldest messages leave first.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._lock = -1
        self._place = folder
        self._segments: deque[Path] = deque()
        self._sizes: dict[Path, int] = {}
        self._pending: deque[bytes] = deque()
        self.lost = 0
        """Bytes of messages that had to leave unsent."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to send."""
        return not self._pending and not self._segments

    def open(self) -> None:
        """Take over what an earlier process left, if it left anything."""
        if self._folder.is_dir():
            self._take_place()

    def close(self) -> None:
        """Leave the place, and what is in it, to the next process."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def add(self, message: bytes) -> None:
        """Keep a message after those that are there.

        Raises:
            OSError: It could not be written.
        """
        if self._lock < 0:
            self._take_place()
        segment = self._writable(len(message))
        start = self._sizes[segment]
        framed = _HEAD.pack(len(message), zlib.crc32(message)) + message
        with segment.open("ab") as file:
            try:
                file.write(framed)
                file.flush()
            except OSError:
                os.ftruncate(file.fileno(), start)
                raise
        self._sizes[segment] += len(framed)
        self._make_room()

    def first(self) -> bytes | None:
        """Return the oldest message; None if there is none."""
        while not self._pending and self._segments:
            # What is written from now on goes to another segment.
            self._pending = deque(_messages(self._segments[0]))
            if not self._pending:
                self._drop_segment()
        return self._pending[0] if self._pending else None

    def sent(self) -> None:
        """Delete the oldest message."""
        self._pending.popleft()
        if not self._pending:
            self._drop_segment()

    def _take_place(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(_PLACES):
            place = self._folder / str(number)
            place.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self._lock, self._place = lock, place
            self._segments = deque(sorted(path for path in place.iterdir() if path.suffix == ".spool"))
            self._sizes = {path: path.stat().st_size for path in self._segments}
            return
        raise OSError(f"{_PLACES} processes use the spool {self._folder} already")

    def _writable(self, more: int) -> Path:
        last = self._segments[-1] if self._segments else None
        reading = bool(self._pending) and len(self._segments) == 1
        if last is not None and not reading and self._sizes[last] + more <= self._most // _SEGMENTS:
            return last
        number = int(last.stem) + 1 if last is not None else 0
        fresh = self._place / f"{number:012d}.spool"
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._segments.append(fresh)
        self._sizes[fresh] = 0
        return fresh

    def _make_room(self) -> None:
        while len(self._segments) > 1 and sum(self._sizes.values()) > self._most:
            self.lost += self._sizes[self._segments[0]]
            self._pending.clear()
            self._drop_segment()

    def _drop_segment(self) -> None:
        segment = self._segments.popleft()
        del self._sizes[segment]
        with suppress(FileNotFoundError):
            segment.unlink()


def _messages(segment: Path) -> Iterator[bytes]:
    """Yield the messages of a segment up to one that a writer did not finish."""
    data = segment.read_bytes() if segment.exists() else b""
    position = 0
    while position + _HEAD.size <= len(data):
        length, check = _HEAD.unpack_from(data, position)
        message = data[position + _HEAD.size : position + _HEAD.size + length]
        if len(message) < length or zlib.crc32(message) != check:
            return
        yield message
        position += _HEAD.size + length
