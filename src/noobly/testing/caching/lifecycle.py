"""Lifecycle: crowds, cancellation in the middle, closing, and servers that come back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from noobly.caching import Cache, Can
from noobly.core.errors import Closed, NooblyError, Unavailable, Unsupported
from noobly.testing.caching.theme import Theme
from noobly.testing.harness import Harness

_CALLS: tuple[Callable[[Cache], Awaitable[object]], ...] = (
    lambda cache: cache.get("key"),
    lambda cache: cache.put("key", 1),
    lambda cache: cache.add("key", 1),
    lambda cache: cache.lookup("key"),
    lambda cache: cache.exists("key"),
    lambda cache: cache.delete("key"),
    lambda cache: cache.expire("key"),
    lambda cache: cache.touch("key", 5),
    lambda cache: cache.increment("key"),
    lambda cache: cache.get_many(["key"]),
    lambda cache: cache.put_many({"key": 1}),
    lambda cache: cache.delete_many(["key"]),
    lambda cache: cache.invalidate(["tag"]),
    lambda cache: cache.clear(),
    lambda cache: cache.claim("key"),
    lambda cache: cache.acquire("key"),
    lambda cache: cache.release("key", "token"),
    lambda cache: cache.hot_keys(),
    lambda cache: cache.get_or_compute("key", lambda: 1),
)


async def _work(cache: Cache, number: int) -> None:
    """Do a little of everything on keys of one's own and on shared ones."""
    own = f"own:{number}"
    await cache.put(own, {"n": number}, tags=[f"tag {number % 5}"])
    assert await cache.get_or_compute(f"shared:{number % 7}", lambda: number % 7) == number % 7
    await cache.increment("total")
    await cache.put_many({f"{own}:a": "a", f"{own}:b": [number]})
    assert await cache.get_many([f"{own}:a", f"{own}:b"]) == {f"{own}:a": "a", f"{own}:b": [number]}
    assert await cache.get(own) == {"n": number}
    assert await cache.touch(own, 600)
    assert await cache.delete(own)
    assert await cache.get(own) is None


class LifecycleTheme(Theme):
    """A cache stays right whatever its callers do to it."""

    async def test_a_hundred_tasks_at_once(self, cache: Cache) -> None:
        await asyncio.gather(*(_work(cache, number) for number in range(100)))
        assert await cache.get("total") == 100

    async def test_cancelled_calls_leave_later_ones_right(self, cache: Cache) -> None:
        chance = random.Random(11)
        tasks = [asyncio.create_task(_read_and_write(cache, number)) for number in range(200)]
        for step in range(200):
            await asyncio.sleep(0)
            if step % 2:
                chance.choice(tasks).cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(one is None or isinstance(one, asyncio.CancelledError) for one in ended)
        assert any(isinstance(one, asyncio.CancelledError) for one in ended)
        for number in range(200):
            await cache.put(f"key:{number}", f"later {number}")
        keys = [f"key:{number}" for number in range(200)]
        assert await cache.get_many(keys) == {key: key.replace("key:", "later ") for key in keys}
        for number in (0, 99, 199):
            assert await cache.get(f"key:{number}") == f"later {number}"

    async def test_a_closed_cache_refuses_every_call(self, harness: Harness) -> None:
        async with harness.open() as cache:
            await cache.put("key", 1)
        for call in _CALLS:
            with pytest.raises(Closed):
                await call(cache)

    async def test_closing_twice_does_no_harm(self, harness: Harness) -> None:
        async with harness.open() as cache:
            await cache.close()

    async def test_what_is_missing_is_refused_on_opening(self, harness: Harness) -> None:
        for capability in Can:
            if capability in harness.capabilities:
                async with harness.open(require=[capability]):
                    pass
            else:
                with pytest.raises(Unsupported, match=capability.name.lower()):
                    async with harness.open(require=[capability]):
                        raise AssertionError("it opened without what was required")

    async def test_a_restarted_server_is_found_again(self, harness: Harness) -> None:
        if not harness.restartable:
            pytest.skip("there is no server of our own to restart")
        async with harness.open() as cache:
            await cache.put("key", 1)
            await harness.restart()

            async def back() -> bool:
                await harness.jump(2)  # Past the pause of the circuit breaker.
                try:
                    await cache.put("key", 2)
                except NooblyError as error:
                    assert error.temporary, error
                    return False
                return bool(await cache.get("key") == 2)

            for _ in range(100):
                if await back():
                    break
                await asyncio.sleep(0.05)
            assert await back()
            assert await cache.get_or_compute("other", lambda: 3) == 3
            assert await cache.increment("count") == 1

    async def test_a_server_that_cannot_be_reached(self, harness: Harness) -> None:
        if not harness.restartable:
            pytest.skip("there is no server of our own to stop")
        async with harness.open(timeout=1.0, attempts=2) as cache:
            await cache.put("key", 1)
            await harness.stop()
            assert await cache.get("key", "miss") == "miss"
            assert await cache.get_many(["key"]) == {}
            assert await cache.get_or_compute("key", lambda: "unsaved") == "unsaved"
            with pytest.raises(Unavailable):
                await cache.put("key", 2)
            assert (await cache.stats()).misses_by_reason.get("unavailable", 0) >= 3
            await harness.restart()


async def _read_and_write(cache: Cache, number: int) -> None:
    key = f"key:{number}"
    for turn in range(5):
        await cache.put(key, f"{number} {turn}")
        got = await cache.get(key)
        assert got == f"{number} {turn}"
        assert await cache.get_or_compute(f"computed:{number}", lambda: number) == number
        await cache.get_many([key, f"key:{number + 1}"])
