"""What a cache offers on top of its public methods; written only in terms of them, so the remote client has it too."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar, Unpack, cast, overload

from noobly.caching import keyspace
from noobly.caching.cached import Cached, decorate
from noobly.caching.compute import Claims, Factory, Flights, Keeping, Wish
from noobly.caching.entries import KeyPage, Value
from noobly.caching.locks import Lockable, held
from noobly.caching.options import CacheOptions
from noobly.caching.warming import WarmProgress, warm
from noobly.core.clock import Seconds, seconds
from noobly.core.config import Config
from noobly.core.lifecycle import Portable, Tasks
from noobly.core.scope import Scope

T = TypeVar("T")


class CacheSugar(Portable, Claims, Lockable, ABC):
    """Computing, iterating, locking, decorating and warming."""

    def _begin(self, scope: Scope, options: Config) -> None:
        super()._begin(scope, options)
        self.options = cast(CacheOptions, options)
        self._tasks = Tasks()
        self._flights = Flights(self, self._tasks, scope, self.options)

    async def _end(self) -> None:
        await self._tasks.close()

    @abstractmethod
    async def increment(self, key: str, amount: int = 1, *, ttl: Seconds | None = None) -> int: ...
    @abstractmethod
    async def list_keys(self, namespace: str = "", *, after: str | None = None, limit: int = 1000) -> KeyPage: ...
    @abstractmethod
    async def hot_keys(self) -> list[str]: ...

    @overload
    async def get_or_compute(self, key: str, factory: Factory, **keep: Unpack[Keeping]) -> Value: ...
    @overload
    async def get_or_compute(self, key: str, factory: Factory, *, type: type[T], **keep: Unpack[Keeping]) -> T: ...
    async def get_or_compute(
        self, key: str, factory: Factory, *, type: type[object] = object, **keep: Unpack[Keeping]
    ) -> object:
        """Return an entry's value; where there is none, run the factory once for all who ask, and keep its result.

        In this process callers of one key share one run; across processes a claim in the store sees to it. A result
        is not kept if the entry, one of ``tags`` or its namespace was invalidated while the factory ran. With
        ``grace``, a factory that fails is answered by the stale value. If the store is down, the factory runs and its
        result is returned unsaved. Every caller gets a copy of its own, as from ``get``.

        Args:
            key: The key.
            factory: Makes the value, with or without ``await``; may return ``Computed`` to choose how it is kept.
            type: What the value must be; it is checked and converted, stored or just made.
            **keep: How it is kept: ``ttl``, ``sliding``, ``grace``, ``jitter``, ``refresh_ahead`` and ``tags``, as
                ``Keeping`` describes them.

        Raises:
            InvalidArgument: An argument is bad, the value cannot be stored, or it is not of that type.
            Exception: What the factory raised, where there is no stale value.
        """
        keyspace.check(key)
        return await self._flights.fetch(key, factory, Wish.of(keep), type)

    def cached(self, template: str, **keep: Unpack[Keeping]) -> Cached:
        """Return a decorator that keeps a function's results: ``@cache.cached("user:{id}", ttl=60)``.

        A plain function becomes an async one and runs in a thread. What comes back is of the type that the function
        is annotated to return, stored or just made.

        Args:
            template: The key, with names of the function's arguments in braces.
            **keep: How results are kept; see ``get_or_compute``.

        Raises:
            InvalidArgument: On decorating: the template names something that is not an argument.
        """

        async def compute(key: str, factory: Factory, returns: type[object]) -> object:
            return await self.get_or_compute(key, factory, type=returns, **keep)

        return decorate(template, compute)

    async def decrement(self, key: str, amount: int = 1, *, ttl: Seconds | None = None) -> int:
        """Subtract from a counter; see ``increment``."""
        return await self.increment(key, -amount if type(amount) is int else amount, ttl=ttl)

    async def keys(self, namespace: str = "") -> AsyncIterator[str]:
        """Yield the keys of a namespace, or all; keys that come or go meanwhile may or may not be among them.

        Raises:
            Unsupported: The provider cannot list its keys.
        """
        after: str | None = None
        while True:
            page = await self.list_keys(namespace, after=after)
            for key in page.keys:
                yield key
            after = page.after
            if after is None:
                return

    def lock(
        self, name: str, *, lease: Seconds | None = None, wait: Seconds | None = None
    ) -> AbstractAsyncContextManager[str]:
        """Return a lock shared by all users of the store: ``async with cache.lock("import", wait=5): …``.

        It is renewed while its holder lives, and free ``lease`` seconds after its holder has died. A holder that is
        paused for longer than the lease may meet another one, as with every lock that ends by itself.

        Args:
            name: The lock's name.
            lease: Seconds; the cache's ``lease`` by default.
            wait: Seconds to wait for it; 0 for a single try, None for ever.

        Raises:
            Conflict: On entering: somebody else held it all the time.
        """
        return held(self, self._tasks, name, lease=seconds(lease, "lease") or self.options.lease, wait=wait)

    async def warm(
        self,
        loader: Callable[[str], Awaitable[Value]],
        keys: Iterable[str] | AsyncIterable[str],
        *,
        ttl: Seconds | None = None,
        tags: Sequence[str] = (),
        concurrency: int = 8,
        rate: float | None = None,
        on_progress: Callable[[WarmProgress], None] | None = None,
    ) -> WarmProgress:
        """Load entries that are missing, before anybody asks for them.

        Args:
            loader: Makes the value of a key; one that fails is counted and passed over.
            keys: The keys.
            ttl: Seconds they stay fresh.
            tags: Their tags.
            concurrency: Loaders under way at once.
            rate: Keys begun per second at most; None for no limit.
            on_progress: Called after each key.

        Returns:
            The final progress.
        """

        async def fill(key: str) -> object:
            return await self.get_or_compute(key, functools.partial(loader, key), ttl=ttl, tags=tags)

        return await warm(fill, keys, concurrency=concurrency, rate=rate, on_progress=on_progress)

    async def warm_hot(
        self,
        loader: Callable[[str], Awaitable[Value]],
        *,
        ttl: Seconds | None = None,
        concurrency: int = 8,
        rate: float | None = 100.0,
        on_progress: Callable[[WarmProgress], None] | None = None,
    ) -> WarmProgress:
        """Load the keys that were recorded as the most read ones; see ``warm`` and ``record_hot_keys``."""
        keys = await self.hot_keys()
        return await self.warm(loader, keys, ttl=ttl, concurrency=concurrency, rate=rate, on_progress=on_progress)
