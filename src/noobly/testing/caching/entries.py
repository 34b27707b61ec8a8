"""Entries: put, get, add, delete, many at once, clear."""

from __future__ import annotations

from noobly.caching import Cache, State
from noobly.testing.caching.theme import Pair, Theme


class EntriesTheme(Theme):
    """The plain life of entries."""

    async def test_what_was_put_is_got(self, cache: Cache) -> None:
        await cache.put("user:1", {"name": "Ada"})
        assert await cache.get("user:1") == {"name": "Ada"}

    async def test_a_missing_key_gives_the_default(self, cache: Cache) -> None:
        assert await cache.get("nobody") is None
        assert await cache.get("nobody", "default") == "default"

    async def test_put_replaces(self, cache: Cache) -> None:
        await cache.put("key", "old and longer")
        await cache.put("key", "new")
        assert await cache.get("key") == "new"

    async def test_delete_says_whether_there_was_something(self, cache: Cache) -> None:
        await cache.put("key", 1)
        assert await cache.delete("key")
        assert not await cache.delete("key")
        assert await cache.get("key") is None

    async def test_exists(self, cache: Cache) -> None:
        assert not await cache.exists("key")
        await cache.put("key", None)
        assert await cache.exists("key")

    async def test_add_stores_only_where_nothing_is(self, cache: Cache) -> None:
        assert await cache.add("key", "first")
        assert not await cache.add("key", "second")
        assert await cache.get("key") == "first"
        await cache.delete("key")
        assert await cache.add("key", "third")
        assert await cache.get("key") == "third"

    async def test_touch_and_expire_say_whether_there_was_something(self, cache: Cache) -> None:
        assert not await cache.touch("key", 60)
        assert not await cache.expire("key")
        await cache.put("key", 1)
        assert await cache.touch("key", 60)
        assert await cache.get("key") == 1
        assert await cache.expire("key")
        assert await cache.get("key") is None

    async def test_lookup_tells_what_is_known(self, cache: Cache) -> None:
        assert await cache.lookup("key") is None
        await cache.put("key", [1], tags=["b", "a"], ttl=60)
        entry = await cache.lookup("key")
        assert entry is not None
        assert (entry.value, entry.state, entry.tags) == ([1], State.FRESH, ["a", "b"])
        assert entry.created > 1_600_000_000

    async def test_many_at_once(self, cache: Cache) -> None:
        await cache.put_many({"a": 1, "b": None, "c": [3]})
        assert await cache.get_many(["c", "missing", "a", "b"]) == {"a": 1, "b": None, "c": [3]}
        assert await cache.delete_many(["a", "missing", "b"]) == 2
        assert await cache.get_many(["a", "b", "c"]) == {"c": [3]}

    async def test_many_may_be_none_or_the_same(self, cache: Cache) -> None:
        await cache.put_many({})
        assert await cache.get_many([]) == {}
        assert await cache.delete_many([]) == 0
        await cache.put("a", 1)
        assert await cache.get_many(["a", "a"]) == {"a": 1}
        assert await cache.delete_many(["a", "a"]) == 1

    async def test_very_many_are_deleted(self, cache: Cache) -> None:
        keys = [f"many:{number}" for number in range(5001)]
        await cache.put_many(dict.fromkeys(keys[:100], 1))
        await cache.put(keys[-1], 1)
        assert await cache.delete_many(keys) == 101
        assert await cache.get_many(keys[:3] + keys[-1:]) == {}

    async def test_clear_takes_one_namespace_only(self, cache: Cache) -> None:
        mine = {"user:1": 1, "user:2:x": 2, "user:": 3}
        others = {"user": 4, "users:1": 5, "auser:1": 6, "other:user:1": 7, "User:1": 8}
        await cache.put_many(mine | others)
        await cache.clear("user")
        assert await cache.get_many([*mine, *others]) == others

    async def test_clear_reads_a_namespace_letter_by_letter(self, cache: Cache) -> None:
        odd = ["a*", "a?", "[ab]", "a\\", "a%", "a_", "a/b", "..", "a\x1f", "é", "a{b}", "^a", "a\n"]
        await cache.put_many({f"{name}:1": name for name in odd} | {"ab:1": "ab", "a:1": "a", "axx:1": "axx"})
        left = {"ab:1": "ab", "a:1": "a", "axx:1": "axx"}
        for name in odd:
            assert await cache.get(f"{name}:1") == name
            await cache.clear(name)
            assert await cache.get(f"{name}:1") is None
        assert await cache.get_many(list(left)) == left

    async def test_clear_takes_everything_and_is_repeatable(self, cache: Cache) -> None:
        await cache.put_many({"a": 1, "b:c": 2})
        await cache.clear()
        await cache.clear()
        assert await cache.get_many(["a", "b:c"]) == {}
        await cache.put("a", 3)
        assert await cache.get("a") == 3

    async def test_two_clients_see_the_same(self, pair: Pair) -> None:
        one, other = pair
        await one.put("key", "from one")
        assert await other.get("key") == "from one"
        await other.put("key", "from other")
        assert await one.get("key") == "from other"
        assert await one.delete("key")
        assert await other.get("key") is None
        assert not await other.exists("key")
