"""Counters: whole numbers of 64 bits that are added to atomically."""

from __future__ import annotations

import asyncio

import pytest

from noobly.caching import Cache
from noobly.core.errors import Conflict
from noobly.testing.caching.theme import Pair, Theme
from noobly.testing.harness import Harness, passes

MOST = 2**63 - 1


class CountersTheme(Theme):
    """``increment`` and ``decrement``."""

    async def test_a_missing_counter_begins_at_0(self, cache: Cache) -> None:
        assert await cache.increment("up") == 1
        assert await cache.increment("up", 41) == 42
        assert await cache.increment("up", 0) == 42
        assert await cache.decrement("down") == -1
        assert await cache.decrement("down", 9) == -10
        assert await cache.increment("down", 10) == 0
        assert await cache.increment("down", -5) == -5

    async def test_a_counter_is_an_entry(self, cache: Cache) -> None:
        await cache.increment("n", 7)
        assert await cache.get("n") == 7
        assert await cache.get("n", type=int) == 7
        assert await cache.get_many(["n"]) == {"n": 7}
        assert not await cache.add("n", 1)
        assert await cache.get_or_compute("n", lambda: 0) == 7
        assert await cache.delete("n")
        assert await cache.increment("n") == 1

    async def test_a_number_that_was_put_counts_on(self, cache: Cache) -> None:
        for number in (5, 0, -12, 2**53):
            await cache.put("n", number)
            assert await cache.increment("n", 2) == number + 2
            assert await cache.get("n") == number + 2
        await cache.put_many({"many": 1})
        assert await cache.decrement("many", 3) == -2
        await cache.add("added", 10)
        assert await cache.increment("added") == 11
        await cache.get_or_compute("computed", lambda: 20)
        assert await cache.increment("computed") == 21

    @pytest.mark.parametrize("codec", ["json", "msgpack"])
    async def test_with_every_codec_and_compression(self, harness: Harness, codec: str) -> None:
        async with harness.open(codec=codec, compression="gzip", compress_above=0) as cache:
            await cache.put("n", 1000)
            assert await cache.increment("n") == 1001
            assert await cache.get("n") == 1001

    @pytest.mark.parametrize("value", ["text", "5", 1.5, None, True, [1], b"5", 2**63, ""], ids=repr)
    async def test_something_else_does_not_count(self, cache: Cache, value: object) -> None:
        await cache.put("n", value)
        with pytest.raises(Conflict, match="n"):
            await cache.increment("n")
        assert await cache.get("n") == value

    async def test_64_bits_are_the_limit(self, cache: Cache) -> None:
        assert await cache.increment("n", MOST) == MOST
        with pytest.raises(Conflict):
            await cache.increment("n")
        assert await cache.get("n") == MOST
        assert await cache.decrement("n") == MOST - 1
        assert await cache.increment("low", -MOST - 1) == -MOST - 1
        with pytest.raises(Conflict):
            await cache.decrement("low")
        assert await cache.get("low") == -MOST - 1
        assert await cache.increment("low", MOST) == -1

    async def test_none_is_lost_in_a_crowd(self, cache: Cache) -> None:
        results = await asyncio.gather(*(cache.increment("n") for _ in range(200)))
        assert sorted(results) == list(range(1, 201))

    async def test_nor_between_clients(self, pair: Pair) -> None:
        results = await asyncio.gather(*(pair[n % 2].increment("n") for n in range(200)))
        assert sorted(results) == list(range(1, 201))
        assert await pair[0].get("n") == 200

    async def test_only_a_new_counter_takes_the_ttl(self, cache: Cache, harness: Harness) -> None:
        tick = harness.tick
        assert await cache.increment("short", ttl=4 * tick) == 1
        assert await cache.increment("endless") == 1
        await harness.advance(2 * tick)
        assert await cache.increment("short", ttl=600) == 2
        assert await cache.increment("endless", ttl=tick) == 2

        async def ended() -> bool:
            return not await cache.exists("short")

        assert await passes(harness, ended, ticks=3)
        assert await cache.get("endless") == 2
        assert await cache.increment("short") == 1
