"""Tags: one call makes all entries of a tag invalid, also those that are just being made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from noobly.caching import Cache, Computed
from noobly.testing.caching.theme import Pair, Theme
from noobly.testing.harness import Harness

Change = Callable[[Cache], Awaitable[object]]

BREAKING: dict[str, Change] = {
    "invalidate": lambda cache: cache.invalidate(["tag"]),
    "delete": lambda cache: cache.delete("space:key"),
    "delete_many": lambda cache: cache.delete_many(["space:key"]),
    "expire": lambda cache: cache.expire("space:key"),
    "clear namespace": lambda cache: cache.clear("space"),
    "clear all": lambda cache: cache.clear(),
}
REPLACING: dict[str, Change] = {
    "put": lambda cache: cache.put("space:key", "newer"),
    "put_many": lambda cache: cache.put_many({"space:key": "newer"}),
    "add": lambda cache: cache.add("space:key", "newer"),
    "put tagged": lambda cache: cache.put("space:key", "newer", tags=["tag"], grace=60),
}


class TagsTheme(Theme):
    """Invalidation is at once, however many entries there are, and wins over late values."""

    async def test_invalidation_takes_exactly_the_tagged(self, cache: Cache) -> None:
        await cache.put("both", 1, tags=["a", "b"])
        await cache.put("a", 2, tags=["a"])
        await cache.put("b", 3, tags=["b"])
        await cache.put("none", 4)
        await cache.invalidate(["a"])
        assert await cache.get_many(["both", "a", "b", "none"]) == {"b": 3, "none": 4}
        assert await cache.get("a") is None
        assert not await cache.exists("both")
        assert await cache.lookup("a") is None

    async def test_every_way_of_putting_takes_tags(self, cache: Cache) -> None:
        await cache.put_many({"many:1": 1, "many:2": 2}, tags=["t"])
        await cache.add("added", 3, tags=["t"])
        await cache.get_or_compute("computed", lambda: 4, tags=["t"])
        await cache.get_or_compute("chosen", lambda: Computed(value=5, tags=["t"]))
        keys = ["many:1", "many:2", "added", "computed", "chosen"]
        assert len(await cache.get_many(keys)) == 5
        await cache.invalidate(["t"])
        assert await cache.get_many(keys) == {}

    async def test_an_entry_put_afterwards_is_good(self, cache: Cache) -> None:
        await cache.put("key", "old", tags=["t"])
        await cache.invalidate(["t"])
        await cache.put("key", "new", tags=["t"])
        assert await cache.get("key") == "new"
        await cache.invalidate(["t"])
        assert await cache.add("key", "added", tags=["t"]) or await cache.get("key") is None

    async def test_several_tags_and_unknown_ones(self, cache: Cache) -> None:
        await cache.put("a", 1, tags=["a"])
        await cache.put("b", 2, tags=["b", "b"])
        await cache.invalidate([])
        await cache.invalidate(["nobody has this"])
        assert await cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
        await cache.invalidate(["a", "b", "c", "a"])
        assert await cache.get_many(["a", "b"]) == {}

    async def test_an_entry_may_have_64_tags(self, cache: Cache) -> None:
        tags = [f"tag {number}" for number in range(64)]
        await cache.put("key", 1, tags=tags)
        entry = await cache.lookup("key")
        assert entry is not None
        assert entry.tags == sorted(tags)
        await cache.invalidate([tags[63]])
        assert await cache.get("key") is None

    async def test_very_many_entries_at_once(self, cache: Cache) -> None:
        keys = [f"bulk:{number}" for number in range(2000)]
        await cache.put_many(dict.fromkeys(keys, 1), tags=["bulk"])
        await cache.invalidate(["bulk"])
        assert await cache.get_many(keys) == {}

    async def test_another_client_sees_it(self, pair: Pair) -> None:
        one, other = pair
        await one.put("key", 1, tags=["t"])
        assert await other.get("key") == 1
        await other.invalidate(["t"])
        assert await other.get("key") is None
        assert await one.get("key") is None

    async def test_stale_is_not_kept_past_an_invalidation(self, cache: Cache, harness: Harness) -> None:
        await cache.put("key", "old", ttl=60, grace=600, tags=["t"])
        await harness.jump(61)
        assert await cache.lookup("key") is not None
        await cache.invalidate(["t"])
        assert await cache.lookup("key") is None

    @pytest.mark.parametrize("graced", [False, True], ids=["absent", "stale"])
    @pytest.mark.parametrize("change", BREAKING.values(), ids=list(BREAKING))
    async def test_what_is_removed_meanwhile_does_not_come_back(
        self, cache: Cache, change: Change, graced: bool
    ) -> None:
        if graced:
            await cache.put("space:key", "old", ttl=60, grace=600, tags=["tag"])
            await cache.expire("space:key")
        assert await _computed_around(cache, change) == "computed"
        assert await cache.get("space:key") is None
        assert await cache.get_or_compute("space:key", lambda: "again") == "again"
        assert await cache.get("space:key") == "again"

    @pytest.mark.parametrize("change", BREAKING.values(), ids=list(BREAKING))
    async def test_there_is_no_gap_between_storing_and_removing(self, cache: Cache, change: Change) -> None:
        for turns in range(16):
            claim = await cache.claim("space:key", tags=["tag"])
            assert claim.token is not None
            storing = cache.fulfil("space:key", claim.token, "late", ttl=60)
            await asyncio.gather(storing, _later(turns, change, cache))
            assert await cache.get("space:key") is None

    @pytest.mark.parametrize("change", REPLACING.values(), ids=list(REPLACING))
    async def test_what_is_put_meanwhile_stays(self, cache: Cache, change: Change) -> None:
        assert await _computed_around(cache, change) == "computed"
        assert await cache.get("space:key") == "newer"

    async def test_so_does_what_was_there_before(self, cache: Cache, harness: Harness) -> None:
        await cache.put("space:key", "same", ttl=60, grace=600)
        await harness.jump(61)

        async def put_the_same(cache: Cache) -> None:
            await cache.put("space:key", "same", ttl=60, grace=600)

        await _computed_around(cache, put_the_same)
        assert await cache.get("space:key") == "same"

    async def test_another_clients_change_wins_too(self, pair: Pair) -> None:
        one, other = pair
        for change in BREAKING.values():
            await _computed_around(one, change, by=other)
            assert await one.get("space:key") is None
            assert await other.get("space:key") is None


async def _later(turns: int, change: Change, cache: Cache) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    await change(cache)


async def _computed_around(cache: Cache, change: Change, *, by: Cache | None = None) -> object:
    """Compute an entry, and do something else while its factory runs."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await go_on.wait()
        return "computed"

    computing = asyncio.create_task(cache.get_or_compute("space:key", slow, tags=["tag"], ttl=600))
    await begun.wait()
    await change(by or cache)
    go_on.set()
    return await computing
