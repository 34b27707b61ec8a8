"""Analytics: hits and misses, per namespace and key, in bounded memory; events carry no values."""

from __future__ import annotations

import msgspec
import pytest

from noobly.caching import Cache
from noobly.caching.events import Cleared, Computed, Hit, Invalidated, Miss, Removed, Stored
from noobly.core.events import Event
from noobly.testing.caching.theme import Theme, recorded
from noobly.testing.harness import Harness

KINDS: tuple[type[Event], ...] = (Hit, Miss, Stored, Removed, Invalidated, Cleared, Computed)
SECRET = "do-not-tell"


def _fail() -> object:
    raise LookupError("on purpose")


class AnalyticsTheme(Theme):
    """``stats`` and the events it is made of."""

    async def test_hits_and_misses_are_counted(self, cache: Cache) -> None:
        await cache.put("user:1", 1)
        await cache.put("plain", None)
        for key in ("user:1", "user:1", "user:2", "plain", "nobody"):
            await cache.get(key)
        stats = await cache.stats()
        assert (stats.total.hits, stats.total.misses, stats.total.puts) == (3, 2, 2)
        assert stats.hit_ratio == pytest.approx(0.6)
        assert stats.misses_by_reason == {"absent": 2}
        user, plain = stats.namespaces["user"], stats.namespaces[""]
        assert (user.hits, user.misses, user.puts) == (2, 1, 1)
        assert (plain.hits, plain.misses) == (1, 1)
        assert [(top.key, top.count) for top in stats.hot] == [("user:1", 2), ("plain", 1)]
        assert {(top.key, top.count) for top in stats.missed} == {("user:2", 1), ("nobody", 1)}

    async def test_a_new_cache_has_seen_nothing(self, cache: Cache) -> None:
        stats = await cache.stats()
        assert (stats.total.hits, stats.total.misses, stats.hit_ratio) == (0, 0, 0.0)
        assert stats.compression_ratio == 1.0
        assert stats.hot == []

    async def test_many_at_once_count_each(self, cache: Cache) -> None:
        await cache.put_many({"a": 1, "b": 2})
        await cache.get_many(["a", "b", "c"])
        assert await cache.delete_many(["a", "c"]) == 1
        total = (await cache.stats()).total
        assert (total.hits, total.misses, total.puts, total.removals) == (2, 1, 2, 1)

    async def test_exists_counts_as_nothing(self, cache: Cache) -> None:
        await cache.exists("missing")
        await cache.put("key", 1)
        await cache.exists("key")
        total = (await cache.stats()).total
        assert (total.hits, total.misses) == (0, 0)

    async def test_misses_have_reasons(self, cache: Cache, harness: Harness) -> None:
        await cache.put("stale", 1, ttl=60, grace=600)
        await cache.put("invalid", 1, tags=["t"])
        await cache.invalidate(["t"])
        await harness.jump(61)
        for key in ("stale", "invalid", "absent"):
            assert await cache.get(key) is None
        assert (await cache.stats()).misses_by_reason == {"stale": 1, "invalidated": 1, "absent": 1}

    async def test_factory_runs_have_outcomes(self, cache: Cache, harness: Harness) -> None:
        async def deletes() -> int:
            await cache.delete("discarded")
            return 1

        await cache.get_or_compute("stored", lambda: 1)
        await cache.get_or_compute("stored", lambda: 2)
        await cache.get_or_compute("discarded", deletes)
        with pytest.raises(LookupError):
            await cache.get_or_compute("failed", _fail)
        stats = await cache.stats()
        if harness.direct:  # Factories run beside their callers, so a server does not see them.
            assert stats.computed == {"stored": 1, "discarded": 1, "failed": 1}
        assert (stats.total.hits, stats.total.misses) == (1, 3)

    async def test_memory_is_bounded(self, harness: Harness) -> None:
        async with harness.open(top_keys=3) as cache:
            for number in range(1200):
                await cache.get(f"space{number}:key")
            await cache.put("popular:key", 1)
            for _ in range(5):
                await cache.get("popular:key")
            stats = await cache.stats()
        assert stats.total.misses == 1200
        assert len(stats.namespaces) <= 1001
        assert sum(tally.misses for tally in stats.namespaces.values()) == 1200
        assert len(stats.hot) <= 3
        assert len(stats.missed) <= 3
        assert stats.hot[0].key == "popular:key"

    async def test_events_say_what_happened_but_carry_no_values(self, cache: Cache, harness: Harness) -> None:
        if not harness.direct:
            pytest.skip("events are emitted beside the store")
        seen: dict[type[Event], list[Event]] = {kind: recorded(cache, kind) for kind in KINDS}
        await cache.put("space:key", {"password": SECRET}, tags=["t"])
        await cache.get("space:key")
        await cache.get("missing")
        await cache.get_or_compute("computed", lambda: SECRET)
        await cache.delete("computed")
        await cache.invalidate(["t"])
        await cache.clear("space")
        assert seen[Hit] == [Hit("caching", "default", "space:key")]
        assert Miss("caching", "default", "missing", "absent") in seen[Miss]
        assert seen[Removed] == [Removed("caching", "default", ("computed",))]
        assert seen[Invalidated] == [Invalidated("caching", "default", ("t",))]
        assert seen[Cleared] == [Cleared("caching", "default", "space")]
        assert [event.key for event in seen[Stored] if isinstance(event, Stored)] == ["space:key", "computed"]
        assert len(seen[Computed]) == 1
        assert SECRET not in msgspec.json.encode(list(seen.values())).decode()
        assert SECRET not in repr(seen)
