"""The read path: what a cache returns, counts and announces for each look at an entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from noobly.caching.entries import Entry, State, Value
from noobly.caching.envelope import PLAIN_BYTES, PLAIN_JSON
from noobly.caching.events import Cleared, Computed, Hit, Invalidated, Miss, Removed, Stored
from noobly.caching.options import CacheOptions
from noobly.caching.recent import COLD
from noobly.caching.stats import Analytics
from noobly.caching.store import Store
from noobly.core.codec import DECODE_JSON, UNREADABLE, Damaged, damaged
from noobly.core.errors import NooblyError
from noobly.core.scope import Scope

D = TypeVar("D")

MORE = object()
"""What ``plain`` returns for an entry that there is more to than a value."""


class Reader:
    """Reads entries and announces what happened; a store that is down reads as a miss.

    Attributes:
        analytics: What it counts.
        hits: Who wants to hear of hits.
    """

    def __init__(self, store: Store, scope: Scope, options: CacheOptions) -> None:
        self._store = store
        self._driver = store.driver
        self._clock = scope.environment.clock.monotonic
        self._service, self._instance = service, instance = scope.service, scope.instance
        bus = scope.environment.bus
        self._bus = bus
        self.hits = bus.topic(Hit, service, instance)
        self._puts = bus.topic(Stored, service, instance)
        self.analytics = Analytics(scope, options.top_keys)
        self._recent = self.analytics.recent
        where = {"service": service, "instance": instance}
        self._subscriptions = [
            bus.subscribe(Miss, self.analytics.miss, **where),
            bus.subscribe(Removed, self.analytics.removed, **where),
            bus.subscribe(Computed, self.analytics.computed, **where),
            self.analytics.close,
        ]

    def close(self) -> None:
        """End the analytics."""
        for end in self._subscriptions:
            end()

    def plain(self, key: str, data: bytes) -> object:
        """Return the value of an entry that is nothing but one, uncompressed, and count the hit; ``MORE`` for others.

        Raises:
            Damaged: It is damaged.
        """
        value = _plain(key, data)
        if value is MORE:
            return MORE
        recent = self._recent.get(key, COLD)
        if recent is not COLD and recent.wants(data):
            recent.keep(data, _plain(key, data))
        self.found(key)
        return value

    async def value(self, name: str, key: str, data: bytes | None, default: D, type: type[object]) -> object | D:
        """Return what stored bytes are worth to a caller, or the default.

        Args:
            name: The driver's key.
            key: The user's key.
            data: What the driver gave.
            default: What to return on a miss.
            type: What the value must be.

        Raises:
            Damaged: The bytes are.
        """
        found = await self._store.examine(name, data) if data is not None else None
        if found is None or found.state is State.STALE:
            return self._missed(key, "absent" if data is None else "stale" if found else "invalidated", default)
        value = await self._store.value(key, found, type)
        self.found(key)
        return value

    async def values(self, names: Sequence[str], keys: Sequence[str]) -> dict[str, Value]:
        """Return the values of those keys that have one."""
        try:
            stored = await self._driver.get_many(names)
        except NooblyError as error:
            for key in keys:
                self.degraded(error, key, None)
            return {}
        read = {key: await self._read(name, key, data) for name, key, data in zip(names, keys, stored, strict=True)}
        return {key: value for key, value in read.items() if value is not MORE}

    async def _read(self, name: str, key: str, data: bytes | None) -> object:
        try:
            return await self.value(name, key, data, MORE, object)
        except Damaged:
            return await self.damaged(name, key, data, MORE)
        except NooblyError as error:
            return self.degraded(error, key, MORE)

    async def entry(self, name: str, key: str) -> Entry | None:
        """Return an entry, fresh or stale, or None; only a fresh one counts as a hit."""
        data = None
        try:
            now = self._driver.get_now
            data = await self._driver.get(name) if now is None else now(name, self._clock())
            if data is not None and (value := self.plain(key, data)) is not MORE:
                return Entry(value=value)
            found = await self._store.examine(name, data) if data is not None else None
            if found is None:
                return self._missed(key, "absent" if data is None else "invalidated", None)
            entry = await self._store.entry(key, found)
        except Damaged:
            return await self.damaged(name, key, data, None)
        except NooblyError as error:
            return self.degraded(error, key, None)
        if found.state is State.STALE:
            self._missed(key, "stale", None)
        else:
            self.found(key)
        return entry

    def found(self, key: str) -> None:
        """Count and announce a hit."""
        self.analytics.hit(key)
        if self.hits.handlers:
            self.hits.emit(Hit(self._service, self._instance, key))

    def _missed(self, key: str, reason: str, default: D) -> D:
        self._bus.emit(Miss(self._service, self._instance, key, reason))
        return default

    def degraded(self, error: NooblyError, key: str, default: D) -> D:
        """Return the default where a store that is down is the error, and announce a miss; raise any other."""
        if not error.temporary:
            raise error
        return self._missed(key, "unavailable", default)

    async def damaged(self, name: str, key: str, data: bytes | None, default: D) -> D:
        """Drop an entry that cannot be read, so that it can be computed anew, and announce a miss."""
        if data is not None:
            await self._driver.swap(name, data, None, None)
        return self._missed(key, "damaged", default)

    def stored(self, key: str, size: int, stored: int) -> None:
        """Count and announce a put."""
        self.analytics.stored(key, size, stored)
        if self._puts.handlers:
            self._puts.emit(Stored(self._service, self._instance, key, size, stored))

    def removed(self, keys: Sequence[str]) -> None:
        """Announce deletions."""
        if keys:
            self._bus.emit(Removed(self._service, self._instance, tuple(keys)))

    def invalidated(self, tags: tuple[str, ...]) -> None:
        """Announce an invalidation."""
        self._bus.emit(Invalidated(self._service, self._instance, tags))

    def cleared(self, namespace: str) -> None:
        """Announce a clearing."""
        self._bus.emit(Cleared(self._service, self._instance, namespace))


def _plain(key: str, data: bytes) -> object:
    head = data[:2]
    if head == PLAIN_JSON:
        try:
            return DECODE_JSON(data[2:])
        except UNREADABLE as error:
            raise damaged(key, error) from error
    return data[2:] if head == PLAIN_BYTES else MORE
