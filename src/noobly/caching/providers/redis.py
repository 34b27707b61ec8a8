"""The Redis provider, also for Valkey and compatible servers, alone, behind Sentinel or as a cluster.

All calls share one multiplexed connection (a cluster has a pool per node). Commands touch one key each, so that they
work on a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import cast

from noobly.caching.driver import RawPage
from noobly.clients.redis import Command, Execute, RedisConnection, RedisReplyError, RedisScript, Reply, classify
from noobly.clients.redis_config import RedisConfig, redis_client
from noobly.clients.redis_scan import scan
from noobly.core.checks import Limits
from noobly.core.errors import Conflict, Internal, NooblyError
from noobly.core.scope import Environment

Changed = Callable[[Sequence[str] | None], None]

_SWAP = RedisScript("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == 'delete' then redis.call('UNLINK', KEYS[1])
elseif ARGV[4] == '' then redis.call('SET', KEYS[1], ARGV[3])
else redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]) end
return 1
""")

# The sum is read back as text, for Lua's own numbers are exact only up to 2^53.
_INCREMENT = RedisScript("""
local new = redis.call('EXISTS', KEYS[1]) == 0
redis.call('INCRBY', KEYS[1], ARGV[1])
if new and ARGV[2] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])
""")

_PERSIST = RedisScript("redis.call('PERSIST', KEYS[1]) return redis.call('EXISTS', KEYS[1])")

_NOT_A_COUNTER = re.compile("not an integer|would overflow")


class RedisCache:
    """Entries as Redis strings under ``namespace:key``."""

    Config = RedisConfig
    scheme = "redis"
    in_process = False
    joins = True
    limits = Limits(value_bytes=512 * 1024 * 1024)

    def __init__(self, config: RedisConfig, environment: Environment) -> None:
        self._client = redis_client(config, environment)
        self._prefix = f"{config.namespace}:"

    async def start(self, stack: AsyncExitStack) -> None:
        """Connect, and close at the stack's end."""
        await self._client.start()
        stack.push_async_callback(self._client.close)

    def classify(self, error: Exception) -> NooblyError | None:
        """Map what the server and the connection raise."""
        if isinstance(error, RedisReplyError) and _NOT_A_COUNTER.search(error.message):
            return Conflict("the entry is not a counter, or its number would leave the signed 64-bit range")
        return classify(error)

    def track(self, changed: Changed) -> None:
        """Call ``changed`` with keys that others have written, and with None when some may have been missed.

        The server's broadcasting mode tells of every write below the prefix, on this same connection and in order with
        its replies (https://redis.io/docs/latest/develop/reference/client-side-caching/). To be called before start.
        """
        connection = cast(RedisConnection, self._client)
        cut = len(self._prefix)

        def pushed(message: list[Reply]) -> None:
            if message[0] != b"invalidate":
                return
            keys = message[1]
            changed([key.decode()[cut:] for key in keys if isinstance(key, bytes)] if isinstance(keys, list) else None)

        async def connected(execute: Execute) -> None:
            changed(None)
            await execute("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._prefix, "NOLOOP")

        connection.on_push(pushed)
        connection.on_connect(connected)
        connection.on_disconnect(lambda: changed(None))

    async def get(self, key: str, /) -> bytes | None:
        """See the protocol."""
        return cast("bytes | None", await self._client.submit(("GET", self._prefix + key)))

    async def get_many(self, keys: Sequence[str], /) -> list[bytes | None]:
        """See the protocol."""
        replies = await self._all([("GET", self._prefix + key) for key in keys])
        return cast("list[bytes | None]", replies)

    async def fetch_many(self, keys: Sequence[str]) -> list[tuple[bytes, float | None] | None]:
        """Return entries with the seconds they have left, for a tier in front of this one."""
        names = [self._prefix + key for key in keys]
        replies = await self._all([(verb, name) for name in names for verb in ("GET", "PTTL")])
        pairs = zip(replies[::2], replies[1::2], strict=True)
        return [
            (data, left / 1000 if left >= 0 else None) if isinstance(data, bytes) and isinstance(left, int) else None
            for data, left in pairs
        ]

    async def put(self, key: str, data: bytes, ttl: float | None, /) -> None:
        """See the protocol."""
        await self._client.submit(self._set(key, data, ttl))

    async def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None, /) -> None:
        """See the protocol."""
        await self._all([self._set(key, data, ttl) for key, data in entries])

    async def add(self, key: str, data: bytes, ttl: float | None, /) -> bool:
        """See the protocol."""
        return await self._client.execute(*self._set(key, data, ttl), "NX") is not None

    async def swap(self, key: str, expected: bytes, data: bytes | None, ttl: float | None, /) -> bool:
        """See the protocol."""
        verb = "delete" if data is None else "set"
        return await self._client.script(_SWAP, [self._prefix + key], [expected, verb, data or b"", _ms(ttl)]) == 1

    async def delete_many(self, keys: Sequence[str], /) -> list[bool]:
        """See the protocol."""
        return [reply == 1 for reply in await self._all([("UNLINK", self._prefix + key) for key in keys])]

    async def touch(self, key: str, ttl: float | None, /) -> bool:
        """See the protocol."""
        if ttl is None:
            return await self._client.script(_PERSIST, [self._prefix + key], []) == 1
        return await self._client.execute("PEXPIRE", self._prefix + key, _ms(ttl)) == 1

    async def increment(self, key: str, amount: int, ttl: float | None, /) -> int:
        """See the protocol."""
        total = await self._client.script(_INCREMENT, [self._prefix + key], [amount, _ms(ttl)])
        return int(_text(total))

    async def clear(self, namespace: str, /) -> None:
        """See the protocol; scans the server's keys, which other clients do not notice."""
        cursor = ""
        while True:
            cursor, names = await scan(self._client, cursor, self._pattern(namespace), 1000)
            if names:
                await self._all([("UNLINK", name) for name in names])
            if not cursor:
                return

    async def keys(self, namespace: str, after: str | None, limit: int, /) -> RawPage:
        """See the protocol; a key may come twice while the server reorders its table."""
        cursor, names = await scan(self._client, after or "", self._pattern(namespace), limit)
        return RawPage([name.decode()[len(self._prefix) :] for name in names], cursor or None)

    async def health(self) -> None:
        """See the protocol."""
        await self._client.execute("GET", f"{self._prefix}\x1fhealth")

    def _set(self, key: str, data: bytes, ttl: float | None) -> Command:
        name = self._prefix + key
        return ("SET", name, data) if ttl is None else ("SET", name, data, "PX", _ms(ttl))

    def _pattern(self, namespace: str) -> str:
        prefix = f"{self._prefix}{namespace}:" if namespace else self._prefix
        return re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"

    async def _all(self, commands: Sequence[Command]) -> list[Reply]:
        replies = await self._client.execute_many(commands)
        for reply in replies:
            if isinstance(reply, RedisReplyError):
                raise reply
        return cast("list[Reply]", replies)


def _ms(ttl: float | None) -> str:
    return "" if ttl is None else str(max(1, int(ttl * 1000)))


def _text(reply: Reply) -> str:
    if not isinstance(reply, bytes):
        raise Internal(f"redis answered with {type(reply).__name__} where text was expected")
    return reply.decode()
