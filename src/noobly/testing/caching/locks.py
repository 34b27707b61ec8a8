"""Locks: one holder at a time, for as long as it lives."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from noobly.caching import Cache
from noobly.core.errors import Conflict
from noobly.testing.caching.theme import Pair, Theme
from noobly.testing.harness import Harness, passes


class LocksTheme(Theme):
    """``acquire``, ``extend``, ``release`` and ``lock``."""

    async def test_one_holder_at_a_time(self, cache: Cache) -> None:
        token = await cache.acquire("lock")
        assert token is not None
        assert await cache.acquire("lock") is None
        assert await cache.acquire("another") is not None
        assert await cache.release("lock", token)
        assert not await cache.release("lock", token)
        assert await cache.acquire("lock") not in (None, token)

    async def test_the_token_of_another_lock_is_refused(self, cache: Cache) -> None:
        token = await cache.acquire("lock")
        assert token is not None
        assert not await cache.release("lock", "not mine")
        assert not await cache.release("lock", "")
        assert not await cache.extend("lock", "not mine")
        assert await cache.acquire("lock") is None
        assert await cache.extend("lock", token)

    async def test_a_lease_ends_and_an_old_token_frees_nobody_elses_lock(self, cache: Cache, harness: Harness) -> None:
        old = await cache.acquire("lock", lease=3 * harness.tick)
        kept = await cache.acquire("kept", lease=timedelta(seconds=3 * harness.tick))
        assert old is not None
        assert kept is not None
        assert await cache.extend("kept", kept, lease=60)
        found: list[str] = []

        async def free() -> bool:
            token = await cache.acquire("lock", lease=60)
            found.extend([token] if token else [])
            return token is not None

        assert await passes(harness, free, ticks=3.5)
        assert not await cache.release("lock", old)
        assert not await cache.extend("lock", old)
        assert await cache.acquire("lock") is None
        assert await cache.release("lock", found[0])
        assert await cache.acquire("kept") is None

    async def test_tasks_exclude_each_other(self, cache: Cache) -> None:
        inside, most = 0, 0

        async def work() -> None:
            nonlocal inside, most
            async with cache.lock("lock"):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

        async with asyncio.timeout(30):
            await asyncio.gather(*(work() for _ in range(8)))
        assert most == 1

    async def test_two_clients_exclude_each_other(self, pair: Pair) -> None:
        one, other = pair
        async with one.lock("lock") as token:
            assert await other.acquire("lock") is None
            with pytest.raises(Conflict, match="lock"):
                async with other.lock("lock", wait=0.05):
                    pass
            assert not await other.release("lock", "not mine")
            assert token
        assert await other.acquire("lock") is not None

    async def test_a_lock_is_free_after_failure_and_cancellation(self, cache: Cache) -> None:
        with pytest.raises(ZeroDivisionError):
            async with cache.lock("lock"):
                raise ZeroDivisionError
        held = asyncio.Event()

        async def hold() -> None:
            async with cache.lock("lock", lease=timedelta(seconds=30)):
                held.set()
                await asyncio.Event().wait()

        holder = asyncio.create_task(hold())
        await held.wait()
        assert await cache.acquire("lock") is None
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)
        assert await cache.acquire("lock") is not None

    async def test_a_living_holder_keeps_its_lock(self, cache: Cache, harness: Harness) -> None:
        if not harness.real_time:
            pytest.skip("renewal goes by the event loop's clock, which cannot be set")
        for lease in (3 * harness.tick, timedelta(seconds=3 * harness.tick)):
            async with cache.lock("lock", lease=lease):
                await harness.advance(6 * harness.tick)
                assert await cache.acquire("lock") is None

    async def test_clearing_a_namespace_leaves_locks(self, cache: Cache) -> None:
        token = await cache.acquire("space:lock")
        await cache.clear("space")
        assert await cache.acquire("space:lock") is None
        assert token is not None
        assert await cache.release("space:lock", token)
