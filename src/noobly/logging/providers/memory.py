"""The memory provider: the latest records of this process, bounded by bytes and by records."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from typing import Annotated

import msgspec

from noobly.core.checks import Limits
from noobly.core.config import Config
from noobly.core.scope import Environment
from noobly.logging.driver import Count, Followed, Found, Line, Query
from noobly.logging.providers._pages import MOST_COUNTS, PAGE_BYTES, Place, decode, encode, refuse_bucket
from noobly.logging.query import condition

_OVERHEAD = 200
"""Bytes that Python spends on a line besides its data: the struct, two numbers, the bytes' head, a slot."""
_BATCHES = 4096
"""Ids of batches that are remembered."""
_STRETCH = 512
"""Lines that are looked at before others get their turn on the event loop."""


class MemoryConfig(Config, frozen=True, kw_only=True):
    """The options of the memory provider.

    Args:
        max_records: Records it holds; the oldest leave first.
        max_bytes: Bytes it holds, the interpreter's overhead included.
    """

    max_records: Annotated[int, msgspec.Meta(gt=0)] = 100_000
    max_bytes: Annotated[int, msgspec.Meta(gt=0)] = 64 * 1024 * 1024


class MemoryLogs:
    """Lines in a ring. A page's cursor counts lines from the first one ever, so it holds while others come and go."""

    Config = MemoryConfig
    scheme = "memory"
    in_process = True

    def __init__(self, config: MemoryConfig, environment: Environment) -> None:
        self.limits = Limits(value_bytes=config.max_bytes // 2)
        self._config = config
        self._lines: deque[Line] = deque()
        self._first = 0
        self._bytes = 0
        self._batches: dict[str, None] = {}

    async def append(self, batch: str, lines: Sequence[Line], /) -> None:
        """See the protocol; ids are remembered for the latest 4,096 batches."""
        if batch in self._batches:
            return
        self._batches[batch] = None
        if len(self._batches) > _BATCHES:
            del self._batches[next(iter(self._batches))]
        for line in lines:
            self._lines.append(line)
            self._bytes += len(line.data) + _OVERHEAD
        while len(self._lines) > self._config.max_records or self._bytes > self._config.max_bytes:
            self._drop()

    async def search(self, query: Query, after: str | None, limit: int, /) -> Found:
        """See the protocol; newest is what was appended last."""
        lines, first = list(self._lines), self._first
        end = len(lines) if after is None else min(max(decode(after).position - first, 0), len(lines))
        meant, found, size = condition(query), list[bytes](), 0
        async for position in _in_stretches(range(end - 1, -1, -1)):
            line = lines[position]
            if not _may_be(line, query) or meant(line.data) is None:
                continue
            if len(found) == limit or size >= PAGE_BYTES:
                return Found(found, encode(Place(0, first + position + 1)))
            found.append(line.data)
            size += len(line.data)
        return Found(found, None)

    async def follow(self, after: str | None, limit: int, /) -> Followed:
        """See the protocol."""
        end = self._first + len(self._lines)
        begin = end if after is None else decode(after).position
        first = min(max(begin, self._first), end)
        lines = list(islice(self._lines, first - self._first, first - self._first + limit))
        return Followed([line.data for line in lines], encode(Place(0, first + len(lines))), max(first - begin, 0))

    async def counts(self, query: Query, bucket: int, /) -> list[Count]:
        """See the protocol."""
        meant, counted = condition(query), Counter[tuple[int, str]]()
        lines = list(self._lines)
        async for position in _in_stretches(range(len(lines))):
            seen = meant(lines[position].data) if _may_be(lines[position], query) else None
            if seen is not None:
                counted[seen.at - seen.at % bucket, seen.level] += 1
        if len(counted) > MOST_COUNTS:
            refuse_bucket()
        return [Count(at, level, count) for (at, level), count in sorted(counted.items())]

    async def purge(self, before: int, /) -> int:
        """See the protocol."""
        kept = [line for line in self._lines if line.at >= before]
        gone = len(self._lines) - len(kept)
        if gone:
            # What is kept moves up, so that cursors still lead to what is older than they are.
            self._first += gone
            self._lines = deque(kept)
            self._bytes = sum(len(line.data) + _OVERHEAD for line in kept)
        return gone

    async def flush(self) -> None:
        """See the protocol; memory never outlives the process, so there is nothing to wait for."""

    async def health(self) -> None:
        """See the protocol; memory is always there."""

    def _drop(self) -> None:
        self._bytes -= len(self._lines.popleft().data) + _OVERHEAD
        self._first += 1


async def _in_stretches(positions: range) -> AsyncIterator[int]:
    for looked, position in enumerate(positions, start=1):
        yield position
        if not looked % _STRETCH:
            await asyncio.sleep(0)


def _may_be(line: Line, query: Query) -> bool:
    if line.severity < query.severity or (query.since is not None and line.at < query.since):
        return False
    return query.until is None or line.at < query.until
