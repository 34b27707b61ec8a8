"""The most read keys, recorded in the store itself so that the next start can warm the cache with them."""

from __future__ import annotations

import msgspec

from noobly.caching import keyspace
from noobly.caching.stats import Analytics
from noobly.caching.store import Store
from noobly.core.errors import NooblyError

_BYTES = 256 * 1024
_LIFE = 7 * 86400.0


async def record_hot_keys(store: Store, analytics: Analytics, most: int) -> list[str]:
    """Record the most read keys of each namespace; what was recorded before stays behind them.

    Returns:
        The keys as recorded; also when the store could not be reached, for they are only advice.
    """
    try:
        before = await hot_keys(store)
        keys = _fitting(list(dict.fromkeys([*analytics.hot_by_namespace(most), *before]))[: most * 100])
        await store.driver.put(keyspace.HOT, msgspec.json.encode(keys), _LIFE)
    except NooblyError as error:
        if not error.temporary:
            raise
        return analytics.hot_by_namespace(most)
    return keys


def _fitting(keys: list[str]) -> list[str]:
    """Return as many of the first keys as a store with small entries takes."""
    size = 0
    for position, key in enumerate(keys):
        size += len(key.encode()) + 8
        if size > _BYTES:
            return keys[:position]
    return keys


async def hot_keys(store: Store) -> list[str]:
    """Return the recorded keys, the most read ones first."""
    data = await store.driver.get(keyspace.HOT)
    return msgspec.json.decode(data, type=list[str]) if data is not None else []
