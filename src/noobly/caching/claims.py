"""Claims: of all who miss an entry, in all processes, one gets the right to compute it.

A claim is a lock beside the entry, after the leases of "Scaling Memcache at Facebook" (NSDI 2013, 3.2.1). Deleting,
expiring or clearing the entry breaks it, so that a value computed from older data is not kept. Its token also carries
what the entry and its tags were when computing began.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from noobly.caching import keyspace
from noobly.caching.entries import Claim, State, Value
from noobly.caching.envelope import Opened, readable
from noobly.caching.store import Keep, Store, tag_names
from noobly.core.clock import fresh_id
from noobly.core.errors import InvalidArgument, NooblyError


class Token(msgspec.Struct, frozen=True, array_like=True):
    """What a claim's token says.

    Args:
        lock: The secret that proves the claim.
        seen: A fingerprint of the entry when it was claimed; empty if there was none.
        tags: The versions of the declared tags at that time.
    """

    lock: str
    seen: bytes
    tags: dict[str, bytes]


_DECODER = msgspec.msgpack.Decoder(Token)


def _write(token: Token) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(token)).decode()


def _read(text: str) -> Token:
    try:
        return _DECODER.decode(base64.urlsafe_b64decode(text))
    except (TypeError, ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise InvalidArgument("the token is not one that `claim` gave out") from error


class Claims:
    """Gives out and redeems claims on the entries of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._driver = store.driver

    async def claim(self, key: str, tags: Sequence[str], lease: float) -> Claim:
        """Return the fresh entry, or a token if nobody else has claimed it, or the stale entry, or nothing."""
        names = tag_names(tags)
        found = await self._store.find(key)
        entry = await self._store.entry(key, found) if found else None
        if found is not None and found.state is State.FRESH:
            return Claim(token=None, entry=entry)
        lock = fresh_id()
        if not await self._driver.add(keyspace.claim(key), lock.encode(), lease):
            return Claim(token=None, entry=entry)
        try:
            return await self._granted(key, lock, names)
        except BaseException:
            with suppress(NooblyError):
                await self._driver.swap(keyspace.claim(key), lock.encode(), None, None)
            raise

    async def _granted(self, key: str, lock: str, names: Sequence[str]) -> Claim:
        # Between the look and the lock another caller may have finished.
        found = await self._store.find(key)
        entry = await self._store.entry(key, found) if found else None
        if found is not None and found.state is State.FRESH:
            await self._driver.swap(keyspace.claim(key), lock.encode(), None, None)
            return Claim(token=None, entry=entry)
        versions = await self._store.versions(names) if names else {}
        seen = _fingerprint(found.opened) if found else b""
        return Claim(token=_write(Token(lock, seen, versions)), entry=entry)

    async def renew(self, key: str, token: str, lease: float) -> bool:
        """Prolong a claim; return whether it still stood."""
        lock = _read(token).lock.encode()
        return await self._driver.swap(keyspace.claim(key), lock, lock, lease)

    async def abandon(self, key: str, token: str, pause: float | None) -> bool:
        """Give a claim back, at once or after a pause in which nobody can claim; return whether it still stood."""
        lock = _read(token).lock.encode()
        return await self._driver.swap(keyspace.claim(key), lock, None if pause is None else b"paused", pause)

    async def fulfil(self, key: str, token: str, value: Value, keep: Keep) -> tuple[int, int] | None:
        """Put the computed value unless the claim is broken or the entry has changed.

        Returns:
            The value's bytes before and after compression, or None if it was discarded.
        """
        claimed = _read(token)
        lock, place = claimed.lock.encode(), keyspace.claim(key)
        data, size, life = await self._store.pack(key, value, keep, claimed.tags)
        if await self._driver.get(place) != lock:
            return None
        written = await self._replace(key, data, life, claimed.seen)
        if await self._driver.swap(place, lock, None, None) and written:
            return size, len(data)
        if written:
            # Broken while it was written: whoever broke it wants the value gone.
            await self._driver.swap(key, data, None, None)
        return None

    async def _replace(self, key: str, data: bytes, life: float | None, seen: bytes) -> bool:
        current = await self._driver.get(key)
        if current is None:
            return await self._driver.add(key, data, life)
        opened = readable(current)
        if opened is not None and _fingerprint(opened) == seen:
            return await self._driver.swap(key, current, data, life)
        # An entry that does not count, such as an invalidated or foreign one, is no reason to keep it.
        if await self._store.examine(key, current) is not None:
            return False
        return await self._driver.swap(key, current, data, life) or await self._driver.add(key, data, life)


def _fingerprint(opened: Opened) -> bytes:
    """Return what tells an entry from a later one, even of the same value; reading and ageing leave it as it is."""
    created = opened.facts.created if opened.facts else 0.0
    return hashlib.blake2b(opened.body, digest_size=8, salt=struct.pack(">d", created)).digest()
