"""Computing an entry once: one factory call per key in this process, and through claims one in all processes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol, Self, TypedDict, TypeVar

import msgspec

from noobly.caching.entries import Claim, Computed, Entry, State, Value
from noobly.caching.events import Computed as Ran
from noobly.caching.options import CacheOptions
from noobly.caching.store import share, tag_names
from noobly.core.clock import Seconds, seconds
from noobly.core.codec import Codec, converted, decode, encode
from noobly.core.errors import Closed, InvalidArgument, NooblyError
from noobly.core.lifecycle import Tasks
from noobly.core.scope import Scope

Factory = Callable[[], Awaitable[Value] | Value]
"""Makes a value; it may return ``Computed`` to choose how the value is kept."""

T = TypeVar("T")

_FIRST_POLL, _LAST_POLL = 0.02, 0.25


class Keeping(TypedDict, total=False):
    """How a computed entry is kept.

    Args:
        ttl: Seconds it stays fresh.
        sliding: Seconds that each read prolongs it by, up to ``ttl`` in all.
        grace: Seconds it is kept as stale after that.
        jitter: Share of ``ttl`` by which it is shortened at random.
        refresh_ahead: Share of ``ttl`` after which one caller computes it anew in the background.
        tags: Its tags.
    """

    ttl: Seconds | None
    sliding: Seconds | None
    grace: Seconds | None
    jitter: float | None
    refresh_ahead: float | None
    tags: Sequence[str]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """How a caller of ``get_or_compute`` wants the entry kept, checked; see ``Keeping``."""

    ttl: float | None
    sliding: float | None
    grace: float | None
    jitter: float | None
    refresh_ahead: float | None
    tags: tuple[str, ...]

    @classmethod
    def of(cls, keep: Keeping) -> Self:
        """Return a caller's wish.

        Raises:
            InvalidArgument: A name is unknown, or a value is out of range.
        """
        for name in keep.keys() - Keeping.__annotations__.keys():
            known = ", ".join(Keeping.__annotations__)
            raise InvalidArgument(f"get_or_compute has no argument {name!r}; an entry is kept by {known}")
        return cls(
            ttl=seconds(keep.get("ttl"), "ttl"),
            sliding=seconds(keep.get("sliding"), "sliding"),
            grace=seconds(keep.get("grace"), "grace"),
            jitter=share(keep.get("jitter"), "jitter"),
            refresh_ahead=share(keep.get("refresh_ahead"), "refresh_ahead"),
            tags=tag_names(keep.get("tags", ())),
        )


class Sealed(NamedTuple):
    """A computed value as bytes, from which each caller takes a copy of its own."""

    data: bytes
    codec: Codec


class Claims(Protocol):
    """The public methods of a cache that computing is made of; the remote client has them too."""

    async def lookup(self, key: str) -> Entry | None: ...
    async def claim(self, key: str, *, tags: list[str], lease: Seconds | None) -> Claim: ...
    async def renew(self, key: str, token: str, *, lease: Seconds | None) -> bool: ...
    async def abandon(self, key: str, token: str, *, pause: Seconds | None) -> bool: ...
    async def fulfil(
        self,
        key: str,
        token: str,
        value: Value,
        *,
        ttl: Seconds | None,
        sliding: Seconds | None,
        grace: Seconds | None,
        jitter: float | None,
        refresh_ahead: float | None,
        tags: list[str],
    ) -> bool: ...


class Flights:
    """The computations under way in this process: callers of the same key share one."""

    def __init__(self, cache: Claims, tasks: Tasks, scope: Scope, options: CacheOptions) -> None:
        self._cache = cache
        self._tasks = tasks
        self._scope = scope
        self._options = options
        self._codec = Codec[options.codec.upper()]
        self._flights: dict[str, asyncio.Task[Sealed]] = {}

    async def fetch(self, key: str, factory: Factory, wish: Wish, type: type[T]) -> T:
        """Return the entry's value, computing it where there is none.

        A caller that is cancelled does not stop the computation, for others may wait for it.
        """
        entry = await self._cache.lookup(key)
        if entry is not None and entry.state is State.FRESH:
            return converted(entry.value, type, key)
        flight = self._flights.get(key) or self._start(key, factory, wish)
        if entry is not None and entry.state is State.REFRESH:
            return converted(entry.value, type, key)
        sealed = await self._landed(key, flight)
        return decode(sealed.data, sealed.codec, type, key)

    async def _landed(self, key: str, flight: asyncio.Task[Sealed]) -> Sealed:
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if not flight.cancelled() or (task is not None and task.cancelling()):
                raise
            raise Closed(f"computing {key!r} was cancelled, by its factory or because the cache was closed") from error

    def _seal(self, key: str, value: Value) -> Sealed:
        codec = Codec.RAW if isinstance(value, bytes | bytearray | memoryview) else self._codec
        return Sealed(encode(value, codec, key), codec)

    def _start(self, key: str, factory: Factory, wish: Wish) -> asyncio.Task[Sealed]:
        flight = self._tasks.spawn(self._fly(key, factory, wish), f"compute {key!r}")
        self._flights[key] = flight
        flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return flight

    async def _fly(self, key: str, factory: Factory, wish: Wish) -> Sealed:
        try:
            claim = await self._claim(key, wish)
        except NooblyError as error:
            if not error.temporary:
                raise
            return await self._unsaved(key, factory)
        if claim.token is not None:
            return await self._compute(key, factory, wish, claim.token, claim.entry)
        if claim.entry is not None:
            return self._seal(key, claim.entry.value)
        return await self._unsaved(key, factory)

    async def _claim(self, key: str, wish: Wish) -> Claim:
        clock, chance = self._scope.environment.clock, self._scope.environment.chance
        give_up, pause = clock.monotonic() + self._options.wait, _FIRST_POLL
        while True:
            claim = await self._cache.claim(key, tags=list(wish.tags), lease=self._options.lease)
            if claim.token is not None or claim.entry is not None or clock.monotonic() >= give_up:
                return claim
            await asyncio.sleep(pause * (0.5 + chance.random() / 2))
            pause = min(pause * 1.5, _LAST_POLL)

    async def _unsaved(self, key: str, factory: Factory) -> Sealed:
        """Compute without storing: the store is down, or another caller holds the claim for too long."""
        clock, outcome = self._scope.environment.clock, "failed"
        began = clock.monotonic()
        try:
            sealed = self._seal(key, (await self._run(factory)).value)
            outcome = "unsaved"
        finally:
            self._ran(key, clock.monotonic() - began, outcome)
        return sealed

    async def _compute(self, key: str, factory: Factory, wish: Wish, token: str, stale: Entry | None) -> Sealed:
        clock = self._scope.environment.clock
        began = clock.monotonic()
        try:
            async with self._renewing(key, token):
                result = await self._run(factory)
        except BaseException as error:
            self._ran(key, clock.monotonic() - began, "failed")
            served = stale is not None and isinstance(error, Exception)
            stood = await self._give_back(key, token, self._options.pause_after_failure if served else None)
            if served and not stood:
                stale = await self._cache.lookup(key)  # Whoever broke the claim may have deleted the entry.
            if stale is not None and served:
                return self._seal(key, stale.value)
            raise
        outcome = await self._store(key, token, result, wish)
        self._ran(key, clock.monotonic() - began, outcome)
        return self._seal(key, result.value)

    async def _run(self, factory: Factory) -> Computed:
        made = factory()
        value = await made if inspect.isawaitable(made) else made
        return value if isinstance(value, Computed) else Computed(value=value)

    async def _store(self, key: str, token: str, result: Computed, wish: Wish) -> str:
        if not result.store:
            await self._give_back(key, token, None)
            return "unsaved"
        ttl = wish.ttl if result.ttl is None else result.ttl
        if result.value is None and result.ttl is None:
            ttl = self._options.none_ttl or ttl
        try:
            stored = await self._cache.fulfil(
                key,
                token,
                result.value,
                ttl=ttl,
                sliding=wish.sliding,
                grace=wish.grace,
                jitter=wish.jitter,
                refresh_ahead=wish.refresh_ahead,
                tags=[*wish.tags, *result.tags],
            )
        except NooblyError as error:
            if not error.temporary:
                await self._give_back(key, token, None)
                raise
            return "unsaved"
        return "stored" if stored else "discarded"

    async def _give_back(self, key: str, token: str, pause: float | None) -> bool:
        try:
            return await asyncio.shield(self._cache.abandon(key, token, pause=pause))
        except NooblyError:
            return True  # As far as is known; the claim ends by itself after its lease.

    @asynccontextmanager
    async def _renewing(self, key: str, token: str) -> AsyncIterator[None]:
        heartbeat = self._tasks.spawn(self._renew(key, token), f"renew {key!r}")
        try:
            yield
        finally:
            heartbeat.cancel()

    async def _renew(self, key: str, token: str) -> None:
        lease = self._options.lease
        while True:
            await asyncio.sleep(lease / 3)
            try:
                if not await self._cache.renew(key, token, lease=lease):
                    return
            except NooblyError:
                continue  # The next beat may get through before the lease ends.

    def _ran(self, key: str, took: float, outcome: str) -> None:
        self._scope.environment.bus.emit(Ran(self._scope.service, self._scope.instance, key, took, outcome))
