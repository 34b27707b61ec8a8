"""Receiving from one queue: a channel on which messages are got at once or waited for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aiormq.channel import Channel as UnderChannel

from noobly.core.clock import fresh_id
from noobly.core.errors import NooblyError
from noobly.core.lifecycle import Tasks
from noobly.queueing.providers._rabbitmq_link import RabbitLink

QUIET = 0.05
"""Seconds without a message after which no more are expected of those that were said to be there."""
_IDLE = 0.1
"""Seconds a consumer stands by without anybody waiting, for one who waits mostly comes back at once."""
_LATE = 10.0
"""Seconds after which nothing comes any more from a consumer that was ended."""
_RENEWED = 60.0
"""Seconds after which a consumer that got nothing is made anew, whatever the server says."""


class Waiting:
    """What one receiver waits for; it ends when something came, or when its channel or its caller went."""

    def __init__(self) -> None:
        self.over = False
        self._moved = asyncio.Event()

    def move(self) -> None:
        """Something came."""
        self._moved.set()

    def stop(self) -> None:
        """Nothing more is wanted, or can come."""
        self.over = True
        self._moved.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until something moves; false where nothing did, or all is over."""
        if self.over:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._moved.wait()
        moved = self._moved.is_set() and not self.over
        self._moved.clear()
        return moved


Surplus = Callable[["Tap", AbstractIncomingMessage], None]
"""What is done with a message that came when nobody waited any more."""


class Tap:
    """The channel of one queue. What comes from it is held by it until it is settled, or the channel is closed.

    While somebody waits, one consumer stands by for one message; then the next one is made. A consumer is ended only
    once it has its message, or nobody waits any more: the server takes back, and counts, what it sends to one that is
    just being ended. For the same reason nothing is settled before its consumer has ended.
    """

    def __init__(
        self, link: RabbitLink, tasks: Tasks, channel: AbstractChannel, queue: AbstractQueue, surplus: Surplus
    ) -> None:
        self.retired: float | None = None
        self.held = 0
        self.users = 0
        self._link, self._tasks, self._channel, self._queue = link, tasks, channel, queue
        self._surplus = surplus
        self._consuming = asyncio.Lock()
        self._waiting: list[Waiting] = []
        self._arrived: deque[AbstractIncomingMessage] = deque()
        self._pouring = 0
        self._standing: str | None = None
        self._doubted: str | None = None
        self._since = 0.0
        self._endings: set[asyncio.Task[None]] = set()
        self._idle: asyncio.TimerHandle | None = None

    @property
    def closed(self) -> bool:
        """Whether the server has taken all back that was held."""
        return self._channel.is_closed

    @property
    def coming(self) -> int:
        """How many messages have come that nobody has got yet."""
        return len(self._arrived) + self._pouring

    async def watch(self) -> None:
        """Have those who wait told when the channel is closed, or the server ends a consumer."""
        self._channel.close_callbacks.add(lambda *_: self._end())
        under = await self._channel.get_underlay_channel()
        under.on_consumer_cancel_callbacks.add(lambda _: self.retire())

    def retire(self) -> None:
        """Receive nothing more; what is held stays so. A channel may not get what is sent to a queue made again."""
        self.retired = asyncio.get_running_loop().time()
        if self._standing is not None:
            self._cancel(self._standing)
        self._end()

    async def _verify(self) -> None:
        """Doubt a consumer that gets nothing though something is there, that the server has not, or that is old."""
        tag = self._standing
        async with self._link.bounded():
            declared = await self._queue.declare()
        if tag is None or tag != self._standing:
            return
        if declared.message_count or not declared.consumer_count:
            if self._doubted == tag:  # Twice: the first time it may have been on its way.
                self.retire()
            self._doubted = tag
        elif asyncio.get_running_loop().time() - self._since > _RENEWED:
            self.retire()

    def _end(self) -> None:
        self._standing = None
        if self.closed:
            self._arrived.clear()
        for waiting in self._waiting:
            waiting.stop()

    async def take(self, most: int, seconds: float, waiting: Waiting) -> list[AbstractIncomingMessage]:
        """Return what is there, or the first that comes within ``seconds``."""
        first = await self._at_once() if self._standing is None or seconds <= 0 else None
        if first is None and seconds > 0:
            first = await self._awaited(seconds, waiting)
        if first is None:
            return []
        there = min(most - 1, first.message_count or 0)
        return [first, *await self._pour(there, waiting)] if there else [first]

    async def _at_once(self) -> AbstractIncomingMessage | None:
        if not self._arrived:
            async with self._link.bounded():
                found = await self._queue.get(fail=False, timeout=None)
            if found is not None:
                return found
            if self._standing is not None:
                await self.settled()  # What was sent to the consumer before is here now.
        return self._arrived.popleft() if self._arrived else None

    async def _awaited(self, seconds: float, waiting: Waiting) -> AbstractIncomingMessage | None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        self._waiting.append(waiting)
        try:
            while not self._arrived:
                await self._stand_by()
                if not self._arrived and not await waiting.wait(until - loop.time()):
                    await self._verify()
                    break
            return self._arrived.popleft() if self._arrived and not waiting.over else None
        finally:
            self._waiting.remove(waiting)
            self._pass_on()

    def _pass_on(self) -> None:
        """Have the next one who waits look, or end the consumer if nobody comes back soon."""
        if self._waiting:
            self._waiting[0].move()
        elif self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(_IDLE, self._lie_down)

    def _lie_down(self) -> None:
        self._idle = None
        if self._waiting:
            return
        tag, self._standing = self._standing, None
        if tag is not None:
            self._cancel(tag)
        while self._arrived:
            self._surplus(self, self._arrived.popleft())

    async def _stand_by(self) -> None:
        """Have the next message sent."""
        async with self._consuming:
            if self._standing is None and not self._arrived:
                tag = self._standing = fresh_id()
                self._since = asyncio.get_running_loop().time()
                try:
                    await self._consume(self._came, 1, tag)
                except BaseException:
                    self._standing = None
                    raise

    async def _came(self, message: AbstractIncomingMessage) -> None:
        if self._standing == message.consumer_tag:
            self._standing = None
            self._cancel(message.consumer_tag or "")
        self._arrived.append(message)
        self._pass_on()

    async def _pour(self, there: int, waiting: Waiting) -> list[AbstractIncomingMessage]:
        """Have messages sent until all are here that were said to be there, or none came for a while."""
        found: list[AbstractIncomingMessage] = []
        done = False

        async def came(message: AbstractIncomingMessage) -> None:
            if done:
                await self._came(message)
                return
            found.append(message)
            self._pouring += 1
            waiting.move()

        tag = fresh_id()
        async with self._consuming:
            await self._consume(came, there, tag)
        while len(found) < there and await waiting.wait(QUIET):
            pass
        try:
            await asyncio.shield(self._cancel(tag))
        finally:
            done = True
            self._pouring -= len(found)
        return found

    async def _consume(self, came: Callable[[AbstractIncomingMessage], Awaitable[None]], most: int, tag: str) -> None:
        # The server takes the limit from the channel at the moment of consuming, so this needs the lock.
        async with self._link.bounded():
            await self._channel.set_qos(prefetch_count=most)
            await self._queue.consume(came, consumer_tag=tag)

    def _cancel(self, tag: str) -> asyncio.Task[None]:
        ending = self._tasks.spawn(self._ended(tag), "ending a consumer")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return ending

    async def _ended(self, tag: str) -> None:
        """End a consumer, and keep what the server sends all the same: it does so for a moment."""
        async with self._link.bounded():
            consumers = cast(UnderChannel, await self._channel.get_underlay_channel()).consumers
            late = consumers.get(tag)
            await self._queue.cancel(tag, nowait=True)
        if late is not None:
            consumers[tag] = late
            asyncio.get_running_loop().call_later(_LATE, consumers.pop, tag, None)
        await self.settled()

    async def ended(self) -> None:
        """Wait until no consumer is left of those that have done their part."""
        await asyncio.gather(*self._endings, return_exceptions=True)

    async def settled(self) -> None:
        """Make sure that the server has read all that was sent on this channel."""
        async with self._link.bounded():
            await (await self._channel.get_underlay_channel()).flow(active=True)

    async def close(self) -> None:
        """Give everything back."""
        with suppress(NooblyError):
            async with self._link.bounded():
                await self._channel.close()
