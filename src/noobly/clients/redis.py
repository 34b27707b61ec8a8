"""A Redis connection that comes back by itself, and what a provider needs to know of Redis.

Deadlines and retries are layers above. Blocking commands (``BLPOP``, ``XREAD BLOCK``) would hold up everybody
who shares the connection; they need one of their own.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from noobly.clients.redis_reply import Arg, Command, Execute, RedisReplyError, Reply, classify
from noobly.clients.redis_script import RedisScript, run_script
from noobly.clients.redis_wire import RedisWire
from noobly.core.clock import Chance, system_chance
from noobly.core.errors import Closed, ConfigError, Internal, NooblyError, Unavailable, Unsupported

__all__ = [
    "Arg",
    "Command",
    "Execute",
    "RedisAddress",
    "RedisClient",
    "RedisConnection",
    "RedisOptions",
    "RedisReplyError",
    "RedisScript",
    "Reply",
    "Resolver",
    "classify",
]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class RedisAddress(msgspec.Struct, frozen=True):
    """Where a server listens: host and TCP port, or the path of a Unix socket."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


class RedisOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to speak to a server; times in seconds. ``password`` is asked at each connect and never kept."""

    username: str | None = None
    password: Callable[[], str] | None = None
    database: int = 0
    tls: ssl.SSLContext | None = None
    client_name: str | None = None
    connect_timeout: float = 5.0
    stall_timeout: float = 5.0
    max_in_flight: int = 10_000

    def __post_init__(self) -> None:
        if min(self.connect_timeout, self.stall_timeout, self.max_in_flight) <= 0:
            raise ConfigError("connect_timeout, stall_timeout and max_in_flight must be more than 0")

    def __repr__(self) -> str:
        return f"RedisOptions(username={self.username!r}, database={self.database}, tls={bool(self.tls)})"

    def hello(self) -> Command:
        """Return the command that opens a session (https://redis.io/docs/latest/commands/hello/)."""
        login = ("AUTH", self.username or "default", self.password()) if self.password else ()
        return ("HELLO", 3, *login, *(("SETNAME", self.client_name) if self.client_name else ()))


Resolver: TypeAlias = Callable[[], Awaitable[RedisAddress]]
PushHandler: TypeAlias = Callable[[list[Reply]], None]
ConnectHandler: TypeAlias = Callable[[Execute], Awaitable[None]]


class RedisClient(Protocol):
    """What a provider needs of Redis, whatever the topology."""

    async def start(self) -> None:
        """Connect and log in."""

    async def close(self) -> None:
        """Give everything back; later calls raise ``Closed``."""

    async def execute(self, *args: Arg) -> Reply:
        """Return the reply to one command."""

    def submit(self, command: Command) -> Awaitable[Reply]:
        """Return the future reply to one command, which must be awaited at once; it costs no coroutine."""

    async def execute_many(self, commands: Sequence[Command]) -> list[Reply | RedisReplyError]:
        """Return the replies to all commands in order, an error in its place."""

    async def script(self, script: RedisScript, keys: Sequence[Arg], args: Sequence[Arg]) -> Reply:
        """Return what a Lua script gives."""


class RedisConnection:
    """Shares one connection between all tasks of a loop and reconnects at the first call after a loss.

    Args:
        resolve: Gives the address; asked anew at each connect.
        options: How to speak to the server.
        chance: Spreads the pauses between attempts.
    """

    def __init__(self, resolve: Resolver, options: RedisOptions, *, chance: Chance | None = None) -> None:
        self._resolve, self._options = resolve, options
        self._chance = chance or system_chance()
        self._closed = True
        self._wire: RedisWire | None = None
        self._wires: set[RedisWire] = set()
        self._attempt: asyncio.Task[None] | None = None
        self._failure: NooblyError | None = None
        self._failures, self._retry_at = 0, 0.0
        self._pushed: list[PushHandler] = []
        self._connects: list[ConnectHandler] = []
        self._disconnects: list[Callable[[], None]] = []

    @property
    def connected(self) -> bool:
        """Whether a command would leave at once."""
        return self._wire is not None

    def on_push(self, handler: PushHandler) -> None:
        """Call ``handler`` with each push message, before the replies that follow it are seen."""
        self._pushed.append(handler)

    def on_connect(self, handler: ConnectHandler) -> None:
        """Await ``handler`` after each login, before other commands; it gets a function that executes one."""
        self._connects.append(handler)

    def on_disconnect(self, handler: Callable[[], None]) -> None:
        """Call ``handler`` after each loss, before the callers in flight learn of it."""
        self._disconnects.append(handler)

    async def start(self) -> None:
        """Connect and log in.

        Raises:
            Unavailable: The server cannot be reached.
            Unauthenticated: It refuses the user or password.
            Unsupported: It is too old to speak RESP3.
        """
        self._closed, self._retry_at = False, 0.0
        try:
            await self._ready()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Cut the connection; commands in flight and later calls raise ``Closed``."""
        self._closed = True
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait((self._attempt,))
        for wire in tuple(self._wires):
            wire.drop(Closed, "the redis connection was closed")
            await asyncio.wait((wire.lost,))

    async def execute(self, *args: Arg) -> Reply:
        """Return the reply to one command.

        Raises:
            RedisReplyError: The server answered with an error.
            Unavailable: The server is away, or was lost before it answered.
            Closed: Not started, or closed.
        """
        wire = self._wire or await self._ready()
        return await wire.submit(args)

    def submit(self, command: Command) -> Awaitable[Reply]:
        """See ``RedisClient``; raises as ``execute``, now or when it is awaited."""
        return self.execute(*command) if self._wire is None else self._wire.submit(command)

    async def execute_many(self, commands: Sequence[Command]) -> list[Reply | RedisReplyError]:
        """Return the replies to commands sent together, an error in its place; else raises as ``execute``."""
        if not commands:
            return []
        wire = self._wire or await self._ready()
        return await wire.submit_many(commands)

    async def script(self, script: RedisScript, keys: Sequence[Arg], args: Sequence[Arg]) -> Reply:
        """Return what a Lua script gives; raises as ``execute``."""
        return await run_script(self.execute, script, keys, args)

    async def _ready(self) -> RedisWire:
        while (wire := self._wire) is None:
            attempt = self._attempt or self._begin()
            await asyncio.wait((attempt,))
            if attempt.cancelled() or attempt.exception() is not None:
                raise self._refusal()
        return wire

    def _begin(self) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        if self._closed or loop.time() < self._retry_at:
            raise self._refusal()
        self._attempt = loop.create_task(self._connect())
        self._attempt.add_done_callback(self._attempted)
        return self._attempt

    def _refusal(self) -> NooblyError:
        """Return a new error for each caller, so that none shares a traceback with another."""
        if self._closed or self._failure is None:
            return Closed("the redis connection is not open")
        wait = max(0.0, self._retry_at - asyncio.get_running_loop().time())
        error = type(self._failure)(self._failure.message, retry_after=wait)
        error.__cause__ = self._failure.__cause__
        return error

    def _attempted(self, attempt: asyncio.Task[None]) -> None:
        self._attempt = None
        if attempt.cancelled() or (error := attempt.exception()) is None:
            return
        self._failures += 1
        self._pause(error if isinstance(error, NooblyError) else Internal(f"connecting failed: {error!r}"))

    def _pause(self, failure: NooblyError) -> None:
        self._failure = failure
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures - 1, 10))
        self._retry_at = asyncio.get_running_loop().time() + longest * (1 + self._chance.random()) / 2

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                wire = await self._dial(await self._resolve())
                await self._greet(wire)
        except RedisReplyError as error:
            if error.code == "NOPROTO" or error.message.startswith("unknown command"):
                # An old server repeats the arguments in its answer, the password with them: no cause here.
                raise Unsupported("this server does not speak RESP3; use Redis 6 or later") from None
            raise classify(error) or ConfigError(f"redis refused the session: {error}") from error
        except OSError as error:
            raise classify(error) or error from error

    async def _dial(self, address: RedisAddress) -> RedisWire:
        loop, new = asyncio.get_running_loop(), self._new_wire
        if address.path:
            return (await loop.create_unix_connection(new, address.path))[1]
        return (await loop.create_connection(new, address.host, address.port, ssl=self._options.tls))[1]

    def _new_wire(self) -> RedisWire:
        limit, stall = self._options.max_in_flight, self._options.stall_timeout
        return RedisWire(limit=limit, stall=stall, on_push=self._push, on_drop=self._dropped)

    async def _greet(self, wire: RedisWire) -> None:
        self._wires.add(wire)
        wire.lost.add_done_callback(lambda _: self._wires.discard(wire))
        try:
            await self._log_in(wire)
        except BaseException:
            wire.drop(Unavailable, "the redis session could not be opened")
            await asyncio.wait((wire.lost,))
            raise
        if wire.failure is not None:
            raise wire.failure
        wire.proven = False
        self._wire = wire

    async def _log_in(self, wire: RedisWire) -> None:
        if not isinstance(await wire.submit(self._options.hello()), dict):
            raise ConnectionError("the answer to HELLO is none of a Redis server")
        if self._options.database:
            await wire.submit(("SELECT", self._options.database))
        for handler in self._connects:
            await handler(lambda *args: wire.submit(args))

    def _push(self, message: list[Reply]) -> None:
        for handler in self._pushed:
            handler(message)

    def _dropped(self, wire: RedisWire) -> None:
        if wire is not self._wire or wire.failure is None:
            return
        self._wire = None
        self._failures = 0 if wire.proven else self._failures + 1
        if self._failures > 1:
            self._pause(wire.failure)
        for told in self._disconnects:
            asyncio.get_running_loop().call_soon(told)
