"""The driver protocol of caching: the file a provider author reads.

A driver stores bytes under text keys. It never validates, retries, logs, counts or looks into the bytes; layers and the
portable type do. Keys are any Unicode text of 1 to 2,048 characters, which a driver escapes or hashes where its store
cannot take them. A key's namespace is what stands before its first colon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Protocol

import msgspec

from noobly.core.capability import Capability
from noobly.core.checks import Many, Maybe, Pairs, Payload, Text, Whole
from noobly.core.operation import Driver, operation

KEY = Text(1, 2048)

Key = Annotated[str, KEY]
Data = Annotated[bytes, Payload()]
Namespace = Annotated[str, Text(0, 1024)]
PageSize = Annotated[int, Whole(1, 10_000)]


class Can(Capability):
    """What a cache provider may be able to do beyond the core."""

    LIST = "list the keys that are stored"


class RawPage(msgspec.Struct, frozen=True):
    """One page of stored keys.

    Args:
        keys: The keys.
        after: Where the next page begins; None at the end.
    """

    keys: list[str]
    after: str | None


class Lists(Protocol):
    """The optional ability ``Can.LIST``."""

    @operation(idempotent=True, needs=Can.LIST)
    async def keys(self, namespace: Namespace, after: str | None, limit: PageSize, /) -> RawPage:
        """Return up to about ``limit`` stored keys that begin with ``namespace:``, in an order of the store's own.

        Args:
            namespace: Empty for all keys.
            after: The ``after`` of the page before.
            limit: How many; a page may have fewer or a few more, and may be empty before the end.
        """
        ...


class CoreDriver(Driver, Protocol):
    """What every cache provider does. ``ttl`` is seconds, None for no end; an entry past its ttl does not exist."""

    service: ClassVar[str] = "caching"

    @operation(idempotent=True, now="get_now")
    async def get(self, key: Key, /) -> bytes | None:
        """Return the bytes of an entry, or None."""
        ...

    @operation(idempotent=True)
    async def get_many(self, keys: Annotated[Sequence[str], Many(KEY)], /) -> list[bytes | None]:
        """Return the bytes of each key in turn, None where there is no entry."""
        ...

    @operation(idempotent=True)
    async def put(self, key: Key, data: Data, ttl: float | None, /) -> None:
        """Store an entry, replacing what was there together with its ttl."""
        ...

    @operation(idempotent=True)
    async def put_many(
        self, entries: Annotated[Sequence[tuple[str, bytes]], Pairs(KEY, Payload())], ttl: float | None, /
    ) -> None:
        """Store several entries with the same ttl; not atomic together."""
        ...

    @operation(idempotent=False)
    async def add(self, key: Key, data: Data, ttl: float | None, /) -> bool:
        """Store an entry only if there is none, atomically; return whether it was stored."""
        ...

    @operation(idempotent=False)
    async def swap(
        self, key: Key, expected: Data, data: Annotated[bytes | None, Maybe(Payload())], ttl: float | None, /
    ) -> bool:
        """Replace an entry only if it holds exactly ``expected``, atomically; ``data`` None deletes it.

        Returns:
            Whether it was replaced.
        """
        ...

    @operation(idempotent=True)
    async def delete_many(self, keys: Annotated[Sequence[str], Many(KEY)], /) -> list[bool]:
        """Delete entries; return for each key whether it existed."""
        ...

    @operation(idempotent=True)
    async def touch(self, key: Key, ttl: float | None, /) -> bool:
        """Give an entry a new ttl; return whether it exists."""
        ...

    @operation(idempotent=False)
    async def increment(self, key: Key, amount: int, ttl: float | None, /) -> int:
        """Add to the decimal number an entry holds, atomically; a missing one counts as 0 and gets the ttl.

        Returns:
            The new number.

        Raises:
            Conflict: The entry holds something else, or the sum leaves the signed 64-bit range.
        """
        ...

    @operation(idempotent=True)
    async def clear(self, namespace: Namespace, /) -> None:
        """Delete every entry whose key begins with ``namespace:``; all entries where it is empty."""
        ...

    @operation(idempotent=True)
    async def health(self) -> None:
        """Make one cheap round trip to the store.

        Raises:
            Unavailable: It does not answer.
        """
        ...


class Immediate(Protocol):
    """What a provider in this process may have besides ``get``, so that a hit costs no further coroutine."""

    def get_now(self, key: str, now: float, /) -> bytes | None:
        """Return the bytes of an entry at this time of the monotonic clock, or None."""
        ...


class CacheDriver(CoreDriver, Lists, Protocol):
    """A bound driver: the core operations, and the optional ones, which raise Unsupported where they are missing."""

    joins: bool
    """Whether the provider reads many keys at about the cost of one, so that single reads are joined."""

    get_now: Callable[[str, float], bytes | None] | None
    """``Immediate.get_now`` in its layers; None where the provider does not have it, or a layer has to wait."""
