"""The cache that users hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import TypeVar, overload

from noobly.caching import hot, keyspace, locks
from noobly.caching.claims import Claims
from noobly.caching.driver import CacheDriver
from noobly.caching.entries import Claim, Entry, KeyPage, State, Value
from noobly.caching.options import CacheOptions
from noobly.caching.reading import MORE, Reader
from noobly.caching.reads import Reads
from noobly.caching.recent import COLD
from noobly.caching.stats import CacheStats
from noobly.caching.store import Store, tag_names
from noobly.caching.sugar import CacheSugar
from noobly.caching.writing import put_apart
from noobly.core.checks import whole
from noobly.core.clock import Seconds, fresh_id, seconds
from noobly.core.codec import Damaged
from noobly.core.errors import InvalidArgument, NooblyError
from noobly.core.public import public
from noobly.core.scope import Scope

D = TypeVar("D")
T = TypeVar("T")

_DROP = 5000
"""Entries deleted in one call of the driver, which takes 10,000 keys: each entry has a claim besides."""


class Cache(CacheSugar):
    """Entries under text keys, each with a time to live, on any provider.

    Keys are 1 to 1,024 characters of any Unicode text; what stands before the first colon is the key's namespace.
    Values are what JSON carries, msgspec Structs, dataclasses, or bytes; None is a value like any other. Lengths of
    time are seconds or ``timedelta``. Where the store is down, ``get``, ``get_many`` and ``lookup`` miss (reason
    ``unavailable``) and everything else raises ``Unavailable``.
    """

    service = "caching"

    def __init__(self, driver: CacheDriver, scope: Scope, options: CacheOptions) -> None:
        self._begin(scope, options)
        self._driver = driver
        self._store, self._reads = Store(driver, scope, options), Reads(driver, self._tasks)
        self._reader = Reader(self._store, scope, options)
        self._plain, self._subscribers = self._reader.plain, self._reader.hits
        self._recent = self._reader.analytics.recent
        self._clock = scope.environment.clock.monotonic
        self._claims = Claims(self._store)

    async def close(self) -> None:
        """End computations under way, and record the hot keys where the options ask for it."""
        await self._end()
        try:
            if self.options.record_hot_keys:
                await self.record_hot_keys(self.options.record_hot_keys)
        finally:
            self._reader.close()

    @overload
    async def get(self, key: str) -> Value | None: ...
    @overload
    async def get(self, key: str, default: D) -> Value | D: ...
    @overload
    async def get(self, key: str, *, type: type[T]) -> T | None: ...
    @overload
    async def get(self, key: str, default: D, *, type: type[T]) -> T | D: ...
    @public("GET", "entry", permission="read", absent="default", fails_open=NoneType, local=("type",))
    async def get(self, key: str, default: object = None, *, type: type[object] = object) -> object:
        """Return an entry's value, or ``default`` if there is none; a stored None is returned as None.

        Args:
            key: The key.
            default: What to return on a miss.
            type: What the value must be; it is checked and converted.

        Raises:
            InvalidArgument: The key is bad, or the value is not of that type.
        """
        # A key that was hit lately has passed the check.
        recent = self._recent.get(key, COLD) if key.__class__ is str else COLD
        name, data = keyspace.check(key) if recent is COLD else key, None
        try:
            now = self._driver.get_now
            data = await self._reads.get(name) if now is None else now(name, self._clock())
            # The commonest entries are settled here: each further call would cost as much as the look-up itself.
            if (data is recent.data or data == recent.data) and type is object and not self._subscribers.handlers:
                recent.hits += 1
                if (whole := recent.whole) is None:
                    return recent.value
                made = whole.copy()
                for place, part in recent.parts:
                    made[place] = part.copy()
                return made
            if data is not None and type is object and (value := self._plain(key, data)) is not MORE:
                return value
            return await self._reader.value(name, key, data, default, type)
        except Damaged:
            return await self._reader.damaged(name, key, data, default)
        except NooblyError as error:
            return self._reader.degraded(error, key, default)

    @public("PUT", "entry", permission="write", body="value")
    async def put(
        self,
        key: str,
        value: Value,
        *,
        ttl: Seconds | None = None,
        sliding: Seconds | None = None,
        grace: Seconds | None = None,
        jitter: float | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        """Store an entry, replacing what was there.

        Args:
            key: The key.
            value: The value.
            ttl: Seconds it stays fresh; the cache's ``ttl`` by default.
            sliding: Seconds that each read prolongs it by, up to ``ttl`` in all.
            grace: Seconds it is kept as stale after that.
            jitter: Share of ``ttl`` by which it is shortened at random.
            tags: Its tags.

        Raises:
            InvalidArgument: The key, a length of time or a tag is bad, or the value cannot be stored.
            TooLarge: The value is over the limit.
        """
        name = keyspace.check(key)
        keep = self._store.keep(ttl=ttl, sliding=sliding, grace=grace, jitter=jitter, tags=tags)
        size, stored = await self._store.write(name, value, keep)
        self._reader.stored(key, size, stored)

    @public("POST", "add", permission="write")
    async def add(self, key: str, value: Value, *, ttl: Seconds | None = None, tags: Sequence[str] = ()) -> bool:
        """Store an entry only if there is none, atomically; return whether it was stored.

        A stale or invalidated entry counts as none only once the store has dropped it.
        """
        name = keyspace.check(key)
        data, size, life = await self._store.pack(name, value, self._store.keep(ttl=ttl, tags=tags), None)
        added = await self._driver.add(name, data, life)
        if added:
            self._reader.stored(key, size, len(data))
        return added

    @public("GET", "lookup", permission="read", fails_open=NoneType)
    async def lookup(self, key: str) -> Entry | None:
        """Return an entry with its state, also a stale one, or None if there is none."""
        return await self._reader.entry(keyspace.check(key), key)

    @public("GET", "exists", permission="read")
    async def exists(self, key: str) -> bool:
        """Return whether there is a fresh entry; this counts neither as a hit nor as a miss."""
        found = await self._store.find(keyspace.check(key))
        return found is not None and found.state is not State.STALE

    @public("DELETE", "entry", permission="write")
    async def delete(self, key: str) -> bool:
        """Drop an entry, also as a stale one; return whether it existed."""
        deleted = await self._drop([keyspace.check(key)])
        if deleted[0]:
            self._reader.removed([key])
        return deleted[0]

    @public("POST", "expire", permission="write", idempotent=True)
    async def expire(self, key: str) -> bool:
        """Make an entry stale at once, or delete it if it has no grace; return whether it existed."""
        name = keyspace.check(key)
        await self._driver.delete_many([keyspace.claim(name)])
        aged = await self._store.age(name)
        if aged:
            self._reader.removed([key])
        return aged

    @public("POST", "touch", permission="write", idempotent=True)
    async def touch(self, key: str, ttl: Seconds | None = None) -> bool:
        """Give an entry a new life of ``ttl`` seconds from now, None for no end; return whether it exists."""
        return await self._store.prolong(keyspace.check(key), seconds(ttl, "ttl"))

    @public("POST", "increment", permission="write")
    async def increment(self, key: str, amount: int = 1, *, ttl: Seconds | None = None) -> int:
        """Add to a counter, atomically; a missing one counts as 0 and gets the ttl.

        Args:
            key: The key; ``get`` reads the counter, ``put`` with a whole number sets it.
            amount: What to add, which may be negative.
            ttl: Seconds until a new counter ends; an old one keeps its end.

        Returns:
            The new number.

        Raises:
            Conflict: The entry is not a whole number, or the sum leaves the signed 64-bit range.
        """
        if type(amount) is not int or not -(2**63) <= amount < 2**63:
            raise InvalidArgument(f"amount must be a whole number of 64 bits, not {amount!r}")
        return await self._driver.increment(keyspace.check(key), amount, seconds(ttl, "ttl"))

    @public("POST", "get-many", permission="read", idempotent=True, fails_open=dict)
    async def get_many(self, keys: Sequence[str]) -> dict[str, Value]:
        """Return the values of those keys that have one, in one round trip where the provider can."""
        wanted = keyspace.several(keys)
        return await self._reader.values([keyspace.check(key) for key in wanted], wanted)

    @public("POST", "put-many", permission="write", idempotent=True)
    async def put_many(
        self, entries: Mapping[str, Value], *, ttl: Seconds | None = None, tags: Sequence[str] = ()
    ) -> None:
        """Store several entries alike; one bad key or value refuses all before anything is stored."""
        names = [keyspace.check(key) for key in entries]
        if self.options.jitter:
            await put_apart(self, self._store, entries, ttl, tags)
            return
        packed = await self._store.pack_many(names, list(entries.values()), self._store.keep(ttl=ttl, tags=tags))
        await self._driver.put_many(packed.entries, packed.ttl)
        for key, size, (_, data) in zip(entries, packed.sizes, packed.entries, strict=True):
            self._reader.stored(key, size, len(data))

    @public("POST", "delete-many", permission="write", idempotent=True)
    async def delete_many(self, keys: Sequence[str]) -> int:
        """Drop several entries; return how many there were."""
        unwanted = keyspace.several(keys)
        deleted = await self._drop([keyspace.check(key) for key in unwanted])
        self._reader.removed([key for key, existed in zip(unwanted, deleted, strict=True) if existed])
        return sum(deleted)

    @public("POST", "invalidate", permission="write", idempotent=True)
    async def invalidate(self, tags: Sequence[str]) -> None:
        """Make all entries with any of these tags invalid, at once and however many there are.

        A value that is being computed with one of these tags is already invalid when it is stored.
        """
        names = tag_names(tags)
        if names:
            await self._store.renew_versions(names)
            self._reader.invalidated(names)

    @public("POST", "clear", permission="write", idempotent=True)
    async def clear(self, namespace: str = "") -> None:
        """Delete all entries of a namespace, or all of this cache; other users of the store keep theirs.

        Clearing all of a cache also frees its locks and invalidates its tags.
        """
        await self._driver.clear(keyspace.within(namespace))
        self._reader.cleared(namespace)

    @public("GET", "keys", permission="read")
    async def list_keys(self, namespace: str = "", *, after: str | None = None, limit: int = 1000) -> KeyPage:
        """Return one page of about ``limit`` keys; ``keys()`` walks all pages.

        Raises:
            Unsupported: The provider cannot list its keys.
        """
        page = await self._driver.keys(keyspace.within(namespace), after, limit)
        return KeyPage(keys=[key for name in page.keys if (key := keyspace.user(name)) is not None], after=page.after)

    @public("GET", "stats", permission="read")
    async def stats(self) -> CacheStats:
        """Return hits, misses, hot keys and compression since this cache was opened, in this process."""
        return self._reader.analytics.snapshot()

    @public("GET", "hot-keys", permission="read")
    async def hot_keys(self) -> list[str]:
        """Return the keys recorded as the most read ones, for warming."""
        return await hot.hot_keys(self._store)

    @public("POST", "hot-keys", permission="write", idempotent=True)
    async def record_hot_keys(self, per_namespace: int = 50) -> list[str]:
        """Record the most read keys of each namespace in the store, and return all that are recorded."""
        whole(per_namespace, "per_namespace", 1, 1000)
        return await hot.record_hot_keys(self._store, self._reader.analytics, per_namespace)

    @public("POST", "claim", permission="write")
    async def claim(self, key: str, *, tags: Sequence[str] = (), lease: Seconds | None = None) -> Claim:
        """Ask for the right to compute an entry, for ``lease`` seconds unless it is renewed.

        An invalidation of ``tags`` from now on wins over the value. ``get_or_compute`` does all this for you.
        """
        return await self._claims.claim(keyspace.check(key), tags, self._lease(lease))

    @public("POST", "renew", permission="write", idempotent=True)
    async def renew(self, key: str, token: str, *, lease: Seconds | None = None) -> bool:
        """Prolong a claim by another lease; return whether it still stood."""
        return await self._claims.renew(keyspace.check(key), token, self._lease(lease))

    @public("POST", "abandon", permission="write", idempotent=True)
    async def abandon(self, key: str, token: str, *, pause: Seconds | None = None) -> bool:
        """Give a claim back; with ``pause``, nobody gets one for so many seconds. Return whether it still stood."""
        return await self._claims.abandon(keyspace.check(key), token, seconds(pause, "pause"))

    @public("POST", "fulfil", permission="write")
    async def fulfil(
        self,
        key: str,
        token: str,
        value: Value,
        *,
        ttl: Seconds | None = None,
        sliding: Seconds | None = None,
        grace: Seconds | None = None,
        jitter: float | None = None,
        refresh_ahead: float | None = None,
        tags: Sequence[str] = (),
    ) -> bool:
        """Store the value a claim was for, unless the entry has changed; return whether it was stored."""
        name = keyspace.check(key)
        keep = self._store.keep(
            ttl=ttl, sliding=sliding, grace=grace, jitter=jitter, refresh_ahead=refresh_ahead, tags=tags
        )
        written = await self._claims.fulfil(name, token, value, keep)
        if written is not None:
            self._reader.stored(key, *written)
        return written is not None

    @public("POST", "lock/acquire", permission="write")
    async def acquire(self, name: str, *, lease: Seconds | None = None) -> str | None:
        """Take a lock without waiting; return its token, or None if somebody else holds it. See ``lock``."""
        token = fresh_id()
        taken = await self._driver.add(keyspace.lock(name), token.encode(), self._lease(lease))
        return token if taken else None

    @public("POST", "lock/extend", permission="write", idempotent=True)
    async def extend(self, name: str, token: str, *, lease: Seconds | None = None) -> bool:
        """Prolong a lock by another lease; return whether it was still held with this token."""
        held = locks.token_bytes(token)
        return await self._driver.swap(keyspace.lock(name), held, held, self._lease(lease))

    @public("POST", "lock/release", permission="write", idempotent=True)
    async def release(self, name: str, token: str) -> bool:
        """Give a lock back; return whether it was still held with this token."""
        return await self._driver.swap(keyspace.lock(name), locks.token_bytes(token), None, None)

    def _lease(self, lease: Seconds | None) -> float:
        return seconds(lease, "lease") or self.options.lease

    async def _drop(self, names: Sequence[str]) -> list[bool]:
        """Delete entries after the claims on them, so that no value computed from older data comes back."""
        deleted: list[bool] = []
        for start in range(0, len(names), _DROP):
            part = names[start : start + _DROP]
            found = await self._driver.delete_many([*map(keyspace.claim, part), *part])
            deleted += found[len(part) :]
        return deleted
