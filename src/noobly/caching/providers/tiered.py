"""The tiered provider: memory in front of a store that processes share.

What others write leaves this memory as soon as the store tells of it; a store that cannot tell (memcached, files), a
cut connection or a lost message leave an entry stale for ``l1_ttl`` seconds at most. Whenever the connection was lost,
the whole memory is dropped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Annotated, Protocol, cast

import msgspec

from noobly.caching.driver import Can, CoreDriver, Lists, RawPage
from noobly.caching.providers import REGISTRY
from noobly.caching.providers.memory import MemoryCache, MemoryConfig
from noobly.core.capability import Capability
from noobly.core.checks import Limits
from noobly.core.config import Config, Url, convert, load
from noobly.core.errors import NooblyError
from noobly.core.scope import Environment

Changed = Callable[[Sequence[str] | None], None]
Fill = Callable[[str, bytes, float | None], Awaitable[None]]

_TRACKED_TTL, _UNTRACKED_TTL = 30.0, 1.0


class MemoryTier(Config, frozen=True, kw_only=True):
    """The options of the tiered provider's own; all others are those of the store behind it.

    Args:
        l1_entries: Entries the memory holds.
        l1_bytes: Bytes it holds.
        l1_ttl: Seconds an entry stays in memory at most, which bounds how stale it can be; 30 by default where the
            store tells of changes, else 1.
    """

    l1_entries: Annotated[int, msgspec.Meta(gt=0)] = 10_000
    l1_bytes: Annotated[int, msgspec.Meta(gt=0)] = 64 * 1024 * 1024
    l1_ttl: Annotated[float, msgspec.Meta(gt=0)] | None = None


class TieredConfig(Config, frozen=True, kw_only=True):
    """The memory's options, and the store's scheme and options."""

    memory: MemoryTier
    scheme: str
    store: Config


class Store(CoreDriver, Protocol):
    """What the store behind must offer besides the driver protocol."""

    async def start(self, stack: AsyncExitStack) -> None:
        """Open it."""
        ...

    async def fetch_many(self, keys: Sequence[str]) -> list[tuple[bytes, float | None] | None]:
        """Return entries with the seconds they have left."""
        ...

    def classify(self, error: Exception) -> NooblyError | None:
        """Map its client's exceptions."""
        ...


class TieredCache:
    """Reads from memory first; writes go to the store and then to memory."""

    Config = TieredConfig
    scheme = "tiered"
    in_process = False

    def __init__(self, config: TieredConfig, environment: Environment) -> None:
        self._l2 = cast(Store, REGISTRY.load(config.scheme)(config.store, environment))  # type: ignore[call-arg] # as all providers take them
        memory = MemoryConfig(max_entries=config.memory.l1_entries, max_bytes=config.memory.l1_bytes)
        self._l1 = MemoryCache(memory, environment)
        track: Callable[[Changed], None] | None = getattr(self._l2, "track", None)
        self._bound = config.memory.l1_ttl or (_UNTRACKED_TTL if track is None else _TRACKED_TTL)
        self._filling: dict[str, object] = {}
        self.limits = Limits(value_bytes=min(self._l1.limits.value_bytes, self._l2.limits.value_bytes))
        self.lacks = self.lacks_of(f"tiered+{config.scheme}")
        if track is not None:
            track(self._changed)

    @classmethod
    def lacks_of(cls, scheme: str) -> frozenset[Capability]:
        """Return what the store behind a scheme lacks, and so this provider with it."""
        store = REGISTRY.load(scheme.removeprefix("tiered+"))
        return frozenset() if hasattr(store, "keys") else frozenset({Can.LIST})

    @classmethod
    def configure(cls, url: Url, options: Mapping[str, object]) -> TieredConfig:
        """Return the configuration, the store's own one included.

        Raises:
            ConfigError: A setting is unknown or wrong.
        """
        scheme = url.scheme.removeprefix("tiered+")
        given = {**url.query, **options}
        mine = {name: given.pop(name) for name in list(given) if name.startswith("l1_")}
        parts = {**url.parts, "scheme": scheme}
        behind: type[Config] = REGISTRY.load(scheme).Config  # type: ignore[attr-defined]  # as every provider has
        store = load(behind, Url(scheme, parts, {}), given)
        return TieredConfig(memory=convert(MemoryTier, mine, f"the {url.scheme} provider"), scheme=scheme, store=store)

    async def start(self, stack: AsyncExitStack) -> None:
        """Open the store behind."""
        await self._l2.start(stack)

    def classify(self, error: Exception) -> NooblyError | None:
        """Map what the store behind raises."""
        return self._l2.classify(error)

    async def get(self, key: str, /) -> bytes | None:
        """See the protocol."""
        data = await self._l1.get(key)
        return data if data is not None else (await self._fetch([key]))[0]

    async def get_many(self, keys: Sequence[str], /) -> list[bytes | None]:
        """See the protocol."""
        found = await self._l1.get_many(keys)
        missing = [key for key, data in zip(keys, found, strict=True) if data is None]
        if not missing:
            return found
        fetched = dict(zip(missing, await self._fetch(missing), strict=True))
        return [fetched.get(key) if data is None else data for key, data in zip(keys, found, strict=True)]

    async def put(self, key: str, data: bytes, ttl: float | None, /) -> None:
        """See the protocol."""
        with self._filled([key]) as fill:
            await self._l2.put(key, data, ttl)
            await fill(key, data, ttl)

    async def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None, /) -> None:
        """See the protocol."""
        with self._filled([key for key, _ in entries]) as fill:
            await self._l2.put_many(entries, ttl)
            for key, data in entries:
                await fill(key, data, ttl)

    async def add(self, key: str, data: bytes, ttl: float | None, /) -> bool:
        """See the protocol."""
        with self._dropped([key]):
            return await self._l2.add(key, data, ttl)

    async def swap(self, key: str, expected: bytes, data: bytes | None, ttl: float | None, /) -> bool:
        """See the protocol."""
        with self._dropped([key]):
            return await self._l2.swap(key, expected, data, ttl)

    async def delete_many(self, keys: Sequence[str], /) -> list[bool]:
        """See the protocol."""
        with self._dropped(keys):
            return await self._l2.delete_many(keys)

    async def touch(self, key: str, ttl: float | None, /) -> bool:
        """See the protocol."""
        with self._dropped([key]):
            return await self._l2.touch(key, ttl)

    async def increment(self, key: str, amount: int, ttl: float | None, /) -> int:
        """See the protocol."""
        with self._dropped([key]):
            return await self._l2.increment(key, amount, ttl)

    async def clear(self, namespace: str, /) -> None:
        """See the protocol."""
        try:
            await self._l2.clear(namespace)
        finally:
            self._changed(None)

    async def keys(self, namespace: str, after: str | None, limit: int, /) -> RawPage:
        """See the protocol."""
        return await cast(Lists, self._l2).keys(namespace, after, limit)

    async def health(self) -> None:
        """See the protocol."""
        await self._l2.health()

    async def _fetch(self, keys: Sequence[str]) -> list[bytes | None]:
        with self._filled(keys) as fill:
            fetched = await self._l2.fetch_many(keys)
            for key, entry in zip(keys, fetched, strict=True):
                if entry is not None:
                    await fill(key, *entry)
        return [entry[0] if entry is not None else None for entry in fetched]

    @contextmanager
    def _filled(self, keys: Sequence[str]) -> Iterator[Fill]:
        """Let the body put entries into memory, except those that change between its beginning and then."""
        mark = object()
        self._filling.update(dict.fromkeys(keys, mark))

        async def fill(key: str, data: bytes, ttl: float | None) -> None:
            if self._filling.get(key) is mark:
                await self._l1.put(key, data, self._bound if ttl is None else min(ttl, self._bound))

        try:
            yield fill
        except BaseException:
            # Whether the store took the write is not known.
            self._changed(keys)
            raise
        finally:
            for key in keys:
                if self._filling.get(key) is mark:
                    del self._filling[key]

    @contextmanager
    def _dropped(self, keys: Sequence[str]) -> Iterator[None]:
        """Drop entries from memory once the store has changed them, or may have."""
        try:
            yield
        finally:
            self._changed(keys)

    def _changed(self, keys: Sequence[str] | None) -> None:
        if keys is None:
            self._filling.clear()
            self._l1.drop_all()
            return
        for key in keys:
            self._filling.pop(key, None)
            self._l1.drop(key)
