"""The memcached provider: one server; the entries it has no room for, or loses when it restarts, are misses.

Memcached cannot enumerate keys, and so cannot clear a namespace. Each namespace therefore has an epoch, a random token
under a key of its own, and each entry carries a digest of its key and of the epochs it belongs to. Clearing replaces
the epoch: at once, for all clients, every older entry counts as none. Where memcached drops an epoch the same happens.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, ClassVar, NamedTuple

import aiomcache
import msgspec

from noobly.caching.providers._memcached_connections import Client, Connections
from noobly.caching.providers._memcached_names import DEPTH, digest_of, levels_of_all, physical
from noobly.caching.providers.memory import add_to_counter
from noobly.core.checks import Limits
from noobly.core.clock import fresh_id
from noobly.core.config import Config
from noobly.core.errors import Conflict, NooblyError, TooLarge, Unavailable, Unsupported
from noobly.core.scope import Environment

_HEADER = struct.Struct(">4sd16s")
"""Magic and version, wall-clock time of the end (infinity for none), digest of the key and its epochs."""
_MAGIC = b"NBM\x01"
_OVERHEAD = 512
"""Bytes of an item that are not the user's data: header, key of up to 250 bytes, memcached's own."""

_BATCH = 500
_ATTEMPTS = 500
_TURNS = 64
"""Locks that make the callers of this process change a key in turn, instead of against each other."""

_MONTH = 60 * 60 * 24 * 30
_LAST = 2**31 - 1
_PAST = _MONTH + 1
"""An absolute time in January 1970: an item stored with it is gone at once (protocol.txt, "Expiration times")."""


class MemcachedConfig(Config, frozen=True, kw_only=True):
    """The options of the memcached provider.

    Args:
        host: The server; only one, for the keys of a namespace and its epoch must not part.
        port: Its port.
        namespace: Separates users of the same server.
        connections: Calls under way at once; further ones wait.
        item_bytes: The server's largest item in bytes, its option ``-I``.
    """

    url_parts: ClassVar[Mapping[str, str]] = {"host": "host", "port": "port"}

    host: str = "localhost"
    port: Annotated[int, msgspec.Meta(gt=0, lt=65536)] = 11211
    namespace: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:/-]{1,64}$")] = "noobly"
    connections: Annotated[int, msgspec.Meta(gt=0, le=1000)] = 8
    item_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 1024 * 1024


class _Entry(NamedTuple):
    data: bytes
    end: float


class MemcachedCache:
    """Entries in memcached, each with its exact end in front, for memcached counts whole seconds.

    Listing keys is not possible, and neither is clearing a namespace of more than 8 levels.
    """

    Config = MemcachedConfig
    scheme = "memcached"
    in_process = False
    joins = True

    def __init__(self, config: MemcachedConfig, environment: Environment) -> None:
        self.limits = Limits(value_bytes=config.item_bytes - _OVERHEAD)
        self._config = config
        self._now = environment.clock.time
        self._connections = Connections(config.host, config.port, config.connections)
        self._turns = [asyncio.Lock() for _ in range(_TURNS)]

    async def start(self, stack: AsyncExitStack) -> None:
        """Make a first connection.

        Raises:
            Unavailable: The server does not answer.
        """
        stack.push_async_callback(self._connections.close)
        try:
            await self.health()
        except (OSError, EOFError, aiomcache.ClientException) as error:
            raise self.classify(error) or error from error

    async def get(self, key: str, /) -> bytes | None:
        """See the protocol."""
        async with self._connections.lend() as client:
            return (await self._read(client, [key]))[0]

    async def get_many(self, keys: Sequence[str], /) -> list[bytes | None]:
        """See the protocol."""
        batches = [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
        return [data for batch in await self._connections.each(self._read, batches) for data in batch]

    async def fetch_many(self, keys: Sequence[str]) -> list[tuple[bytes, float | None] | None]:
        """Return entries with the seconds they have left, for a tier in front of this one."""
        batches = [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
        entries = [entry for batch in await self._connections.each(self._entries, batches) for entry in batch]
        now = self._now()
        return [entry and (entry.data, entry.end - now if entry.end < math.inf else None) for entry in entries]

    async def put(self, key: str, data: bytes, ttl: float | None, /) -> None:
        """See the protocol."""
        await self.put_many([(key, data)], ttl)

    async def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None, /) -> None:
        """See the protocol."""
        if not entries:
            return
        end = self._end(ttl)
        async with self._connections.lend() as client:
            epochs = await self._epochs(client, [key for key, _ in entries])

        async def store(client: Client, entry: tuple[str, bytes]) -> None:
            key, data = entry
            await client.set(self._name(key), _pack(key, data, end, epochs), self._exptime(end))

        await self._connections.each(store, entries)

    async def add(self, key: str, data: bytes, ttl: float | None, /) -> bool:
        """See the protocol."""
        fresh = _Entry(data, self._end(ttl))
        return await self._change(key, lambda found: fresh if found is None else None)

    async def swap(self, key: str, expected: bytes, data: bytes | None, ttl: float | None, /) -> bool:
        """See the protocol."""
        # What has ended is gone: so an entry is deleted only if nobody has changed it meanwhile.
        fresh = _Entry(b"", -math.inf) if data is None else _Entry(data, self._end(ttl))
        return await self._change(key, lambda found: fresh if found is not None and found.data == expected else None)

    async def delete_many(self, keys: Sequence[str], /) -> list[bool]:
        """See the protocol."""
        found = await self.get_many(keys)
        there = list(dict.fromkeys(key for key, data in zip(keys, found, strict=True) if data is not None))
        done = await self._connections.each(lambda client, key: client.delete(self._name(key)), there)
        deleted = dict(zip(there, done, strict=True))
        return [deleted.pop(key, False) for key in keys]

    async def touch(self, key: str, ttl: float | None, /) -> bool:
        """See the protocol."""
        end = self._end(ttl)
        return await self._change(key, lambda found: found and found._replace(end=end))

    async def increment(self, key: str, amount: int, ttl: float | None, /) -> int:
        """See the protocol; memcached's own counters know no negative numbers."""
        end, number = self._end(ttl), 0

        def added(found: _Entry | None) -> _Entry:
            nonlocal number
            number = add_to_counter(key, found.data if found is not None else b"0", amount)
            return _Entry(b"%d" % number, found.end if found is not None else end)

        await self._change(key, added)
        return number

    async def clear(self, namespace: str, /) -> None:
        """See the protocol; what was stored before stays in memcached's memory until it needs the room.

        Raises:
            Unsupported: The namespace has more than 8 levels.
        """
        if namespace.count(":", 1) >= DEPTH:
            raise Unsupported(f"memcached cannot clear {namespace!r}: it has more than {DEPTH} levels")
        async with self._connections.lend() as client:
            await client.set(self._epoch_name(namespace), fresh_id().encode())

    async def health(self) -> None:
        """See the protocol."""
        async with self._connections.lend() as client:
            await client.version()

    def classify(self, error: Exception) -> NooblyError | None:
        """Return the suite's error for one of the connection or of the library."""
        where = f"memcached at {self._config.host}:{self._config.port}"
        if isinstance(error, OSError | EOFError):
            return Unavailable(f"{where} does not answer: {type(error).__name__}: {error}")
        if isinstance(error, aiomcache.ValidationException) or "CLIENT_ERROR" in str(error):
            return None
        if "too large" in str(error):
            return TooLarge(f"{where} takes no item of this size; set item_bytes to its option -I")
        # The library fails with any of these where an answer breaks off in the middle of a line.
        if isinstance(error, aiomcache.ClientException | IndexError | ValueError):
            return Unavailable(f"{where} gave no usable answer: {error}")
        return None

    def _end(self, ttl: float | None) -> float:
        return math.inf if ttl is None else self._now() + ttl

    def _exptime(self, end: float) -> int:
        """Return the end as memcached wants it: never early, for the header knows it exactly."""
        if end > _LAST - 2:
            return 0  # No end, or one past the 32 bits of memcached's clock.
        left = math.ceil(end - self._now()) + 1 if end > 0 else -1
        if left <= 0:
            return _PAST
        return left if left <= _MONTH else math.ceil(end) + 1

    async def _read(self, client: Client, keys: Sequence[str]) -> list[bytes | None]:
        return [entry and entry.data for entry in await self._entries(client, keys)]

    async def _entries(self, client: Client, keys: Sequence[str]) -> list[_Entry | None]:
        # The epochs are read after the entries: an entry that does not match is then older than a clear.
        names = {key: self._name(key) for key in keys}
        levels = {level: self._epoch_name(level) for level in levels_of_all(keys)}
        wanted = list(dict.fromkeys([*names.values(), *levels.values()]))
        found = dict(zip(wanted, await client.multi_get(*wanted), strict=True))
        epochs = {level: found[name] for level, name in levels.items()}
        return [self._live(key, found[names[key]], epochs) for key in keys]

    async def _change(self, key: str, change: Callable[[_Entry | None], _Entry | None]) -> bool:
        """Replace an entry unless ``change`` returns None, again and again until nobody came in between."""
        name = self._name(key)
        async with self._turns[hash(name) % _TURNS], self._connections.lend() as client:
            for _ in range(_ATTEMPTS):
                blob, token = await client.gets(name)
                epochs = await self._epochs(client, [key])
                fresh = change(self._live(key, blob, epochs))
                if fresh is None:
                    return False
                packed, exptime = _pack(key, fresh.data, fresh.end, epochs), self._exptime(fresh.end)
                if token is None and await client.add(name, packed, exptime):
                    return True
                if token is not None and await client.cas(name, packed, token, exptime):
                    return True
        raise Conflict(f"the entry {key!r} was changed by others {_ATTEMPTS} times in a row; try again")

    async def _epochs(self, client: Client, keys: Sequence[str]) -> dict[str, bytes | None]:
        """Return the epochs that some keys belong to, making those that are missing."""
        levels = levels_of_all(keys)
        found: dict[str, bytes | None] = {}
        for start in range(0, len(levels), _BATCH):
            batch = levels[start : start + _BATCH]
            tokens = await client.multi_get(*map(self._epoch_name, batch))
            found |= zip(batch, tokens, strict=True)
        for level in [level for level, token in found.items() if token is None]:
            found[level] = await self._first_epoch(client, self._epoch_name(level))
        return found

    async def _first_epoch(self, client: Client, name: bytes) -> bytes | None:
        token = fresh_id().encode()
        return token if await client.add(name, token) else await client.get(name)

    def _live(self, key: str, blob: bytes | None, epochs: Mapping[str, bytes | None]) -> _Entry | None:
        if blob is None or len(blob) < _HEADER.size:
            return None
        magic, end, digest = _HEADER.unpack_from(blob)
        if magic != _MAGIC or end <= self._now() or digest != digest_of(key, epochs):
            return None
        return _Entry(blob[_HEADER.size :], end)

    def _name(self, key: str) -> bytes:
        return physical(f"{self._config.namespace}=", f"{self._config.namespace}#", key)

    def _epoch_name(self, level: str) -> bytes:
        return physical(f"{self._config.namespace}@", f"{self._config.namespace}%", level)


def _pack(key: str, data: bytes, end: float, epochs: Mapping[str, bytes | None]) -> bytes:
    return _HEADER.pack(_MAGIC, end, digest_of(key, epochs) or b"") + data
