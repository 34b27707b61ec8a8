"""Refusals: what is wrong with a call is said before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast

import pytest

from noobly.caching import Cache
from noobly.core.errors import InvalidArgument, TooLarge
from noobly.core.events import OperationFinished
from noobly.testing.caching.theme import Theme, recorded, worked
from noobly.testing.harness import Harness

Wrong = Any
"""An argument of a type that the signature does not allow."""

BAD_KEYS: tuple[Wrong, ...] = ("", "k" * 1025, "\x1f" * 513, "\ud800", "ok\udfff", None, 5, b"bytes", ["list"], True)
BAD_TIMES: tuple[Wrong, ...] = (
    0,
    -1,
    -0.001,
    math.nan,
    math.inf,
    1e10,
    True,
    False,
    "60",
    Decimal(60),
    timedelta(0),
    timedelta(seconds=-1),
)
BAD_TAGS: tuple[Wrong, ...] = (
    "users",
    [""],
    ["x" * 1025],
    [5],
    [None],
    ["\ud800"],
    5,
    {"a": 1},
    [f"{n}" for n in range(65)],
)
BAD_SHARES: tuple[Wrong, ...] = (-0.1, 1.1, math.nan, True, "0.5")
BAD_VALUES: tuple[Wrong, ...] = (object(), {1j}, lambda: None, "\ud800", {"k": object()}, [b"", 1j])

Calls = tuple[Callable[[Cache, Wrong], Awaitable[object]], ...]
_KEYED: Calls = (
    lambda cache, key: cache.get(key),
    lambda cache, key: cache.put(key, 1),
    lambda cache, key: cache.put(key, 1, tags=["tag"], grace=5),
    lambda cache, key: cache.add(key, 1, tags=["tag"]),
    lambda cache, key: cache.lookup(key),
    lambda cache, key: cache.exists(key),
    lambda cache, key: cache.delete(key),
    lambda cache, key: cache.expire(key),
    lambda cache, key: cache.touch(key, 5),
    lambda cache, key: cache.increment(key),
    lambda cache, key: cache.get_many(["fine", key]),
    lambda cache, key: cache.delete_many(["fine", key]),
    lambda cache, key: cache.claim(key),
    lambda cache, key: cache.acquire(key),
    lambda cache, key: cache.get_or_compute(key, lambda: 1),
)
_TIMED: Calls = (
    lambda cache, time: cache.put("key", 1, ttl=time),
    lambda cache, time: cache.put("key", 1, sliding=time),
    lambda cache, time: cache.put("key", 1, grace=time),
    lambda cache, time: cache.add("key", 1, ttl=time),
    lambda cache, time: cache.put_many({"key": 1}, ttl=time),
    lambda cache, time: cache.touch("key", time),
    lambda cache, time: cache.increment("key", ttl=time),
    lambda cache, time: cache.claim("key", lease=time),
    lambda cache, time: cache.acquire("key", lease=time),
    lambda cache, time: cache.get_or_compute("key", lambda: 1, ttl=time),
    lambda cache, time: cache.get_or_compute("key", lambda: 1, sliding=time),
)
_TAGGED: Calls = (
    lambda cache, tags: cache.put("key", 1, tags=tags),
    lambda cache, tags: cache.add("key", 1, tags=tags),
    lambda cache, tags: cache.put_many({"key": 1}, tags=tags),
    lambda cache, tags: cache.invalidate(tags),
    lambda cache, tags: cache.claim("key", tags=tags),
    lambda cache, tags: cache.get_or_compute("key", lambda: 1, tags=tags),
)
_SHARED: Calls = (
    lambda cache, share: cache.put("key", 1, ttl=5, jitter=share),
    lambda cache, share: cache.get_or_compute("key", lambda: 1, jitter=share),
    lambda cache, share: cache.get_or_compute("key", lambda: 1, refresh_ahead=share),
)
_VALUED: Calls = (
    lambda cache, value: cache.put("key", value),
    lambda cache, value: cache.put("key", value, tags=["tag"]),
    lambda cache, value: cache.add("key", value),
    lambda cache, value: cache.put_many({"fine": 1, "key": value}, tags=["tag"]),
)
_OTHER: tuple[Callable[[Cache], Awaitable[object]], ...] = (
    lambda cache: cache.get_many(cast("list[str]", "text")),
    lambda cache: cache.delete_many(cast("list[str]", "text")),
    lambda cache: cache.increment("key", cast(int, 1.5)),
    lambda cache: cache.increment("key", True),
    lambda cache: cache.increment("key", 2**63),
    lambda cache: cache.decrement("key", True),
    lambda cache: cache.decrement("key", cast(int, "1")),
    lambda cache: cache.release("key", cast(str, 5)),
    lambda cache: cache.release("key", "\ud800"),
    lambda cache: cache.renew("key", "no token of mine"),
    lambda cache: cache.abandon("key", "é"),
    lambda cache: cache.fulfil("key", "", 1),
    lambda cache: cache.clear("x" * 1025),
    lambda cache: cache.clear(cast(str, None)),
    lambda cache: cache.record_hot_keys(0),
    lambda cache: cache.put_many({"fine": 1, "": 2}, tags=["tag"]),
)


async def _refused(cache: Cache, calls: Calls, wrong: Wrong) -> None:
    done = recorded(cache, OperationFinished)
    for call in calls:
        with pytest.raises(InvalidArgument) as refusal:
            await call(cache, wrong)
        assert refusal.value.message
    assert worked(done) == []


class RefusalsTheme(Theme):
    """Bad input raises InvalidArgument or TooLarge, and no operation of the store is done."""

    @pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: ascii(key)[:24])
    async def test_bad_keys(self, cache: Cache, key: Wrong) -> None:
        await _refused(cache, _KEYED, key)

    @pytest.mark.parametrize("time", BAD_TIMES, ids=repr)
    async def test_bad_lengths_of_time(self, cache: Cache, time: Wrong) -> None:
        await _refused(cache, _TIMED, time)

    @pytest.mark.parametrize("tags", BAD_TAGS, ids=lambda tags: ascii(tags)[:24])
    async def test_bad_tags(self, cache: Cache, tags: Wrong) -> None:
        await _refused(cache, _TAGGED, tags)

    @pytest.mark.parametrize("share", BAD_SHARES, ids=repr)
    async def test_bad_shares(self, cache: Cache, share: Wrong) -> None:
        await _refused(cache, _SHARED, share)

    @pytest.mark.parametrize("value", BAD_VALUES, ids=lambda value: type(value).__name__)
    async def test_bad_values(self, cache: Cache, value: Wrong) -> None:
        await _refused(cache, _VALUED, value)

    async def test_other_bad_arguments(self, cache: Cache) -> None:
        done = recorded(cache, OperationFinished)
        for call in _OTHER:
            with pytest.raises(InvalidArgument):
                await call(cache)
        assert worked(done) == []

    async def test_values_over_the_limit(self, harness: Harness) -> None:
        async with harness.open(value_bytes=1000) as cache:
            done = recorded(cache, OperationFinished)
            with pytest.raises(TooLarge, match="key"):
                await cache.put("key", b"x" * 1001)
            with pytest.raises(TooLarge):
                await cache.put_many({"key": "x" * 999}, tags=["tag"])
            assert worked(done) == []
            await cache.put("key", b"x" * 1000)
            assert await cache.get("key") == b"x" * 1000

    async def test_a_refused_value_leaves_the_old_one(self, cache: Cache) -> None:
        await cache.put("key", "old")
        with pytest.raises(InvalidArgument):
            await cache.put("key", cast(str, object()))
        with pytest.raises(InvalidArgument):
            await cache.put_many({"key": 1, "": 2})
        assert await cache.get("key") == "old"

    async def test_a_refused_factory_value_leaves_no_claim(self, cache: Cache) -> None:
        with pytest.raises(InvalidArgument):
            await cache.get_or_compute("key", object)
        assert await cache.get_or_compute("key", lambda: "fine") == "fine"

    async def test_messages_do_not_show_values(self, cache: Cache) -> None:
        with pytest.raises(InvalidArgument) as refusal:
            await cache.put("key", {"password": "hunter2", "bad": object()})
        assert "hunter2" not in str(refusal.value)
