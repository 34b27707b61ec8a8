"""Listing: all keys, page by page, where the provider can."""

from __future__ import annotations

import pytest

from noobly.caching import Cache, Can
from noobly.core.errors import InvalidArgument, Unsupported
from noobly.testing.caching.keys import ODD_KEYS
from noobly.testing.caching.theme import Theme
from noobly.testing.harness import Harness, passes


class ListingTheme(Theme):
    """``keys`` and ``list_keys``; refused where the provider does not claim ``Can.LIST``."""

    async def _listed(self, cache: Cache, namespace: str = "", *, limit: int = 100) -> list[str]:
        found: list[str] = []
        after: str | None = None
        for _ in range(10_000):
            page = await cache.list_keys(namespace, after=after, limit=limit)
            found += page.keys
            after = page.after
            if after is None:
                return found
        raise AssertionError("listing does not end")

    @pytest.fixture
    def lists(self, harness: Harness) -> None:
        """Skip tests of listing where it is not claimed."""
        if Can.LIST not in harness.capabilities:
            pytest.skip("the provider does not list keys")

    async def test_what_is_not_claimed_is_refused(self, cache: Cache, harness: Harness) -> None:
        if Can.LIST in harness.capabilities:
            pytest.skip("the provider lists keys")
        with pytest.raises(Unsupported, match="list"):
            await cache.list_keys()
        with pytest.raises(Unsupported):
            async for _ in cache.keys():
                pass

    @pytest.mark.usefixtures("lists")
    async def test_pages_hold_every_key_once(self, cache: Cache) -> None:
        keys = [f"page:{number}" for number in range(250)]
        await cache.put_many(dict.fromkeys(keys, 1))
        for limit in (1, 7, 100, 10_000):
            assert sorted(await self._listed(cache, limit=limit)) == sorted(keys)
        assert sorted([key async for key in cache.keys("")]) == sorted(keys)

    @pytest.mark.usefixtures("lists")
    async def test_a_namespace_alone(self, cache: Cache) -> None:
        mine = ["user:1", "user:2:x", "user:"]
        await cache.put_many(dict.fromkeys([*mine, "user", "users:1", "User:1", "x:user:1", "us*r:1"], 1))
        assert sorted(await self._listed(cache, "user")) == sorted(mine)
        assert await self._listed(cache, "us*r") == ["us*r:1"]
        assert await self._listed(cache, "nobody") == []

    @pytest.mark.usefixtures("lists")
    async def test_odd_keys_come_back_as_they_are(self, cache: Cache) -> None:
        await cache.put_many(dict.fromkeys(ODD_KEYS, 1))
        assert sorted(await self._listed(cache, limit=5)) == sorted(ODD_KEYS)
        await cache.put("a\x1fb:key", 1)
        assert await self._listed(cache, "a\x1fb") == ["a\x1fb:key"]

    @pytest.mark.usefixtures("lists")
    async def test_the_suites_own_entries_are_hidden(self, cache: Cache) -> None:
        await cache.put("mine:1", 1, tags=["tag"])
        await cache.acquire("mine:lock")
        await cache.claim("mine:claimed")
        await cache.get("mine:1")
        await cache.record_hot_keys(5)
        for limit in (1, 1000):
            assert await self._listed(cache, limit=limit) == ["mine:1"]
            assert await self._listed(cache, "mine", limit=limit) == ["mine:1"]

    @pytest.mark.usefixtures("lists")
    async def test_what_has_ended_is_hidden(self, cache: Cache, harness: Harness) -> None:
        await cache.put("short", 1, ttl=harness.tick)
        await cache.put("long", 1, ttl=600)
        assert sorted(await self._listed(cache)) == ["long", "short"]

        async def hidden() -> bool:
            return await self._listed(cache) == ["long"]

        assert await passes(harness, hidden, ticks=1.5)
        await cache.delete("long")
        assert await self._listed(cache) == []

    @pytest.mark.usefixtures("lists")
    async def test_keys_that_stay_are_listed_while_others_go(self, cache: Cache) -> None:
        stay = {f"stay:{number}" for number in range(60)}
        await cache.put_many(dict.fromkeys([*stay, *(f"go:{number}" for number in range(60))], 1))
        seen: list[str] = []
        after, gone = None, 0
        while True:
            page = await cache.list_keys(after=after, limit=10)
            seen += page.keys
            await cache.delete_many([f"go:{number}" for number in range(gone, gone + 10)])
            gone, after = gone + 10, page.after
            if after is None:
                break
        assert stay <= set(seen)
        assert len([key for key in seen if key in stay]) == len(stay)

    @pytest.mark.usefixtures("lists")
    @pytest.mark.parametrize("limit", [0, -1, 10_001, True])
    async def test_bad_limits_are_refused(self, cache: Cache, limit: int) -> None:
        with pytest.raises(InvalidArgument):
            await cache.list_keys(limit=limit)
