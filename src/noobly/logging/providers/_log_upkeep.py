"""What is done to rotated log files in the background: compressing, dropping, purging. Everything here blocks.

Whoever changes a rotated file holds a lock on the file itself, so that of several processes one does it.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from noobly.logging.driver import Query
from noobly.logging.providers._log_file import LogFile
from noobly.logging.providers._log_reading import Part, opened, parts
from noobly.logging.providers._names import PACKED, UNFINISHED, Rotated, rotated
from noobly.logging.query import condition

_BLOCK = 256 * 1024
_EFFORT = 3
"""The level of gzip: files become a fifth larger than with the highest one, in a seventh of its time."""


class Retention(NamedTuple):
    """What is kept of a log: so many rotated files, so many seconds, so many bytes in all; None for no bound."""

    files: int | None
    seconds: float | None
    size: int | None


class Upkeep:
    """Looks after the rotated files of a log.

    Args:
        path: The log's current file.
        retention: What is kept.
        compress: Whether rotated files are compressed.
        now: Returns the wall-clock time in seconds.
    """

    def __init__(self, path: Path, retention: Retention, *, compress: bool, now: Callable[[], float]) -> None:
        self._path = path
        self._retention = retention
        self._compress = compress
        self._now = now
        self.trouble: OSError | None = None
        """Why the last round was not finished."""

    def round(self) -> None:
        """Compress what is not, and drop what is over the bounds then; a failure is kept in ``trouble``."""
        trouble: OSError | None = None
        # On a full disk nothing can be compressed, but dropping still makes room.
        for step in (self._pack, self._drop):
            try:
                step()
            except OSError as error:
                trouble = trouble or error
        self.trouble = trouble

    def _pack(self) -> None:
        for one in rotated(self._path) if self._compress else ():
            if not one.packed:
                _pack(one.path)

    def _drop(self) -> None:
        found = rotated(self._path)
        ends = [one.began for one in found[1:]]
        surplus = 0 if self._retention.files is None else max(len(found) - self._retention.files, 0)
        if self._retention.seconds is not None:
            oldest = (self._now() - self._retention.seconds) * 1e6
            surplus = max(surplus, sum(end <= oldest for end in ends))
        if self._retention.size is not None:
            surplus = max(surplus, _surplus(found, self._retention.size - _size(self._path)))
        for one in found[:surplus]:
            one.path.unlink(missing_ok=True)


def purge(log: LogFile, path: Path, before: int) -> int:
    """Delete the records older than ``before``; files that hold others, too, are written anew."""
    older = Query(until=before)
    meant = condition(older)
    with closing(parts(log, older)) as found:
        if any(meant(line) is not None for _, line in next(found).forwards()):
            log.rotate()
    return sum(_purge(one, lambda line: meant(line) is not None) for one in rotated(path))


def _purge(one: Rotated, unwanted: Callable[[bytes], bool]) -> int:
    with _held(one.path) as held, opened(one) as file:
        if held is None or file is None:
            return 0
        gone = kept = 0
        for _, line in Part(one.began, file).forwards():
            gone, kept = (gone + 1, kept) if unwanted(line) else (gone, kept + 1)
        if gone and kept:
            file.seek(0)
            _rewrite(one, (line for _, line in Part(one.began, file).forwards() if not unwanted(line)))
        elif gone:
            one.path.unlink(missing_ok=True)
        return gone


def _rewrite(one: Rotated, lines: Iterator[bytes]) -> None:
    with _replacement(one.path, one.path.stat().st_mode) as file:
        if not one.packed:
            file.writelines(line + b"\n" for line in lines)
            return
        with _packing(file) as packed:
            packed.writelines(line + b"\n" for line in lines)


def _pack(path: Path) -> None:
    with _held(path) as source:
        if source is None:
            return
        target = path.with_name(f"{path.name}{PACKED}")
        mode = path.stat().st_mode
        with _replacement(target, mode) as file, _packing(file) as packed:
            shutil.copyfileobj(source, packed, _BLOCK)
        path.unlink()


def _packing(file: BinaryIO) -> gzip.GzipFile:
    return gzip.GzipFile(fileobj=file, mode="wb", compresslevel=_EFFORT, mtime=0)


@contextmanager
def _replacement(path: Path, mode: int) -> Iterator[BinaryIO]:
    """Write a file that takes a name in one step once it is whole and on the disk."""
    unfinished = path.with_name(f"{path.name}{UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            os.fchmod(file.fileno(), mode & 0o777)
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def _held(path: Path) -> Iterator[BinaryIO | None]:
    """Open a file that no other process is changing; None where one is, or where the file is gone."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield None
        return
    with file:
        yield file if _alone(path, file) else None


def _alone(path: Path, file: BinaryIO) -> bool:
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have been replaced between opening and locking.
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


def _surplus(found: list[Rotated], allowed: int) -> int:
    """Return how many of the oldest files must go so that the others fit."""
    kept = 0
    for place in range(len(found) - 1, -1, -1):
        kept += _size(found[place].path)
        if kept > allowed:
            return place + 1
    return 0


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
