"""Entries on a bound driver: life times, tags and envelopes, for the portable type and for claims."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import msgspec

from noobly.caching import keyspace
from noobly.caching.driver import CacheDriver
from noobly.caching.entries import Entry, State
from noobly.caching.envelope import Envelope, Facts, Opened, readable, seal, with_facts
from noobly.caching.options import CacheOptions
from noobly.core.clock import Seconds, seconds
from noobly.core.errors import InvalidArgument
from noobly.core.scope import Scope

T = TypeVar("T")

TAGS = 64
"""The most tags one entry may have."""

_TAG_LIFE = 30 * 86400.0
"""Seconds a tag's version is kept after its last use; without it every entry of the tag is invalid."""


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """How one entry is to be kept, in seconds."""

    ttl: float | None
    sliding: float | None
    grace: float | None
    refresh_ahead: float | None
    tags: tuple[str, ...]


class Packed(NamedTuple):
    """Several entries in their stored form, their sizes before compression and the seconds to keep them."""

    entries: list[tuple[str, bytes]]
    sizes: list[int]
    ttl: float | None


class Found(msgspec.Struct, frozen=True):
    """An entry as it is stored, with what reading it told."""

    data: bytes
    opened: Opened
    state: State


class Store:
    """Reads and writes entries; it knows nothing of callers, events or computing."""

    def __init__(self, driver: CacheDriver, scope: Scope, options: CacheOptions) -> None:
        self.driver = driver
        self.options = options
        self.envelope = Envelope(options)
        self._now = scope.environment.clock.time
        self._chance = scope.environment.chance
        self._usual = Keep(
            ttl=options.ttl, sliding=None, grace=options.grace, refresh_ahead=options.refresh_ahead, tags=()
        )
        self._spreads = bool(options.jitter)
        self._last: tuple[Seconds | None, Keep] = None, self._usual

    def keep(
        self,
        *,
        ttl: Seconds | None = None,
        sliding: Seconds | None = None,
        grace: Seconds | None = None,
        jitter: float | None = None,
        refresh_ahead: float | None = None,
        tags: Sequence[str] = (),
    ) -> Keep:
        """Return how to keep an entry: the call's wishes, or else the cache's options.

        Raises:
            InvalidArgument: A length of time, share or tag is out of range.
        """
        if sliding is grace is jitter is refresh_ahead is None and tags == () and not self._spreads:
            return self._usual if ttl is None else self._for(ttl)
        life = seconds(ttl, "ttl") or self.options.ttl
        spread = share(jitter, "jitter")
        spread = self.options.jitter if spread is None else spread
        if life is not None and spread:
            life *= 1 - spread * self._chance.random()
        ahead = share(refresh_ahead, "refresh_ahead")
        return Keep(
            ttl=life,
            sliding=seconds(sliding, "sliding"),
            grace=seconds(grace, "grace") or self.options.grace,
            refresh_ahead=self.options.refresh_ahead if ahead is None else ahead,
            tags=tag_names(tags),
        )

    def _for(self, ttl: Seconds) -> Keep:
        """Return how to keep an entry with this ttl; programs have few, so the last one is remembered."""
        last, keep = self._last
        if ttl is not last:
            keep = msgspec.structs.replace(self._usual, ttl=seconds(ttl, "ttl"))
            self._last = ttl, keep
        return keep

    async def write(self, key: str, value: object, keep: Keep) -> tuple[int, int]:
        """Put an entry; return its bytes before and after compression."""
        data, size, life = await self.pack(key, value, keep, None)
        await self.driver.put(key, data, life)
        return size, len(data)

    async def pack(
        self, key: str, value: object, keep: Keep, versions: dict[str, bytes] | None
    ) -> tuple[bytes, int, float | None]:
        """Return an entry's stored form, its size before compression and the seconds the driver shall keep it.

        Args:
            key: The driver's key.
            value: The value.
            keep: How to keep it.
            versions: The tags' versions when computing began; None for those of now.
        """
        # The value is encoded first, so that a bad one is refused before the tags' versions are fetched.
        body = self.envelope.encode(value, key)
        if body.size >= self.envelope.compress_above:
            body = await self.envelope.compress(body)
        known = versions or {}
        if not (known or keep.tags or keep.grace or keep.sliding or keep.refresh_ahead):
            return seal(body, None), body.size, keep.ttl
        missing = [name for name in keep.tags if name not in known]
        facts, life = self._facts(keep, known | (await self.versions(missing) if missing else {}))
        return seal(body, facts), body.size, life

    async def pack_many(self, keys: Sequence[str], values: Sequence[object], keep: Keep) -> Packed:
        """Return several entries' stored forms, with one look at the tags for all."""
        bodies = [self.envelope.encode(value, key) for key, value in zip(keys, values, strict=True)]
        bodies = [await self.envelope.compress(body) for body in bodies]
        facts, life = None, keep.ttl
        if keep.tags or keep.grace or keep.refresh_ahead:
            facts, life = self._facts(keep, await self.versions(keep.tags) if keep.tags else {})
        entries = [(key, seal(body, facts)) for key, body in zip(keys, bodies, strict=True)]
        return Packed(entries, [body.size for body in bodies], life)

    def _facts(self, keep: Keep, versions: dict[str, bytes]) -> tuple[Facts, float | None]:
        now, ahead = self._now(), keep.refresh_ahead
        ends = [life for life in (keep.ttl, keep.sliding) if life is not None]
        life = min(ends) if ends else None
        facts = Facts(
            created=now,
            fresh_until=now + life if life is not None and keep.grace else None,
            refresh_after=now + life * ahead if life is not None and ahead is not None else None,
            sliding=keep.sliding,
            deadline=now + keep.ttl if keep.ttl is not None and keep.sliding else None,
            grace=keep.grace,
            tags=versions,
        )
        return facts, life + (keep.grace or 0.0) if life is not None else None

    async def find(self, key: str) -> Found | None:
        """Return an entry that may be served, fresh or stale; one that was invalidated does not exist."""
        data = await self.driver.get(key)
        return await self.examine(key, data) if data is not None else None

    async def examine(self, key: str, data: bytes) -> Found | None:
        """Return what stored bytes amount to now; prolongs entries that slide and drops invalidated ones."""
        opened = readable(data)
        if opened is None:
            return None
        facts = opened.facts
        if facts is None:
            return Found(data, opened, State.FRESH)
        if facts.tags and not await self._valid(facts.tags):
            await self.driver.swap(key, data, None, None)
            return None
        now = self._now()
        if facts.fresh_until is not None and facts.fresh_until <= now:
            return Found(data, opened, State.STALE)
        if facts.sliding is not None:
            await self._slide(key, data, opened, facts)
        due = facts.refresh_after is not None and facts.refresh_after <= now
        return Found(data, opened, State.REFRESH if due else State.FRESH)

    async def _slide(self, key: str, data: bytes, opened: Opened, facts: Facts) -> None:
        now = self._now()
        life = min(facts.sliding or 0.0, (facts.deadline or float("inf")) - now)
        if life <= 0:
            return
        # Swapped, not touched: an entry that somebody has put meanwhile has a life of its own.
        slid = data
        if facts.fresh_until is not None:
            slid = with_facts(opened, msgspec.structs.replace(facts, fresh_until=now + life))
        await self.driver.swap(key, data, slid, life + (facts.grace or 0.0))

    async def value(self, key: str, found: Found, type: type[T]) -> T:
        """Return the value of an entry that was found, as the given type."""
        return await self.envelope.value(found.data, found.opened, type, key)

    async def entry(self, key: str, found: Found) -> Entry:
        """Return an entry that was found, as callers see it."""
        facts = found.opened.facts
        value = await self.value(key, found, object)
        if facts is None:
            return Entry(value=value, state=found.state)
        return Entry(value=value, state=found.state, created=facts.created, tags=sorted(facts.tags))

    async def age(self, key: str) -> bool:
        """Make an entry stale at once, if it is kept past its end; otherwise delete it. Return whether it existed."""
        data = await self.driver.get(key)
        opened = readable(data) if data is not None else None
        if data is None or opened is None:
            return False
        facts, now = opened.facts, self._now()
        if facts is not None and await self._over(facts):
            return facts.fresh_until is not None and facts.fresh_until <= now
        stale, life = None, None
        if facts is not None and facts.grace is not None:
            stale, life = with_facts(opened, msgspec.structs.replace(facts, fresh_until=now)), facts.grace
        # Somebody else may have changed it meanwhile, and then this has to be done to what they made of it.
        return await self.driver.swap(key, data, stale, life) or await self.age(key)

    async def prolong(self, key: str, ttl: float | None) -> bool:
        """Give an entry a new life from now on; return whether it exists."""
        data = await self.driver.get(key)
        opened = readable(data) if data is not None else None
        if data is None or opened is None:
            return False
        facts = opened.facts
        if facts is None:
            return await self.driver.touch(key, ttl)
        if await self._over(facts):
            return False
        keep = Keep(ttl=ttl, sliding=facts.sliding, grace=facts.grace, refresh_ahead=None, tags=())
        renewed, life = self._facts(keep, facts.tags)
        renewed = msgspec.structs.replace(renewed, created=facts.created, refresh_after=facts.refresh_after)
        return await self.driver.swap(key, data, with_facts(opened, renewed), life) or await self.prolong(key, ttl)

    async def _over(self, facts: Facts) -> bool:
        """Return whether an entry has become stale or invalid."""
        stale = facts.fresh_until is not None and facts.fresh_until <= self._now()
        return stale or (bool(facts.tags) and not await self._valid(facts.tags))

    async def versions(self, tags: Sequence[str]) -> dict[str, bytes]:
        """Return the versions of tags, giving one to each tag that has none.

        A version is a random token, not a number: whatever is lost or written twice, an old one never comes back.
        """
        keys = [keyspace.tag(name) for name in tags]
        found = await self.driver.get_many(keys)
        touches = (self.driver.touch(key, _TAG_LIFE) for key in keys)
        for touched in await asyncio.gather(*touches, return_exceptions=True):
            if isinstance(touched, BaseException):
                raise touched
        return {
            name: version if version is not None else await self._first_version(key)
            for name, key, version in zip(tags, keys, found, strict=True)
        }

    async def _first_version(self, key: str) -> bytes:
        token = secrets.token_bytes(8)
        if await self.driver.add(key, token, _TAG_LIFE):
            return token
        return await self.driver.get(key) or token

    async def renew_versions(self, tags: Sequence[str]) -> None:
        """Make every entry with one of these tags invalid."""
        await self.driver.put_many([(keyspace.tag(name), secrets.token_bytes(8)) for name in tags], _TAG_LIFE)

    async def _valid(self, tags: dict[str, bytes]) -> bool:
        found = await self.driver.get_many([keyspace.tag(name) for name in tags])
        return found == list(tags.values())


def share(value: float | None, name: str) -> float | None:
    """Return a share of 0 to 1, or None.

    Raises:
        InvalidArgument: It is something else.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidArgument(f"{name} must be a share from 0 to 1, not {value!r}")
    return float(value)


def tag_names(tags: Sequence[str]) -> tuple[str, ...]:
    """Return tags without repetition.

    Raises:
        InvalidArgument: They are not a list of at most 64 texts of 1 to 1,024 characters.
    """
    if tags == ():
        return ()
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        raise InvalidArgument(f"tags must be a list of names, not {type(tags).__name__}")
    if len(tags) > TAGS:
        raise InvalidArgument(f"an entry may have {TAGS} tags, not {len(tags)}")
    for name in tags:
        keyspace.check(name, "tag")
    return tuple(dict.fromkeys(tags))
