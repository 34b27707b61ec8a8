"""Claims: the parts that ``get_or_compute`` is made of, for callers in other languages."""

from __future__ import annotations

import asyncio

from noobly.caching import Cache, Claim, State
from noobly.testing.caching.theme import Pair, Theme
from noobly.testing.harness import Harness, passes


async def _token(cache: Cache, key: str = "key") -> str:
    claim = await cache.claim(key)
    assert claim.token is not None
    return claim.token


class ClaimsTheme(Theme):
    """One caller gets the right to compute an entry."""

    async def test_one_claims_and_fulfils(self, cache: Cache) -> None:
        claim = await cache.claim("key")
        assert claim.token is not None
        assert claim.entry is None
        assert await cache.claim("key") == Claim(token=None, entry=None)
        assert await cache.fulfil("key", claim.token, "value", ttl=60)
        assert await cache.get("key") == "value"
        assert not await cache.fulfil("key", claim.token, "again")
        assert await cache.get("key") == "value"

    async def test_a_fresh_entry_needs_no_claim(self, cache: Cache) -> None:
        await cache.put("key", "value")
        claim = await cache.claim("key")
        assert claim.token is None
        assert claim.entry is not None
        assert claim.entry.value == "value"

    async def test_a_stale_entry_is_shown_to_all(self, cache: Cache) -> None:
        await cache.put("key", "old", ttl=60, grace=600)
        await cache.expire("key")
        first, second = await cache.claim("key"), await cache.claim("key")
        assert first.token is not None
        assert second.token is None
        for claim in (first, second):
            assert claim.entry is not None
            assert (claim.entry.value, claim.entry.state) == ("old", State.STALE)

    async def test_the_token_of_another_is_refused(self, cache: Cache) -> None:
        token, other = await _token(cache), await _token(cache, "other")
        assert not await cache.fulfil("key", other, "value")
        assert not await cache.abandon("key", other)
        assert not await cache.renew("key", other)
        assert await cache.get("key") is None
        assert await cache.fulfil("key", token, "value")

    async def test_an_abandoned_claim_is_free(self, cache: Cache) -> None:
        token = await _token(cache)
        assert await cache.abandon("key", token)
        assert not await cache.abandon("key", token)
        assert not await cache.fulfil("key", token, "late")
        assert await cache.get("key") is None
        assert await _token(cache) != token

    async def test_a_claim_may_be_given_back_after_a_pause(self, cache: Cache, harness: Harness) -> None:
        assert await cache.abandon("key", await _token(cache), pause=3 * harness.tick)
        assert (await cache.claim("key")).token is None

        async def free() -> bool:
            return (await cache.claim("key")).token is not None

        assert await passes(harness, free, ticks=3.5)

    async def test_a_claim_ends_with_its_lease(self, cache: Cache, harness: Harness) -> None:
        lease = 4 * harness.tick
        dead, kept = await cache.claim("dead", lease=lease), await cache.claim("kept", lease=lease)
        assert dead.token is not None
        assert kept.token is not None
        await harness.advance(2 * harness.tick)
        assert await cache.renew("kept", kept.token, lease=60)

        async def free() -> bool:
            return (await cache.claim("dead")).token is not None

        assert await passes(harness, free, ticks=3)
        assert not await cache.renew("dead", dead.token)
        assert not await cache.fulfil("dead", dead.token, "late")
        assert (await cache.claim("kept")).token is None
        assert await cache.fulfil("kept", kept.token, "value")

    async def test_deleting_breaks_a_claim(self, cache: Cache) -> None:
        token = await _token(cache, "space:key")
        assert not await cache.delete("space:key")
        assert not await cache.fulfil("space:key", token, "late")
        token = await _token(cache, "space:key")
        await cache.clear("space")
        assert not await cache.fulfil("space:key", token, "late")
        assert await cache.get("space:key") is None

    async def test_a_late_value_leaves_the_stale_copy(self, cache: Cache) -> None:
        await cache.put("key", "old", ttl=60, grace=600)
        await cache.expire("key")
        token = await _token(cache)
        assert await cache.expire("key")
        assert not await cache.fulfil("key", token, "late")
        entry = await cache.lookup("key")
        assert entry is not None
        assert (entry.value, entry.state) == ("old", State.STALE)

    async def test_the_tags_of_a_claim_hold_for_its_entry(self, cache: Cache) -> None:
        claim = await cache.claim("key", tags=["tag"])
        assert claim.token is not None
        await cache.invalidate(["tag"])
        await cache.fulfil("key", claim.token, "late")
        assert await cache.get("key") is None

    async def test_of_many_claims_at_once_one_is_granted(self, cache: Cache) -> None:
        claims = await asyncio.gather(*(cache.claim("key") for _ in range(50)))
        assert sum(claim.token is not None for claim in claims) == 1

    async def test_two_clients_share_claims(self, pair: Pair) -> None:
        one, other = pair
        claims = await asyncio.gather(*(pair[n % 2].claim("key") for n in range(20)))
        tokens = [claim.token for claim in claims if claim.token is not None]
        assert len(tokens) == 1
        assert await other.fulfil("key", tokens[0], "value")
        assert await one.get("key") == "value"
