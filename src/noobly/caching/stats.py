"""Hit and miss analytics in bounded memory: totals, per namespace, and the most read and most missed keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from heapq import nlargest
from operator import itemgetter

import msgspec

from noobly.caching.events import Computed, Miss, Removed
from noobly.caching.keyspace import MARK
from noobly.caching.recent import Recent
from noobly.core.meter import Rows
from noobly.core.scope import Scope

NAMESPACES = 1000
"""Namespaces that are counted apart; later ones are counted as ``other``."""

_GATHERED = 4096
"""Keys whose hits are gathered before they are counted."""

_HELP = "Cache reads by namespace and result."
_count = itemgetter(1)
_SLACK = 8
"""Keys tracked per key that is reported; more slack, better order among the last ones."""


class Tally(msgspec.Struct, kw_only=True):
    """Counts of one namespace or of the whole cache since it was opened."""

    hits: int = 0
    misses: int = 0
    puts: int = 0
    removals: int = 0


class KeyCount(msgspec.Struct, frozen=True, kw_only=True):
    """A key and about how often it was counted."""

    key: str
    count: int


class CacheStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a cache has seen since it was opened, in this process.

    Args:
        total: Counts of the whole cache.
        hit_ratio: Hits per read; 0.0 before the first.
        misses_by_reason: Misses by ``absent``, ``stale``, ``invalidated``, ``damaged`` and ``unavailable``.
        computed: Factory runs by outcome.
        namespaces: Counts of each namespace, the part of a key before its first colon.
        hot: The keys with the most hits.
        missed: The keys with the most misses.
        bytes_put: Bytes of all values put, before compression.
        bytes_stored: The same as stored; with compression off, slightly more than ``bytes_put``.
        compression_ratio: ``bytes_stored`` per ``bytes_put``; 1.0 before the first put.
    """

    total: Tally
    hit_ratio: float
    misses_by_reason: dict[str, int]
    computed: dict[str, int]
    namespaces: dict[str, Tally]
    hot: list[KeyCount]
    missed: list[KeyCount]
    bytes_put: int
    bytes_stored: int
    compression_ratio: float


def namespace(key: str) -> str:
    """Return the namespace of a key, empty for a key without a colon."""
    name, colon, _ = key.partition(":")
    return name if colon else ""


class TopKeys:
    """The most frequent keys in memory bounded by their number: rare keys are forgotten, frequent ones stay.

    Space is bounded as in lossy counting (Manku and Motwani, VLDB 2002): once there are ``slack`` times as many keys
    as wanted, the rarer half is dropped.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._most = size * _SLACK
        self.counts: dict[str, int] = {}

    def add(self, key: str) -> None:
        """Count a key."""
        self.add_all({key: 1})

    def add_all(self, more: Mapping[str, int]) -> None:
        """Count keys as often as it says."""
        counts = self.counts
        for key, count in more.items():
            counts[key] = counts.get(key, 0) + count
        if len(counts) > self._most:
            self.counts = dict(sorted(counts.items(), key=_count, reverse=True)[: self._most // 2])

    def top(self) -> list[KeyCount]:
        """Return the most frequent keys, the first one first."""
        best = nlargest(self._size, self.counts.items(), key=_count)
        return [KeyCount(key=key, count=count) for key, count in best]


class Analytics:
    """The counts of one cache; nothing else in the suite counts hits.

    Hits and puts, the hot path, are told to it directly, for an event costs more than to count it; all else reaches
    it as an event.

    Attributes:
        recent: The keys whose last hits are not in the counts yet, which they enter many at a time. Only keys are in it
            that the driver knows by the same text.
    """

    def __init__(self, scope: Scope, top_keys: int) -> None:
        self._scope = scope
        self._total = Tally()
        self._namespaces: dict[str, Tally] = {}
        self._hot, self._missed = TopKeys(top_keys), TopKeys(top_keys)
        self.recent: dict[str, Recent] = {}
        self._reasons: Counter[str] = Counter()
        self._computed: Counter[str] = Counter()
        self._bytes_put = self._bytes_stored = 0
        names = ("instance", "namespace", "result")
        self.close = scope.environment.meter.tallies("noobly_cache_reads", _HELP, names, self._rows)

    def _rows(self) -> Rows:
        self._count_hits()
        for name, tally in list(self._namespaces.items()):
            yield (self._scope.instance, name, "hit"), tally.hits
            yield (self._scope.instance, name, "miss"), tally.misses

    def hit(self, key: str) -> None:
        """Count a hit; a key that is in ``recent`` already may be counted there."""
        if type(key) is not str or MARK in key:
            self._enter({key: 1})
            return
        if len(self.recent) >= _GATHERED:
            self._count_hits()
        self.recent.setdefault(key, Recent()).hits += 1

    def _count_hits(self) -> None:
        self._enter({key: one.hits for key, one in self.recent.items()})
        self.recent.clear()

    def _enter(self, hits: Mapping[str, int]) -> None:
        self._total.hits += sum(hits.values())
        self._hot.add_all(hits)
        for key, count in hits.items():
            self._tally(key).hits += count

    def miss(self, event: Miss) -> None:
        """Count a miss."""
        self._total.misses += 1
        self._reasons[event.reason] += 1
        self._missed.add(event.key)
        self._tally(event.key).misses += 1

    def stored(self, key: str, size: int, stored: int) -> None:
        """Count a put of a value with so many bytes before compression and after."""
        self._total.puts += 1
        self._bytes_put += size
        self._bytes_stored += stored
        self._tally(key).puts += 1

    def removed(self, event: Removed) -> None:
        """Count deletions."""
        self._total.removals += len(event.keys)
        for key in event.keys:
            self._tally(key).removals += 1

    def computed(self, event: Computed) -> None:
        """Count a factory run."""
        self._computed[event.outcome] += 1

    def _tally(self, key: str) -> Tally:
        name, colon, _ = key.partition(":")
        found = self._namespaces.get(name if colon else "")
        if found is not None:
            return found
        name = name if colon else ""
        if len(self._namespaces) >= NAMESPACES:
            name = "other"
        return self._namespaces.setdefault(name, Tally())

    def hot_by_namespace(self, most: int) -> list[str]:
        """Return the most read keys, at most so many per namespace."""
        self._count_hits()
        seen: Counter[str] = Counter()
        chosen: list[str] = []
        for key, _ in sorted(self._hot.counts.items(), key=_count, reverse=True):
            name = namespace(key)
            seen[name] += 1
            if seen[name] <= most:
                chosen.append(key)
        return chosen

    def snapshot(self) -> CacheStats:
        """Return the counts as they are now."""
        self._count_hits()
        reads = self._total.hits + self._total.misses
        return CacheStats(
            total=msgspec.structs.replace(self._total),
            hit_ratio=self._total.hits / reads if reads else 0.0,
            misses_by_reason=dict(self._reasons),
            computed=dict(self._computed),
            namespaces={name: msgspec.structs.replace(tally) for name, tally in self._namespaces.items()},
            hot=self._hot.top(),
            missed=self._missed.top(),
            bytes_put=self._bytes_put,
            bytes_stored=self._bytes_stored,
            compression_ratio=self._bytes_stored / self._bytes_put if self._bytes_put else 1.0,
        )
