"""Warming: entries are loaded before anybody asks, not too many at once; the most read keys are known again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from noobly.caching import Cache
from noobly.caching.warming import WarmProgress
from noobly.core.errors import InvalidArgument
from noobly.testing.caching.theme import Theme
from noobly.testing.clock import eventually
from noobly.testing.harness import Harness

KEYS = [f"warm:{number}" for number in range(30)]


class Loader:
    """Counts its runs, how many there are at once, and fails for keys that end in 7."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.inside = 0
        self.most = 0

    async def __call__(self, key: str) -> str:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0)
        self.inside -= 1
        self.loaded.append(key)
        if key.endswith("7"):
            raise LookupError(key)
        return key.upper()


class WarmingTheme(Theme):
    """``warm``, ``record_hot_keys`` and ``warm_hot``."""

    async def test_missing_keys_are_loaded(self, cache: Cache) -> None:
        loader, seen = Loader(), list[WarmProgress]()
        await cache.put(KEYS[0], "there already")
        progress = await cache.warm(loader, KEYS, ttl=60, tags=["w"], concurrency=4, on_progress=seen.append)
        assert (progress.done, progress.failed, progress.total) == (30, 3, 30)
        assert [step.done for step in seen] == list(range(1, 31))
        assert sorted(loader.loaded) == sorted(KEYS[1:])
        assert loader.most <= 4
        assert await cache.get(KEYS[0]) == "there already"
        assert await cache.get(KEYS[1]) == KEYS[1].upper()
        assert await cache.get(KEYS[7]) is None
        await cache.invalidate(["w"])
        assert await cache.get(KEYS[1]) is None

    async def test_as_many_are_loaded_at_once_as_wanted(self, cache: Cache) -> None:
        inside, gate = set[str](), asyncio.Event()

        async def wait(key: str) -> str:
            inside.add(key)
            await gate.wait()
            return key

        warming = asyncio.create_task(cache.warm(wait, KEYS, concurrency=4))
        await eventually(lambda: len(inside) == 4)
        gate.set()
        assert (await warming).done == 30
        assert len(inside) == 30

    async def test_keys_may_come_one_by_one(self, cache: Cache) -> None:
        async def keys() -> AsyncIterator[str]:
            for key in KEYS[:3]:
                yield key

        progress = await cache.warm(Loader(), keys())
        assert (progress.done, progress.failed, progress.total) == (3, 0, None)
        assert len(await cache.get_many(KEYS[:3])) == 3

    async def test_the_rate_is_kept(self, cache: Cache) -> None:
        progress = await cache.warm(Loader(), KEYS[:5], rate=50)
        assert progress.seconds >= 4 / 50

    @pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"rate": 0}, {"rate": -1}], ids=str)
    async def test_bad_bounds_are_refused(self, cache: Cache, wrong: dict[str, int]) -> None:
        loader = Loader()
        with pytest.raises(InvalidArgument):
            await cache.warm(loader, KEYS, concurrency=wrong.get("concurrency", 1), rate=wrong.get("rate"))
        assert loader.loaded == []

    async def test_hot_keys_are_recorded_and_loaded_again(self, cache: Cache) -> None:
        assert await cache.hot_keys() == []
        await cache.put_many({"hot:1": 1, "hot:2": 2, "hot:3": 3, "plain": 4, "plain2": 5})
        for key, times in {"hot:1": 3, "hot:2": 5, "hot:3": 1, "plain": 2, "plain2": 1}.items():
            for _ in range(times):
                await cache.get(key)
        recorded = await cache.record_hot_keys(2)
        assert recorded == ["hot:2", "hot:1", "plain", "plain2"]
        assert await cache.hot_keys() == recorded
        await cache.delete_many(recorded)
        loader = Loader()
        progress = await cache.warm_hot(loader, rate=None)
        assert (progress.done, progress.total) == (4, 4)
        assert sorted(loader.loaded) == sorted(recorded)
        assert await cache.get("hot:2") == "HOT:2"
        assert await cache.get("hot:3") == 3

    async def test_they_may_be_recorded_on_closing(self, harness: Harness) -> None:
        if not harness.shared:
            pytest.skip("two caches of this provider share nothing")
        async with harness.open() as other:
            async with harness.open(record_hot_keys=5) as cache:
                await cache.put("hot", 1)
                await cache.get("hot")
            assert await other.hot_keys() == ["hot"]
