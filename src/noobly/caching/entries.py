"""What callers see of an entry."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import Any

import msgspec

Value = Any
"""What was put, after a trip through the codec; give ``type=`` to have it checked and converted."""


class State(Enum):
    """How an entry stands in its life."""

    FRESH = "fresh"
    REFRESH = "refresh"
    """Still fresh, but past the point where one caller should compute it anew."""
    STALE = "stale"
    """Past its end or expired by hand, kept for the case that computing it anew fails."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry with what is known about it.

    Args:
        value: The value; may be None.
        state: Whether it is still good.
        created: When it was put, in seconds since the epoch; 0.0 where that was not recorded.
        tags: Its tags.
    """

    value: Value
    state: State = State.FRESH
    created: float = 0.0
    tags: list[str] = []


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a wish to compute an entry.

    Args:
        token: Given to the one caller that should compute it, for ``fulfil`` or ``abandon``; None for others.
        entry: The entry as it is now: fresh if another caller has just put it, stale if an old one is kept.
    """

    token: str | None
    entry: Entry | None


class Computed(msgspec.Struct, frozen=True, kw_only=True):
    """What a factory may return to choose how its own value is kept; None means as the caller asked.

    Args:
        value: The value.
        ttl: Seconds it stays fresh.
        tags: Its tags, besides the caller's. An invalidation of these during the factory is not seen.
        store: False returns the value to the caller without keeping it.
    """

    value: Value
    ttl: float | timedelta | None = None
    tags: list[str] = []
    store: bool = True


class KeyPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of keys.

    Args:
        keys: The keys.
        after: What to give as ``after`` for the next page; None at the end.
    """

    keys: list[str]
    after: str | None
