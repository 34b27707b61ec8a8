"""Grace: what has ended may still help when computing it anew fails; refresh-ahead: it is computed before it ends."""

from __future__ import annotations

import asyncio

import pytest

from noobly.caching import Cache, State
from noobly.testing.caching.theme import Theme
from noobly.testing.clock import eventually
from noobly.testing.harness import Harness, passes


class Broken(Exception):
    """What the factories of these tests raise."""


class Factory:
    """Counts its runs; gives its number, or fails while ``broken``."""

    def __init__(self, *, broken: bool = False) -> None:
        self.runs = 0
        self.broken = broken

    async def __call__(self) -> int:
        self.runs += 1
        await asyncio.sleep(0)
        if self.broken:
            raise Broken("on purpose")
        return self.runs


async def _state(cache: Cache, key: str) -> State | None:
    entry = await cache.lookup(key)
    return None if entry is None else entry.state


class GraceTheme(Theme):
    """Stale entries are misses, except to a factory that fails."""

    async def test_a_stale_entry_is_a_miss_that_lookup_shows(self, cache: Cache, harness: Harness) -> None:
        await cache.put("key", "old", ttl=60, grace=600)
        assert await _state(cache, "key") is State.FRESH
        await harness.jump(61)
        assert await cache.get("key", "miss") == "miss"
        assert await cache.get_many(["key"]) == {}
        assert not await cache.exists("key")
        assert await _state(cache, "key") is State.STALE

    async def test_a_stale_entry_ends_with_its_grace(self, cache: Cache, harness: Harness) -> None:
        await cache.put("key", "old", ttl=harness.tick, grace=2 * harness.tick)

        async def gone() -> bool:
            return await cache.lookup("key") is None

        assert await passes(harness, gone, ticks=4)

    async def test_stale_is_served_where_the_factory_fails(self, cache: Cache, harness: Harness) -> None:
        factory = Factory()
        assert await cache.get_or_compute("key", factory, ttl=60, grace=600) == 1
        await harness.jump(61)
        factory.broken = True
        assert await cache.get_or_compute("key", factory, ttl=60, grace=600) == 1
        assert factory.runs == 2

    async def test_attempts_after_a_failure_are_throttled(self, harness: Harness) -> None:
        factory = Factory()
        async with harness.open(pause_after_failure=3 * harness.tick, grace=6000) as cache:
            await cache.get_or_compute("key", factory, ttl=60)
            await harness.jump(61)
            factory.broken = True
            for _ in range(5):
                assert await cache.get_or_compute("key", factory, ttl=60) == 1
            assert factory.runs == 2
            factory.broken = False

            async def recovered() -> bool:
                return bool(await cache.get_or_compute("key", factory, ttl=60) == 3)

            assert await passes(harness, recovered, ticks=4)
            assert factory.runs == 3

    async def test_without_grace_the_failure_is_raised(self, cache: Cache) -> None:
        factory = Factory(broken=True)
        for _ in range(2):
            with pytest.raises(Broken):
                await cache.get_or_compute("key", factory, ttl=60)
        assert factory.runs == 2

    async def test_expire_keeps_the_stale_copy_and_delete_does_not(self, cache: Cache) -> None:
        factory = Factory()
        for key in ("expired", "deleted", "endless"):
            await cache.put(key, "old", ttl=None if key == "endless" else 60, grace=600)
        assert await cache.expire("expired")
        assert await cache.expire("endless")
        assert await cache.delete("deleted")
        factory.broken = True
        assert await cache.get("expired") is None
        assert await cache.get_or_compute("expired", factory, grace=600) == "old"
        assert await cache.get_or_compute("endless", factory, grace=600) == "old"
        with pytest.raises(Broken):
            await cache.get_or_compute("deleted", factory, grace=600)

    async def test_expiring_again_does_not_prolong_the_grace(self, cache: Cache, harness: Harness) -> None:
        await cache.put("key", "old", grace=6 * harness.tick)
        assert await cache.expire("key")
        await harness.advance(4 * harness.tick)
        assert await cache.expire("key")

        async def gone() -> bool:
            return await cache.lookup("key") is None

        assert await passes(harness, gone, ticks=2.5)

    async def test_touch_does_not_revive_what_is_stale(self, cache: Cache) -> None:
        await cache.put("key", "old", ttl=60, grace=600)
        await cache.expire("key")
        assert not await cache.touch("key", 60)
        assert not await cache.exists("key")

    async def test_a_put_makes_it_fresh_again(self, cache: Cache, harness: Harness) -> None:
        await cache.put("key", "old", ttl=60, grace=600)
        await harness.jump(61)
        await cache.put("key", "new", ttl=60, grace=600)
        assert await cache.get("key") == "new"

    async def test_stale_is_not_served_once_it_was_deleted(self, cache: Cache, harness: Harness) -> None:
        await cache.put("key", "old", ttl=60, grace=600)
        await harness.jump(61)

        async def fail() -> int:
            await cache.delete("key")
            raise Broken("on purpose")

        with pytest.raises(Broken):
            await cache.get_or_compute("key", fail, grace=600)

    async def test_refresh_ahead_answers_at_once_and_computes_behind(self, cache: Cache, harness: Harness) -> None:
        factory = Factory()
        await cache.get_or_compute("key", factory, ttl=100, refresh_ahead=0.5)
        await harness.jump(49)
        assert await cache.get_or_compute("key", factory, ttl=100, refresh_ahead=0.5) == 1
        assert factory.runs == 1
        await harness.jump(11)
        assert await _state(cache, "key") is State.REFRESH
        asked = [cache.get_or_compute("key", factory, ttl=100, refresh_ahead=0.5) for _ in range(20)]
        assert set(await asyncio.gather(*asked)) <= {1, 2}

        async def refreshed() -> bool:
            return bool(await cache.get("key") == 2)

        await eventually(refreshed)
        assert factory.runs == 2
        assert await _state(cache, "key") is State.FRESH

    async def test_a_failed_refresh_is_silent(self, cache: Cache, harness: Harness) -> None:
        factory = Factory()
        await cache.get_or_compute("key", factory, ttl=100, refresh_ahead=0.5)
        await harness.jump(60)
        factory.broken = True
        assert await cache.get_or_compute("key", factory, ttl=100, refresh_ahead=0.5) == 1
        await eventually(lambda: factory.runs == 2)
        assert await cache.get("key") == 1
