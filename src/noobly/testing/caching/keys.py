"""Keys: any Unicode text, taken letter by letter."""

from __future__ import annotations

import pytest

from noobly.caching import Cache
from noobly.testing.caching.theme import Theme

ODD_KEYS = (
    "with space",
    " ",
    "a/b",
    "/",
    "..",
    "../../etc/passwd",
    ".",
    "trail/",
    "trailing.",
    "CON",
    "naïve — ключ 鍵",
    "two\nlines",
    "ends in newline\n",
    "\r\n",
    "\t",
    "nul\x00inside",
    "\x00",
    "".join(map(chr, range(32))),
    "\x7f\x80\x9f",
    "percent%2Fsign",
    "%",
    "?query&a=1#hash",
    "+",
    "🦊👩‍👩‍👧",
    "e\u0301",
    "\u00e9",
    "\ufeff",
    "\u2028",
    "\U0010ffff",
    "user:\x1f",
    "\x1f",
    "\x1f\x1f",
    "\x1fh",
    "\x1ftusers",
    "key\x1fc",
    ":",
    "::",
    ":x",
    "x:",
    "quote'\"`\\",
    "get set\r\nDELETE",
    "Key",
    "key",
    "k" * 1024,
    "k" * 1023 + "é",
    "鍵" * 1024,
    "\x1f" * 512,
)


class KeysTheme(Theme):
    """No key is special, and no two keys are the same."""

    @pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: ascii(key)[:24])
    async def test_an_odd_key_works_everywhere(self, cache: Cache, key: str) -> None:
        await cache.put(key, "value")
        assert await cache.get(key) == "value"
        assert await cache.exists(key)
        assert await cache.touch(key, 60)
        assert await cache.get_many([key]) == {key: "value"}
        assert not await cache.add(key, "other")
        assert await cache.delete(key)
        assert await cache.get_or_compute(key, lambda: "computed") == "computed"
        assert await cache.get(key) == "computed"
        assert await cache.expire(key)
        assert await cache.increment(key) == 1
        assert await cache.delete_many([key]) == 1
        assert await cache.get(key) is None

    async def test_no_two_keys_are_the_same(self, cache: Cache) -> None:
        numbered = {key: number for number, key in enumerate(ODD_KEYS)}
        await cache.put_many(numbered)
        assert await cache.get_many(list(ODD_KEYS)) == numbered
        for key, number in numbered.items():
            assert await cache.get(key) == number
        assert await cache.delete_many(list(ODD_KEYS)) == len(ODD_KEYS)

    @pytest.mark.parametrize("name", ["a b", "\x1f", "x" * 1024, "鍵\n", "a:b", "..", "%00"], ids=ascii)
    async def test_tags_locks_and_namespaces_take_any_text(self, cache: Cache, name: str) -> None:
        await cache.put("tagged", 1, tags=[name])
        assert await cache.get("tagged") == 1
        await cache.invalidate([name])
        assert await cache.get("tagged") is None
        token = await cache.acquire(name)
        assert token is not None
        assert await cache.acquire(name) is None
        assert await cache.release(name, token)
        await cache.clear(name)

    async def test_keys_tags_and_locks_of_one_name_do_not_meet(self, cache: Cache) -> None:
        token = await cache.acquire("name")
        assert token is not None
        await cache.put("name", "value", tags=["name"])
        claim = await cache.claim("other")
        assert claim.token is not None
        assert await cache.get("name") == "value"
        assert await cache.acquire("name") is None
        await cache.delete("name")
        assert await cache.release("name", token)
        assert await cache.get("other") is None
