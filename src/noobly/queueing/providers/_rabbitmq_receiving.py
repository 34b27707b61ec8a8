"""Receiving from many queues: each has a channel of its own."""

from __future__ import annotations

import asyncio

from aio_pika.exceptions import ChannelNotFoundEntity

from noobly.core.errors import NooblyError
from noobly.core.lifecycle import Tasks
from noobly.queueing.providers._rabbitmq_link import RabbitLink
from noobly.queueing.providers._rabbitmq_tap import Surplus, Tap

_SETTLED = 60.0
"""Seconds after which nothing is under way any more on a channel that is not received from."""
_MADE = 0.25
"""Seconds within which a queue that can be seen is made."""
_MOST_CHANNELS = 500


class Taps:
    """The channels of the queues that are received from."""

    def __init__(self, link: RabbitLink, tasks: Tasks) -> None:
        self._link, self._tasks = link, tasks
        self._taps: dict[str, Tap] = {}
        self._old: list[Tap] = []
        self._missing: dict[str, float] = {}
        self._opening = asyncio.Lock()

    async def open(self, name: str, surplus: Surplus) -> Tap | None:
        """Return the channel of a queue on the server; None where there is no such queue."""
        async with self._opening:
            await self._close_old()
            tap = self._taps.get(name)
            if tap is None or tap.closed or tap.retired is not None:
                tap = await self._new(name, surplus)
            return tap

    async def _close_old(self) -> None:
        now = asyncio.get_running_loop().time()
        for tap in [tap for tap in self._old if not tap.held and now - (tap.retired or 0.0) > _SETTLED]:
            self._old.remove(tap)
            await tap.close()

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
        channel = await self._link.channel()
        try:
            async with self._link.bounded():
                queue = await channel.declare_queue(name, passive=True)
        except NooblyError as error:
            if isinstance(error.__cause__, ChannelNotFoundEntity):
                self._missing[name] = 0.0
                return None
            raise
        if not self._usable(name, queue.declaration_result.message_count or 0):
            async with self._link.bounded():
                await channel.close()
            return None
        tap = Tap(self._link, self._tasks, channel, queue, surplus)
        await tap.watch()
        await self._make_room()
        self._taps[name] = tap
        return tap

    def _usable(self, name: str, messages: int) -> bool:
        """Return whether a queue that was missing just now may be asked for messages.

        While a queue is being made it can be seen, but RabbitMQ 3.10 closes the connection of one who asks for more.
        """
        now = asyncio.get_running_loop().time()
        seen = self._missing.get(name)
        if messages or seen is None or 0.0 < seen < now - _MADE:
            self._missing.pop(name, None)
            return True
        self._missing[name] = seen or now
        return False

    async def _make_room(self) -> None:
        if len(self._taps) < _MOST_CHANNELS:
            return
        idle = [name for name, tap in self._taps.items() if tap.closed or not (tap.held or tap.users)]
        for name in idle:
            await self._taps.pop(name).close()
