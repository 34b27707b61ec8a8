"""Searching and counting in log files, newest first, in memory that does not grow with them. Everything here blocks."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from noobly.core.errors import InvalidArgument
from noobly.logging.driver import Count, Followed, Found, Query
from noobly.logging.providers._log_file import LogFile
from noobly.logging.providers._names import PACKED, Rotated
from noobly.logging.providers._pages import MOST_COUNTS, PAGE_BYTES, Place, decode, encode, refuse_bucket
from noobly.logging.query import Condition, condition

_BLOCK = 64 * 1024
_LONGEST = 16 * 1024 * 1024
"""Bytes of the longest line that is read."""
_LOOKED = 64 * 1024 * 1024
"""Bytes that one call looks at before it returns what it has, so that it stays short."""
_FOLLOWED = 256 * 1024
"""Bytes of lines after which a reader that follows gets what was found."""
_AHEAD = 3600 * 1_000_000
"""Microseconds that a record's time may be ahead of when it was stored, for it to be found by time in any case."""

Lines = Generator[tuple[int, bytes]]
"""Lines with the positions where they end."""


class Part:
    """One opened file of a log.

    Args:
        began: Its identity.
        file: The file, to be closed by who opened it.
    """

    def __init__(self, began: int, file: BinaryIO) -> None:
        self.began = began
        self._file = file

    def forwards(self) -> Lines:
        """Yield all lines that have an end."""
        position = 0
        while line := self._file.readline(_LONGEST):
            position += len(line)
            if line.endswith(b"\n"):
                yield position, line[:-1]

    def onwards(self, position: int, limit: int, size: int | None = None) -> tuple[list[bytes], int]:
        """Return lines from a position on, up to a size, and the position behind them."""
        lines: list[bytes] = []
        left = _FOLLOWED if size is None else min(_FOLLOWED, size - position)
        if position and self._read(position - 1, position) != b"\n":
            return lines, position  # The file was shortened: what is behind this position was never there.
        self._file.seek(position)
        while left > 0 and len(lines) < limit and (line := self._file.readline(_LONGEST)).endswith(b"\n"):
            lines.append(line[:-1])
            position, left = position + len(line), left - len(line)
        return lines, position

    def backwards(self, end: int | None) -> Lines:
        """Yield the lines before a position, the last one first.

        Raises:
            InvalidArgument: No line ends there.
        """
        size = self._file.seek(0, os.SEEK_END)
        if end is not None and end and (end > size or self._read(end - 1, end) != b"\n"):
            raise InvalidArgument("the log was shortened since this cursor was returned; search anew")
        end, rest = size if end is None else end, b""
        while end:
            start = max(end - _BLOCK, 0)
            block = self._read(start, end) + rest
            first = block.find(b"\n") + 1 if start else 0
            if first or not start:
                yield from _split(block[first:], start + first)
            rest = block[:first] if len(block) < _LONGEST or first else b""
            end = start

    def _read(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        return self._file.read(end - start)


def _split(block: bytes, start: int) -> Lines:
    end = start + block.rfind(b"\n") + 1
    for line in reversed(block[: end - start].split(b"\n")[:-1]):
        yield end, line
        end -= len(line) + 1


class _Page:
    """A page that is being filled."""

    def __init__(self, limit: int) -> None:
        self.lines: list[bytes] = []
        self.looked = 0
        self._limit = limit
        self._size = 0

    @property
    def full(self) -> bool:
        return len(self.lines) >= self._limit or self._size >= PAGE_BYTES

    @property
    def tired(self) -> bool:
        return self.looked >= _LOOKED

    def add(self, line: bytes) -> None:
        self.lines.append(line)
        self._size += len(line)


def search(log: LogFile, query: Query, after: str | None, limit: int) -> Found:
    """Return a page of the lines that a query means; it may be short, or empty, before the end.

    Raises:
        InvalidArgument: The cursor is none of this log.
    """
    place = None if after is None else decode(after)
    page, meant = _Page(limit), condition(query)
    with closing(parts(log, query, place)) as found:
        for part in found:
            end = place.position if place is not None and place.file == part.began else None
            position = _fill(page, part, end, meant)
            if position is not None:
                return Found(page.lines, encode(Place(part.began, position)))
    return Found(page.lines, None)


def _fill(page: _Page, part: Part, end: int | None, meant: Condition) -> int | None:
    """Add lines to a page; return where the next page begins, None where the part has no more."""
    with closing(part.backwards(end)) as lines:
        for position, line in lines:
            page.looked += len(line)
            if meant(line) is not None:
                if page.full:
                    return position
                page.add(line)
            elif page.tired:
                return position - len(line) - 1
    return None


def follow(log: LogFile, after: str | None, limit: int) -> Followed:
    """Return lines of one file that were stored since a place, and the place behind them.

    Raises:
        InvalidArgument: The place is none.
    """
    place = None if after is None else decode(after)
    found = log.parts()
    with os.fdopen(found.current, "rb") as file:
        if place is None or place.file > found.began:
            return Followed([], encode(Place(found.began, found.size)))
        for one in found.rotated:
            if one.began >= place.file:
                lines, position = _onwards(one, place.position if one.began == place.file else 0, limit)
                if lines:
                    return Followed(lines, encode(Place(one.began, position)))
        begin = min(place.position, found.size) if place.file == found.began else 0
        lines, position = Part(found.began, file).onwards(begin, limit, found.size)
        return Followed(lines, encode(Place(found.began, position)))


def _onwards(one: Rotated, position: int, limit: int) -> tuple[list[bytes], int]:
    with opened(one) as file:
        return ([], 0) if file is None else Part(one.began, file).onwards(position, limit)


def count(log: LogFile, query: Query, bucket: int) -> list[Count]:
    """Return counts per level and bucket.

    Raises:
        InvalidArgument: There would be too many.
    """
    meant, counted = condition(query), Counter[tuple[int, str]]()
    with closing(parts(log, query)) as found:
        for part in found:
            for _, line in part.forwards():
                seen = meant(line)
                if seen is not None:
                    counted[seen.at - seen.at % bucket, seen.level] += 1
                    if len(counted) > MOST_COUNTS:
                        refuse_bucket()
    return [Count(at, level, number) for (at, level), number in sorted(counted.items())]


def parts(log: LogFile, query: Query, place: Place | None = None) -> Generator[Part]:
    """Yield the files in which lines may be meant, the newest first, each open until the next one is asked for."""
    found = log.parts()
    newer = found.began
    with os.fdopen(found.current, "rb") as file:
        if place is None or place.file >= newer:
            yield Part(newer, file)
    for one in reversed(found.rotated):
        # All that is in a file was stored before the next one was begun.
        if query.since is not None and newer + _AHEAD < query.since:
            return
        newer = one.began
        if place is not None and one.began > place.file:
            continue
        with opened(one) as unpacked:
            if unpacked is not None:
                yield Part(one.began, unpacked)


@contextmanager
def opened(one: Rotated) -> Iterator[BinaryIO | None]:
    """Open a rotated file, unpacked into a temporary one where it is compressed; None where it is gone."""
    with ExitStack() as stack:
        file = _open(one.path) or _open(one.path.with_name(f"{one.path.name}{PACKED}"))
        if file is not None:
            stack.enter_context(file)
            if file.name.endswith(PACKED):
                file = stack.enter_context(_unpacked(file))
        yield file


def _open(path: Path) -> BinaryIO | None:
    with suppress(FileNotFoundError):
        return path.open("rb")
    return None


@contextmanager
def _unpacked(packed: BinaryIO) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        # Of a damaged file what comes before the damage is there.
        with suppress(EOFError, gzip.BadGzipFile, zlib.error), gzip.GzipFile(fileobj=packed) as source:
            shutil.copyfileobj(source, file, _BLOCK)
        file.seek(0)
        yield file
