"""The memory provider: this process only, bounded by entries and bytes, the least recently used entry leaves first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Annotated

import msgspec

from noobly.caching.driver import RawPage
from noobly.core.checks import Limits
from noobly.core.config import Config
from noobly.core.errors import Conflict
from noobly.core.scope import Environment

_OVERHEAD = 200
"""Bytes that Python spends on an entry besides key and value: tuple, float, two objects' heads, dictionary slot."""

_SCAN = 2000


class MemoryConfig(Config, frozen=True, kw_only=True):
    """The options of the memory provider.

    Args:
        max_entries: Entries it holds.
        max_bytes: Bytes it holds, keys and the interpreter's overhead included.
    """

    max_entries: Annotated[int, msgspec.Meta(gt=0)] = 100_000
    max_bytes: Annotated[int, msgspec.Meta(gt=0)] = 256 * 1024 * 1024


class MemoryCache:
    """Entries in a dictionary. Values are bytes, so what a caller gets is never another caller's object."""

    Config = MemoryConfig
    scheme = "memory"
    in_process = True

    def __init__(self, config: MemoryConfig, environment: Environment) -> None:
        self.limits = Limits(value_bytes=config.max_bytes // 2)
        self._config = config
        self._now = environment.clock.monotonic
        self._entries: OrderedDict[str, tuple[bytes, float | None]] = OrderedDict()
        self._ends: list[tuple[float, str]] = []
        self._bytes = 0

    async def get(self, key: str, /) -> bytes | None:
        """See the protocol."""
        return self.get_now(key, self._now())

    def get_now(self, key: str, now: float, /) -> bytes | None:
        """See the protocol."""
        entries = self._entries
        if key not in entries:
            return None
        data, end = entries[key]
        if end is not None and end <= now:
            self._remove(key)
            return None
        entries.move_to_end(key)
        return data

    async def get_many(self, keys: Sequence[str], /) -> list[bytes | None]:
        """See the protocol."""
        return [await self.get(key) for key in keys]

    async def put(self, key: str, data: bytes, ttl: float | None, /) -> None:
        """See the protocol."""
        self._store(key, data, None if ttl is None else self._now() + ttl)

    async def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None, /) -> None:
        """See the protocol."""
        for key, data in entries:
            await self.put(key, data, ttl)

    async def add(self, key: str, data: bytes, ttl: float | None, /) -> bool:
        """See the protocol."""
        if await self.get(key) is not None:
            return False
        await self.put(key, data, ttl)
        return True

    async def swap(self, key: str, expected: bytes, data: bytes | None, ttl: float | None, /) -> bool:
        """See the protocol."""
        if await self.get(key) != expected:
            return False
        if data is None:
            self._remove(key)
        else:
            await self.put(key, data, ttl)
        return True

    async def delete_many(self, keys: Sequence[str], /) -> list[bool]:
        """See the protocol."""
        return [self._remove(key) for key in keys]

    async def touch(self, key: str, ttl: float | None, /) -> bool:
        """See the protocol."""
        data = await self.get(key)
        if data is None:
            return False
        await self.put(key, data, ttl)
        return True

    async def increment(self, key: str, amount: int, ttl: float | None, /) -> int:
        """See the protocol."""
        data = await self.get(key)
        if data is None:
            await self.put(key, b"%d" % amount, ttl)
            return amount
        number = add_to_counter(key, data, amount)
        self._store(key, b"%d" % number, self._entries[key][1])
        return number

    async def clear(self, namespace: str, /) -> None:
        """See the protocol."""
        if not namespace:
            self.drop_all()
            return
        prefix = f"{namespace}:"
        for key in [key for key in self._entries if key.startswith(prefix)]:
            self._remove(key)

    async def keys(self, namespace: str, after: str | None, limit: int, /) -> RawPage:
        """See the protocol; keys come in their order as text."""
        prefix, now = f"{namespace}:" if namespace else "", self._now()
        live = sorted(
            key
            for key, (_, end) in self._entries.items()
            if key.startswith(prefix) and (after is None or key > after) and (end is None or end > now)
        )
        page = live[:limit]
        return RawPage(page, page[-1] if len(live) > limit else None)

    async def health(self) -> None:
        """See the protocol; memory is always there."""

    def drop(self, key: str) -> None:
        """Delete an entry, without a wait; for the tier that this memory may be."""
        self._remove(key)

    def drop_all(self) -> None:
        """Delete all entries, without a wait."""
        self._entries.clear()
        self._ends.clear()
        self._bytes = 0

    def _store(self, key: str, data: bytes, end: float | None) -> None:
        before = self._entries.pop(key, None)
        self._entries[key] = (data, end)
        self._bytes += len(data) - len(before[0]) if before else len(key) + len(data) + _OVERHEAD
        if end is not None:
            heappush(self._ends, (end, key))
        if self._ends:
            self._expire()
        while self._bytes > self._config.max_bytes or len(self._entries) > self._config.max_entries:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: str) -> bool:
        found = self._entries.pop(key, None)
        if found is None:
            return False
        self._bytes -= len(key) + len(found[0]) + _OVERHEAD
        return found[1] is None or found[1] > self._now()

    def _expire(self) -> None:
        """Drop entries past their end, a few at a time; rebuild the heap when most of it is out of date."""
        ends, now = self._ends, self._now()
        for _ in range(16):
            if not ends or ends[0][0] > now:
                break
            end, key = heappop(ends)
            found = self._entries.get(key)
            if found is not None and found[1] == end:
                self._remove(key)
        if len(ends) > 2 * len(self._entries) + _SCAN:
            self._ends = [(end, key) for key, (_, end) in self._entries.items() if end is not None]
            heapify(self._ends)


def add_to_counter(key: str, data: bytes, amount: int) -> int:
    """Return the number that some bytes hold plus the amount.

    Raises:
        Conflict: They hold no number, or the sum leaves the signed 64-bit range.
    """
    try:
        number = int(data) + amount
    except ValueError as error:
        raise Conflict(f"the entry {key!r} is not a counter; delete it first") from error
    if not -(2**63) <= number < 2**63:
        raise Conflict(f"the counter {key!r} would leave the signed 64-bit range")
    return number
