"""What a cache makes of entries that are damaged, and other corners of reading and writing."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from noobly.caching import Cache, open_cache
from noobly.caching.envelope import VERSION
from noobly.core.errors import Conflict, InvalidArgument
from noobly.core.scope import Environment
from noobly.testing import FakeClock, FixedChance

GZIP = 1 << 2
DAMAGED = {
    "json": bytes((VERSION, 0)) + b"{",
    "header": bytes((VERSION, 3)),
    "facts": bytes((VERSION, 0x10)) + b"\0\0\0\1\xff{}",
    "gzip": bytes((VERSION, GZIP)) + b"no gzip",
    "cut gzip": bytes((VERSION, GZIP)) + zlib.compress(b'"x"', wbits=31)[:-4],
}


@pytest_asyncio.fixture
async def cache() -> AsyncIterator[Cache]:
    async with open_cache() as opened:
        yield opened


class TestDamaged:
    @pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
    async def test_every_read_misses(self, cache: Cache, data: bytes) -> None:
        reads = (lambda: cache.get("k", "default"), lambda: cache.lookup("k"), lambda: cache.get_many(["k"]))
        for read, missed in zip(reads, ("default", None, {}), strict=True):
            await cache._driver.put("k", data, None)
            assert await read() == missed
        assert (await cache.stats()).total.hits == 0
        assert (await cache.stats()).total.misses == 3

    @pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
    async def test_it_is_computed_anew(self, cache: Cache, data: bytes) -> None:
        await cache._driver.put("k", data, None)
        assert await cache.get_or_compute("k", lambda: "new") == "new"
        assert await cache.get("k") == "new"

    async def test_an_unreadable_value_is_dropped_and_told_apart(self, cache: Cache) -> None:
        await cache._driver.put("k", DAMAGED["json"], None)
        assert await cache.get("k") is None
        assert await cache._driver.get("k") is None
        assert (await cache.stats()).misses_by_reason == {"damaged": 1}


class TestJitter:
    async def test_each_entry_of_a_batch_draws_its_own(self) -> None:
        clock = FakeClock()
        environment = Environment(clock=clock, chance=FixedChance(0.0, 0.5))
        async with open_cache(environment=environment, jitter=0.5) as cache:
            await cache.put_many({"a": 1, "b": 2}, ttl=100)
            clock.advance(80)
            assert await cache.get_many(["a", "b"]) == {"a": 1}

    async def test_one_bad_value_refuses_all(self) -> None:
        async with open_cache(jitter=0.5) as cache:
            with pytest.raises(InvalidArgument):
                await cache.put_many({"a": 1, "b": object()}, ttl=100)
            assert await cache.get("a") is None


async def test_hot_keys_fit_a_store_of_small_entries() -> None:
    async with open_cache(top_keys=1000) as cache:
        for number in range(1000):
            key = f"{'x' * 1000}{number}"
            await cache.put(key, 1)
            await cache.get(key)
        recorded = await cache.record_hot_keys(1000)
        assert 200 < len(recorded) < 300
        assert await cache.hot_keys() == recorded


async def test_a_lock_may_be_tried_once(cache: Cache) -> None:
    async with cache.lock("l"):
        with pytest.raises(Conflict):
            async with cache.lock("l", wait=0):
                pass
    async with cache.lock("l", wait=0):
        assert await cache.acquire("l") is None
