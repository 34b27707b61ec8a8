"""Writing several entries that do not share one life."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from noobly.caching.entries import Value
from noobly.caching.store import Store
from noobly.core.clock import Seconds


class Puts(Protocol):
    """The public method that a single entry is put by."""

    async def put(self, key: str, value: Value, *, ttl: Seconds | None, tags: Sequence[str]) -> None: ...


async def put_apart(
    cache: Puts, store: Store, entries: Mapping[str, Value], ttl: Seconds | None, tags: Sequence[str]
) -> None:
    """Put entries one by one, for each draws its own jitter.

    All are encoded once before, so that one that cannot be stored refuses all.
    """
    for key, value in entries.items():
        store.envelope.encode(value, key)
    puts = (cache.put(key, value, ttl=ttl, tags=tags) for key, value in entries.items())
    for done in await asyncio.gather(*puts, return_exceptions=True):
        if isinstance(done, BaseException):
            raise done
