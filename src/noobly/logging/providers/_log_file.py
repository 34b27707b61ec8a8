"""The file that log lines are appended to, by several processes, and its rotation. Everything here blocks."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import tzinfo
from pathlib import Path
from typing import NamedTuple

from noobly.logging.providers import _rotation
from noobly.logging.providers._batches import Announced, Batches
from noobly.logging.providers._names import Rotated, rotated, rotated_name

_PATIENCE = 5.0
"""Seconds to wait for another process that holds the lock."""
_BLOCK = 64 * 1024
_MODE = 0o600


class Schedule(NamedTuple):
    """When to rotate: at so many bytes, and whenever a period of a zone's calendar is over."""

    max_bytes: int
    period: _rotation.Period
    zone: tzinfo | None


class Parts(NamedTuple):
    """All files of a log at one moment: the current one, opened for reading, and the rotated ones, oldest first."""

    began: int
    current: int
    size: int
    rotated: list[Rotated]


class LogFile:
    """One file for all processes that name it; each change is made with its lock held, in a file beside it.

    The lock's file also says when the current file was begun, which becomes its name when it is rotated.

    Args:
        path: The file.
        schedule: When it is rotated.
        now: Returns the wall-clock time in seconds.
    """

    def __init__(self, path: Path, schedule: Schedule, now: Callable[[], float]) -> None:
        self._path = path
        self._schedule = schedule
        self._now = now
        self._threads = threading.Lock()
        self._batches = Batches(path.with_name(f"{path.name}.batches"))
        self._lock = self._file = -1
        self.rotations = 0
        """How often this process has rotated the file."""
        self.trouble: OSError | None = None
        """Why the file could not be rotated when it should have been; it is written to all the same."""

    def append(self, batch: str, data: bytes) -> None:
        """Append a batch in one piece, unless it is there already.

        Raises:
            OSError: It could not be stored; the file is as it was before.
        """
        with self._locked():
            self._mend(self._batches.refresh())
            if self._batches.has(batch):
                return
            self._rotate_when_due(len(data))
            start = self._size()
            self._batches.announce(batch, os.fstat(self._file).st_ino, start, start + len(data))
            try:
                _write(self._file, data)
            except OSError:
                os.ftruncate(self._file, start)
                self._batches.retract()
                raise

    def sync(self) -> None:
        """Return when everything appended so far is on the disk."""
        with self._threads:
            file = os.dup(self._file) if self._file >= 0 else -1
        if file >= 0:
            try:
                os.fsync(file)
            finally:
                os.close(file)

    def check(self) -> None:
        """Open the file if it is not, and see that it can be written to."""
        with self._locked():
            self._size()

    def parts(self) -> Parts:
        """Return all files as they are together at this moment; the caller closes the current one."""
        with self._locked():
            current = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            return Parts(self._began(), current, self._size(), rotated(self._path))

    def rotate(self) -> None:
        """Begin a new file, so that the current one may be changed."""
        with self._locked():
            self._rotate()

    def close(self) -> None:
        """Close the files."""
        with self._threads:
            self._batches.close()
            for file in (self._file, self._lock):
                if file >= 0:
                    os.close(file)
            self._file = self._lock = -1

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other threads and processes away, and have the right file open."""
        with self._threads:
            self._open_lock()
            _acquire(self._lock)
            try:
                self._follow()
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _open_lock(self) -> None:
        """Open the lock that others would open, also where somebody removed it, or the whole folder."""
        lock = self._path.with_name(f"{self._path.name}.lock")
        with suppress(FileNotFoundError):
            if self._lock >= 0 and os.path.samestat(lock.stat(), os.fstat(self._lock)):
                return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = opened

    def _follow(self) -> None:
        """Open the file that has the name now, for others rotate too."""
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return self._begin(_MODE)
        if self._file < 0 or not os.path.samestat(found, os.fstat(self._file)):
            self._open(_MODE)
            if self._noted()[1] != found.st_ino:
                # No rotation of ours made it: it was there before, or another program rotates.
                self._note(min(round(found.st_mtime * 1e6), self._micros()))
        return None

    def _open(self, mode: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        opened = os.open(self._path, flags, mode)
        if self._file >= 0:
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)
                self._file = opened
        self._file = opened

    def _begin(self, mode: int) -> None:
        self._open(mode)
        self._note(self._micros())

    def _note(self, began: int) -> None:
        """Write down when the current file was begun: later than all before it, whatever the clock says."""
        last = max((one.began for one in rotated(self._path)), default=0)
        text = b"%d %d\n" % (max(began, last + 1, self._noted()[0] + 1), os.fstat(self._file).st_ino)
        os.pwrite(self._lock, text, 0)
        os.ftruncate(self._lock, len(text))

    def _noted(self) -> tuple[int, int]:
        began, _, inode = os.pread(self._lock, 64, 0).partition(b" ")
        return (int(began), int(inode)) if began.isdigit() and inode.strip().isdigit() else (0, 0)

    def _began(self) -> int:
        return self._noted()[0]

    def _size(self) -> int:
        return os.fstat(self._file).st_size

    def _micros(self) -> int:
        return round(self._now() * 1e6)

    def _mend(self, last: Announced | None) -> None:
        """Take away what a writer that died left of its batch, and of a line that has no end."""
        size = self._size()
        if last is not None and last.inode == os.fstat(self._file).st_ino and last.end > size:
            self._batches.retract()
            if last.start < size:
                os.ftruncate(self._file, last.start)
                size = last.start
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.ftruncate(self._file, _end_of_lines(self._file, size))

    def _rotate_when_due(self, more: int) -> None:
        size, schedule = self._size(), self._schedule
        if size and (size + more > schedule.max_bytes or self._period_over()):
            try:
                self._rotate()
            except OSError as error:
                self.trouble = error
                self._follow()  # Where the file was renamed and no other could be made, nothing may be written to it.
            else:
                self.trouble = None

    def _period_over(self) -> bool:
        period, zone = self._schedule.period, self._schedule.zone
        return _rotation.began(self._micros(), period, zone) > _rotation.began(self._began(), period, zone)

    def _rotate(self) -> None:
        mode = os.fstat(self._file).st_mode & 0o777
        self._path.rename(rotated_name(self._path, self._began()))
        self.rotations += 1
        self._begin(mode)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _end_of_lines(file: int, size: int) -> int:
    while size:
        start = max(size - _BLOCK, 0)
        newline = os.pread(file, size - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        size = start
    return 0


def _acquire(lock: int) -> None:
    waited, pause = 0.0, 0.0002
    while True:
        try:
            # Not the waiting form: a process that was stopped while it holds the lock would hold this thread too.
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if waited > _PATIENCE:
                raise TimeoutError(f"another process has held the lock of the log for {_PATIENCE} s") from error
        time.sleep(pause)
        waited, pause = waited + pause, min(pause * 2, 0.02)
