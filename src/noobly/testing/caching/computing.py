"""Computing: once for all who ask, in one process and in all."""

from __future__ import annotations

import asyncio

import pytest

from noobly.caching import Cache
from noobly.core.errors import Closed
from noobly.testing.caching.theme import Pair, Theme
from noobly.testing.clock import eventually
from noobly.testing.harness import Harness


class Slow:
    """A factory that counts its runs and waits for its gate."""

    def __init__(self, value: object = "value") -> None:
        self.value = value
        self.runs = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> object:
        self.runs += 1
        await self.gate.wait()
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class ComputingTheme(Theme):
    """``get_or_compute`` and its decorator."""

    async def test_a_miss_computes_and_a_hit_does_not(self, cache: Cache) -> None:
        factory = Slow()
        factory.gate.set()
        assert await cache.get_or_compute("key", factory) == "value"
        assert await cache.get_or_compute("key", factory) == "value"
        assert await cache.get("key") == "value"
        assert factory.runs == 1

    async def test_a_plain_factory_will_do(self, cache: Cache) -> None:
        assert await cache.get_or_compute("key", lambda: [1]) == [1]

    async def test_a_computed_none_is_kept(self, cache: Cache) -> None:
        factory = Slow(None)
        factory.gate.set()
        for _ in range(3):
            assert await cache.get_or_compute("key", factory) is None
        assert factory.runs == 1
        assert await cache.exists("key")

    async def test_500_callers_share_one_run(self, cache: Cache) -> None:
        factory = Slow({"n": 1})
        calls = [asyncio.create_task(cache.get_or_compute("key", factory)) for _ in range(500)]
        await eventually(lambda: factory.runs)
        factory.gate.set()
        assert await asyncio.gather(*calls) == [{"n": 1}] * 500
        assert factory.runs == 1

    async def test_callers_of_other_keys_do_not_wait(self, cache: Cache) -> None:
        factory = Slow()
        waiting = asyncio.create_task(cache.get_or_compute("slow", factory))
        await eventually(lambda: factory.runs)
        assert await cache.get_or_compute("quick", lambda: 1) == 1
        factory.gate.set()
        assert await waiting == "value"

    async def test_a_cancelled_caller_does_not_cancel_the_others(self, cache: Cache) -> None:
        factory = Slow()
        calls = [asyncio.create_task(cache.get_or_compute("key", factory)) for _ in range(5)]
        await eventually(lambda: factory.runs)
        for call in calls[:3]:
            call.cancel()
        ended = await asyncio.gather(*calls[:3], return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        factory.gate.set()
        assert await asyncio.gather(*calls[3:]) == ["value"] * 2
        assert factory.runs == 1

    async def test_it_goes_on_if_all_callers_are_cancelled(self, cache: Cache) -> None:
        factory = Slow()
        call = asyncio.create_task(cache.get_or_compute("key", factory))
        await eventually(lambda: factory.runs)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        factory.gate.set()

        async def kept() -> bool:
            return bool(await cache.get("key") == "value")

        await eventually(kept)
        assert factory.runs == 1

    async def test_a_failure_reaches_all_and_is_not_kept(self, cache: Cache) -> None:
        error = LookupError("on purpose")
        factory = Slow(error)
        calls = [asyncio.create_task(cache.get_or_compute("key", factory)) for _ in range(5)]
        await eventually(lambda: factory.runs)
        factory.gate.set()
        assert await asyncio.gather(*calls, return_exceptions=True) == [error] * 5
        assert factory.runs == 1
        assert await cache.get_or_compute("key", lambda: "fine") == "fine"

    async def test_two_clients_make_one_call(self, pair: Pair) -> None:
        factory = Slow()
        calls = [asyncio.create_task(pair[n % 2].get_or_compute("key", factory)) for n in range(40)]
        await eventually(lambda: factory.runs)
        factory.gate.set()
        assert await asyncio.gather(*calls) == ["value"] * 40
        assert factory.runs == 1

    async def test_who_waits_too_long_for_another_client_computes(self, harness: Harness) -> None:
        if not harness.shared:
            pytest.skip("two caches of this provider share nothing")
        async with harness.open() as one, harness.open(wait=0.2) as other:
            claim = await one.claim("key")
            assert claim.token is not None
            call = asyncio.create_task(other.get_or_compute("key", lambda: "own"))

            async def given_up() -> bool:
                await harness.jump(0.1)
                return call.done()

            await eventually(given_up)
            assert await call == "own"
            assert await one.fulfil("key", claim.token, "first")
            assert await other.get("key") == "first"

    async def test_another_clients_stale_value_is_served_meanwhile(self, pair: Pair) -> None:
        one, other = pair
        await one.put("key", "old", ttl=60, grace=600)
        await one.expire("key")
        claim = await one.claim("key")
        assert claim.token is not None
        assert await other.get_or_compute("key", lambda: "own", grace=600) == "old"
        assert await one.fulfil("key", claim.token, "new")
        assert await other.get_or_compute("key", lambda: "own") == "new"

    async def test_closing_ends_it(self, harness: Harness) -> None:
        factory = Slow()
        async with harness.open() as cache:
            call = asyncio.create_task(cache.get_or_compute("key", factory))
            await eventually(lambda: factory.runs)
        with pytest.raises(Closed):
            await call

    async def test_a_claim_is_not_left_behind_by_closing(self, harness: Harness) -> None:
        if not harness.shared:
            pytest.skip("two caches of this provider share nothing")
        factory = Slow()
        async with harness.open() as other:
            async with harness.open() as cache:
                call = asyncio.create_task(cache.get_or_compute("key", factory))
                await eventually(lambda: factory.runs)
            await asyncio.gather(call, return_exceptions=True)
            claim = await other.claim("key")
            assert claim.token is not None

    async def test_the_decorator_keeps_results(self, cache: Cache) -> None:
        runs: list[int] = []

        @cache.cached("square:{number}", ttl=60, tags=["squares"])
        async def square(number: int) -> int:
            runs.append(number)
            return number * number

        assert [await square(3), await square(number=3), await square(4)] == [9, 9, 16]
        assert runs == [3, 4]
        await cache.invalidate(["squares"])
        assert await square(3) == 9
        assert runs == [3, 4, 3]
