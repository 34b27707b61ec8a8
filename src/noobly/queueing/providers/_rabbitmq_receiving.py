"""Receiving from many queues: each has a channel of its own."""

from __future__ import annotations

import asyncio
import math
from weakref import WeakValueDictionary

from aio_pika.exceptions import ChannelNotFoundEntity

from noobly.core.errors import NooblyError
from noobly.core.lifecycle import Tasks
from noobly.queueing.providers._rabbitmq_link import RabbitLink
from noobly.queueing.providers._rabbitmq_tap import Surplus, Tap, Waiting

LOOK = 0.5
"""Seconds between looks for a queue that is not there, by all who wait for it together: each costs a channel."""
_SETTLED = 60.0
"""Seconds after which nothing is under way any more on a channel that is not received from."""
_MADE = 0.25
"""Seconds within which a queue that can be seen is made."""
_MOST_CHANNELS = 500


class _Missing:
    """A queue that is not there, or is just being made: when it was looked for, and first seen; who waits for it."""

    def __init__(self) -> None:
        self.looked = -math.inf
        self.seen: float | None = None
        self.waiting: set[Waiting] = set()


class Taps:
    """The channels of the queues that are received from."""

    def __init__(self, link: RabbitLink, tasks: Tasks) -> None:
        self._link, self._tasks = link, tasks
        self._taps: dict[str, Tap] = {}
        self._old: list[Tap] = []
        self._missing: dict[str, _Missing] = {}
        self._opening: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self, name: str, surplus: Surplus, since: float) -> Tap | None:
        """Return the channel of a queue on the server; None where there is no such queue.

        Args:
            name: The queue.
            surplus: What is done with a message that nobody waits for any more.
            since: That there was none at this time of the loop, or later, is good enough.
        """
        self._close_old()
        async with self._opening.setdefault(name, asyncio.Lock()):
            tap = self._taps.get(name)
            if tap is not None and not tap.closed and tap.retired is None:
                return tap
            missing = self._missing.get(name)
            if missing is not None and missing.looked >= since:
                return None
            return await self._new(name, surplus)

    async def appears(self, name: str, waiting: Waiting, seconds: float) -> None:
        """Wait until a missing queue is to be looked for again: after a while, or when this process has sent to it."""
        missing = self._missing.get(name)
        if missing is None:
            return
        missing.waiting.add(waiting)
        try:
            await waiting.wait(min(LOOK, seconds))
        finally:
            missing.waiting.discard(waiting)

    def made(self, name: str) -> None:
        """Have those who wait for a queue look for it at once, for something was sent to it."""
        missing = self._missing.pop(name, None)
        for waiting in missing.waiting if missing is not None else ():
            waiting.move()

    def _close_old(self) -> None:
        now = asyncio.get_running_loop().time()
        for tap in [tap for tap in self._old if not tap.held and now - (tap.retired or 0.0) > _SETTLED]:
            self._old.remove(tap)
            self._tasks.spawn(tap.close(), "closing a channel")

    def coming(self, name: str) -> int:
        """Return how many messages have come that nobody has got yet."""
        return self._taps[name].coming if name in self._taps else 0

    async def ended(self) -> None:
        """Wait until no consumer is left of those that have done their part."""
        await asyncio.gather(*(tap.ended() for tap in self._taps.values()))

    async def _new(self, name: str, surplus: Surplus) -> Tap | None:
        old = self._taps.pop(name, None)
        if old is not None and not old.closed:
            self._old.append(old)
        looked = asyncio.get_running_loop().time()
        channel = await self._link.channel()
        try:
            async with self._link.bounded():
                queue = await channel.declare_queue(name, passive=True)
        except NooblyError as error:
            if isinstance(error.__cause__, ChannelNotFoundEntity):
                missing = self._missing.setdefault(name, _Missing())
                missing.looked, missing.seen = looked, None
                return None
            raise
        if not self._usable(name, queue.declaration_result.message_count or 0):
            async with self._link.bounded():
                await channel.close()
            return None
        tap = Tap(self._link, self._tasks, channel, queue, surplus)
        await tap.watch()
        self._make_room()
        self._taps[name] = tap
        return tap

    def _usable(self, name: str, messages: int) -> bool:
        """Return whether a queue that was missing just now may be asked for messages.

        While a queue is being made it can be seen, but RabbitMQ 3.10 closes the connection of one who asks for more.
        """
        missing, now = self._missing.get(name), asyncio.get_running_loop().time()
        if missing is None or messages or (missing.seen is not None and missing.seen < now - _MADE):
            self.made(name)
            return True
        missing.looked, missing.seen = now, missing.seen or now
        return False

    def _make_room(self) -> None:
        if len(self._taps) < _MOST_CHANNELS:
            return
        idle = [name for name, tap in self._taps.items() if tap.closed or not (tap.held or tap.users)]
        for name in idle:
            self._tasks.spawn(self._taps.pop(name).close(), "closing a channel")
