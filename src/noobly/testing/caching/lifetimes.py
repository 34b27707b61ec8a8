"""Lifetimes: absolute, sliding, spread, and chosen by the factory."""

from __future__ import annotations

from datetime import timedelta

from noobly.caching import Cache, Computed, State
from noobly.testing.caching.theme import Theme
from noobly.testing.harness import Harness, passes


async def _gone(cache: Cache, harness: Harness, key: str, *, ticks: float) -> bool:
    async def gone() -> bool:
        return not await cache.exists(key)

    return await passes(harness, gone, ticks=ticks)


class LifetimesTheme(Theme):
    """An entry is there until its end, and not after it."""

    async def test_an_entry_ends_with_its_ttl(self, cache: Cache, harness: Harness) -> None:
        tick = harness.tick
        await cache.put("short", 1, ttl=4 * tick)
        await cache.put("delta", 1, ttl=timedelta(seconds=4 * tick))
        await cache.put_many({"many": 1}, ttl=4 * tick)
        assert await cache.add("added", 1, ttl=4 * tick)
        await cache.put("long", 1, ttl=600)
        await cache.put("endless", 1)
        keys = ["short", "delta", "many", "added", "long", "endless"]
        await harness.advance(2 * tick)
        assert set(await cache.get_many(keys)) == set(keys)
        assert await _gone(cache, harness, "short", ticks=3)
        assert set(await cache.get_many(keys)) == {"long", "endless"}
        assert await cache.get("short", "default") == "default"
        assert await cache.lookup("short") is None
        assert not await cache.touch("short", 60)
        assert not await cache.delete("short")
        assert await cache.add("short", 2)

    async def test_put_replaces_the_ttl_and_touch_renews_it(self, cache: Cache, harness: Harness) -> None:
        tick = harness.tick
        await cache.put_many({"put": 1, "touched": 1, "endless": 1, "shortened": 1}, ttl=3 * tick)
        await cache.put("put", 2)
        assert await cache.touch("touched", 60)
        assert await cache.touch("endless")
        await cache.put("ended", 1)
        assert await cache.touch("ended", 3 * tick)
        assert await _gone(cache, harness, "ended", ticks=4)
        assert await cache.get_many(["put", "touched", "endless", "shortened"]) == {
            "put": 2,
            "touched": 1,
            "endless": 1,
        }

    async def test_the_cache_may_have_a_ttl_for_all(self, harness: Harness) -> None:
        async with harness.open(ttl=3 * harness.tick) as cache:
            await cache.put("default", 1)
            await cache.put("own", 1, ttl=600)
            assert await cache.get_or_compute("computed", lambda: 1) == 1
            assert await _gone(cache, harness, "default", ticks=4)
            assert not await cache.exists("computed")
            assert await cache.get("own") == 1

    async def test_reads_prolong_a_sliding_entry_up_to_its_ttl(self, cache: Cache, harness: Harness) -> None:
        tick = harness.tick
        await cache.put("read", 1, ttl=7 * tick, sliding=4 * tick)
        await cache.put("unread", 1, ttl=60 * tick, sliding=4 * tick)
        for _ in range(3):
            await harness.advance(2 * tick)
            assert await cache.get("read") == 1
        assert await cache.get("unread") is None
        assert await _gone(cache, harness, "read", ticks=2)

    async def test_sliding_goes_with_grace_and_tags(self, cache: Cache, harness: Harness) -> None:
        await cache.put("key", 1, ttl=130, sliding=60, grace=600, tags=["tag"])
        for _ in range(2):
            await harness.jump(50)
            assert await cache.get("key") == 1
        await harness.jump(31)
        assert await cache.get("key") is None
        entry = await cache.lookup("key")
        assert entry is not None
        assert entry.state is State.STALE
        await cache.invalidate(["tag"])
        assert await cache.lookup("key") is None

    async def test_jitter_spreads_the_ends(self, cache: Cache, harness: Harness) -> None:
        keys = [f"spread:{number}" for number in range(40)]
        for key in keys:
            await cache.put(key, 1, ttl=100, jitter=0.5, grace=1000)
        await harness.jump(49)
        assert len(await cache.get_many(keys)) == 40
        await harness.jump(26)
        assert 0 < len(await cache.get_many(keys)) < 40
        await harness.jump(26)
        assert await cache.get_many(keys) == {}

    async def test_a_factory_may_choose(self, cache: Cache, harness: Harness) -> None:
        async def chosen() -> Computed:
            return Computed(value="v", ttl=60, tags=["late"])

        assert await cache.get_or_compute("key", chosen, ttl=600, grace=6000, tags=["early"]) == "v"
        entry = await cache.lookup("key")
        assert entry is not None
        assert entry.tags == ["early", "late"]
        await harness.jump(61)
        assert await cache.get("key") is None
        kept = await cache.get_or_compute("unsaved", lambda: Computed(value=1, store=False))
        assert kept == 1
        assert not await cache.exists("unsaved")
        assert await cache.get_or_compute("unsaved", lambda: 2) == 2

    async def test_a_computed_none_may_live_shorter(self, harness: Harness) -> None:
        async with harness.open(none_ttl=60, grace=6000) as cache:
            assert await cache.get_or_compute("none", lambda: None, ttl=600) is None
            assert await cache.get_or_compute("some", lambda: 1, ttl=600) == 1
            await harness.jump(61)
            assert not await cache.exists("none")
            assert await cache.exists("some")

    async def test_touch_works_on_entries_of_every_kind(self, cache: Cache, harness: Harness) -> None:
        await cache.put("graced", 1, ttl=60, grace=6000)
        await cache.put("endless", 1, ttl=60, grace=6000)
        await cache.put("tagged", 1, ttl=60, tags=["tag"])
        assert await cache.touch("graced", 600)
        assert await cache.touch("endless")
        assert await cache.touch("tagged", 600)
        await harness.jump(100)
        assert await cache.get_many(["graced", "endless", "tagged"]) == {"graced": 1, "endless": 1, "tagged": 1}
        await harness.jump(1000)
        assert not await cache.exists("graced")
        assert await cache.exists("endless")
        await cache.put("tagged", 1, tags=["tag"])
        await cache.invalidate(["tag"])
        assert not await cache.touch("tagged", 60)
