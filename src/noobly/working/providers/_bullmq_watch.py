"""Waiting on BullMQ's markers and events: one connection that blocks for each queue that somebody waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Protocol, TypeVar

from noobly.clients.redis import Arg, RedisClient, Reply
from noobly.core.errors import NooblyError
from noobly.core.lifecycle import Tasks

_log = logging.getLogger("noobly.working")

_BLOCK = 2.0
"""Seconds of one blocking command; a connection that is silent for longer than its stall timeout counts as lost."""

_PAUSE = 0.25
_LINGER = 2.0
"""Seconds for which a connection is kept that nobody needs, for whoever waits in slices is back at once."""

_MOST = 50
"""Connections that block, of one instance."""

_LOOK = 1.0
"""Seconds between two looks of somebody who waits for an end and is not told."""

_KNOWN = 1000
"""Queues that are remembered though nobody waits for them."""

Ask = Callable[[RedisClient], Awaitable[None]]
"""Asks the server once, for at most ``_BLOCK`` seconds, and wakes whoever it concerns."""


class Waiters:
    """Those who wait, by what they wait for."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._there = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def wake(self, name: str) -> None:
        """Wake all who wait for a name."""
        for future in self._waiting.get(name, ()):
            _settle(future)

    async def wait(self, name: str, pause: float) -> None:
        """Wait until somebody wakes the name, ``pause`` seconds at most."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(name, set()).add(future)
        self._there.set()
        timer = loop.call_later(pause, _settle, future)
        try:
            await future
        finally:
            timer.cancel()
            self._waiting[name].discard(future)
            if not self._waiting[name]:
                del self._waiting[name]
            if not self._waiting:
                self._there.clear()

    async def come(self, patience: float) -> bool:
        """Return whether anybody waits, or begins to within ``patience`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._there.wait()
        return bool(self)


class Watches:
    """The connections that block, so many at most; who waits where there is none looks for themselves.

    Args:
        connect: Makes a connection, not yet started.
        tasks: Own the asking.
    """

    def __init__(self, connect: Callable[[], RedisClient], tasks: Tasks) -> None:
        self.connect, self._tasks = connect, tasks
        self._going: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        """Whether no more may block."""
        return len(self._going) >= _MOST

    def spawn(self, asking: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Ask from now on."""
        task = self._tasks.spawn(asking, "watch of a BullMQ queue")
        self._going.add(task)
        task.add_done_callback(self._going.discard)
        return task


class Watch:
    """Asks the server over and over while anybody waits, on a connection of its own.

    Args:
        watches: Those that there are.
        ask: Asks once.
        waiters: Those who wait.
    """

    def __init__(self, watches: Watches, ask: Ask, waiters: Waiters) -> None:
        self._watches, self._ask, self._waiters = watches, ask, waiters
        self._asking: asyncio.Task[None] | None = None

    @property
    def going(self) -> bool:
        """Whether it asks."""
        return self._asking is not None and not self._asking.done()

    @property
    def possible(self) -> bool:
        """Whether it asks, or may begin to."""
        return self.going or not self._watches.full

    def begin(self) -> None:
        """Ask from now on, as long as anybody waits, unless there are too many that do."""
        if not self.going and not self._watches.full:
            self._asking = self._watches.spawn(self._go_on())

    async def _go_on(self) -> None:
        client = self._watches.connect()
        try:
            await client.start()
            while await self._waiters.come(_LINGER):
                await self._ask(client)
        except NooblyError as error:
            _log.debug("a queue of BullMQ cannot be watched; those who wait look for themselves: %s", error)
            await asyncio.sleep(_PAUSE)
        finally:
            with suppress(NooblyError):
                await client.close()


class Markers:
    """Waits for the marker that BullMQ sets when a queue has work; ``heard`` grows with each one.

    Whoever takes the marker is the only one who wakes. So it is put back where it wakes nobody, or nobody who may work.
    """

    def __init__(self, watches: Watches, key: str) -> None:
        self.heard = 0
        self._waiters, self._resting = Waiters(), Waiters()
        self._key = key
        self._taken = False
        self._watch = Watch(watches, self._ask, self._waiters)

    def wake(self) -> None:
        """Let all who wait look for work."""
        self.heard += 1
        self._waiters.wake("")
        self._resting.wake("")

    async def wait(self, heard: int, pause: float) -> None:
        """Wait until there may be work, ``pause`` seconds at most.

        Args:
            heard: The attribute before the last look, so that nothing is missed which came since.
            pause: Seconds.
        """
        self._taken = False
        if heard == self.heard:
            self._watch.begin()
            await self._waiters.wait("", pause)

    async def rest(self, client: RedisClient, pause: float) -> None:
        """Wait until work may be begun again, ``pause`` seconds at most, and leave the marker to others."""
        if self._taken:
            self._taken = False
            await client.execute("ZADD", self._key, 0, "0")
        await self._resting.wait("", pause)

    async def _ask(self, client: RedisClient) -> None:
        match await client.execute("BZPOPMIN", self._key, _BLOCK):
            case [_, bytes() as member, (int() | float() | bytes()) as score]:
                if self._waiters:
                    self._taken = True
                    self.wake()
                else:
                    await client.execute("ZADD", self._key, "LT", float(score), member)


class Ends:
    """Waits for the events that BullMQ adds when jobs end."""

    def __init__(self, watches: Watches, key: str) -> None:
        self._waiters = Waiters()
        self._key = key
        self._last: Arg | None = None
        self._watch = Watch(watches, self._ask, self._waiters)

    @property
    def idle(self) -> bool:
        """Whether nobody waits, and nothing is asked for."""
        return not self._waiters and not self._watch.going

    async def begin(self, client: RedisClient) -> None:
        """Listen from now on, so that an end is heard which comes after a look that is still to be made."""
        if not self._watch.possible:
            return
        if self._last is None or not self._watch.going:
            match await client.execute("XREVRANGE", self._key, "+", "-", "COUNT", 1):
                case [[bytes() as last, _]]:
                    self._last = last
                case _:
                    self._last = "0-0"
        self._watch.begin()

    async def wait(self, id: str, pause: float) -> None:
        """Wait until a job may have ended, ``pause`` seconds at most."""
        await self._waiters.wait(id, pause if self._watch.going else min(pause, _LOOK))

    async def _ask(self, client: RedisClient) -> None:
        streams = ("STREAMS", self._key, self._last or "$")
        reply = await client.execute("XREAD", "COUNT", 1000, "BLOCK", int(1000 * _BLOCK), *streams)
        for last, fields in _entries(reply):
            self._last = last
            if fields.get(b"event") in (b"completed", b"failed"):
                self._waiters.wake(fields.get(b"jobId", b"").decode())


class Forgettable(Protocol):
    """What is remembered of a queue."""

    @property
    def idle(self) -> bool:
        """Whether nobody needs it now."""
        ...


F = TypeVar("F", bound=Forgettable)


def forget_idle(known: dict[str, F]) -> None:
    """Make room where much is remembered."""
    if len(known) >= _KNOWN:
        for name in [name for name, one in known.items() if one.idle]:
            del known[name]


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _entries(reply: Reply) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the entries of an answer to XREAD, which has one stream."""
    streams = list(reply.values()) if isinstance(reply, dict) else []
    found: list[tuple[bytes, dict[bytes, bytes]]] = []
    for entries in streams:
        for entry in entries if isinstance(entries, list) else []:
            match entry:
                case [bytes() as id, list() as parts]:
                    flat = [part for part in parts if isinstance(part, bytes)]
                    found.append((id, dict(zip(flat[::2], flat[1::2], strict=False))))
    return found
