"""The memory provider: this process only, bounded by messages and bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count, islice
from typing import Annotated

import msgspec

from noobly.core.checks import Limits
from noobly.core.config import Config
from noobly.core.errors import RateLimited
from noobly.core.scope import Environment
from noobly.core.tally import Tally
from noobly.queueing.driver import Can, Counts, Failure, Leased, Posted, Sent
from noobly.queueing.providers._line import Line

_OVERHEAD = 500
"""Bytes that Python spends on a message besides body and headers."""


class MemoryConfig(Config, frozen=True, kw_only=True):
    """The options of the memory provider.

    Args:
        max_messages: Messages it holds, of all queues; further ones are refused.
        max_bytes: Bytes it holds, the interpreter's overhead included.
    """

    max_messages: Annotated[int, msgspec.Meta(gt=0)] = 1_000_000
    max_bytes: Annotated[int, msgspec.Meta(gt=0)] = 512 * 1024 * 1024


class MemoryQueues:
    """Queues in dictionaries and heaps, lost with the process. Bodies are bytes, so nobody gets another's object."""

    Config = MemoryConfig
    scheme = "memory"
    in_process = True
    features = frozenset({Can.PRIORITY, Can.DELAY, Can.DEDUP, Can.ORDER, Can.FAIR, Can.ERRORS, Can.UNCOUNT})

    def __init__(self, config: MemoryConfig, environment: Environment) -> None:
        self.limits = Limits(value_bytes=config.max_bytes // 2)
        self._config = config
        self._now = environment.clock.monotonic
        self._wall = environment.clock.time
        self._lines: dict[str, Line] = {}
        self._numbers = count(1)
        self._tally = Tally()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    async def send(self, queue: str, messages: Sequence[Posted], /) -> list[Sent]:
        """See the protocol.

        Raises:
            RateLimited: There is no room for all of them; none is stored.
        """
        self._check_room(queue, messages)
        line = self._made(queue)
        now, wall = self._now(), self._wall()
        sent = [line.add(message, now, wall) for message in messages]
        self._wake(queue, len(messages))
        return sent

    def _check_room(self, queue: str, messages: Sequence[Posted]) -> None:
        held = self._tally.count
        size = self._tally.bytes + held * _OVERHEAD
        more = sum(len(one.body) + len(one.headers) + _OVERHEAD for one in messages)
        if held + len(messages) > self._config.max_messages or size + more > self._config.max_bytes:
            raise RateLimited(f"queue {queue!r} takes no more: the memory provider is full with {held} messages")

    def _wake(self, queue: str, most: int) -> None:
        idle = (future for future in self._waiting.get(queue, []) if not future.done())
        for future in islice(idle, most):
            future.set_result(None)

    async def receive(self, queue: str, most: int, lease: float, wait: float, /) -> list[Leased]:
        """See the protocol."""
        until = asyncio.get_running_loop().time() + wait
        while not (found := self._take(queue, most, lease)) and await self._arrival(queue, until):
            pass
        return found

    def _take(self, queue: str, most: int, lease: float) -> list[Leased]:
        line = self._lines.get(queue)
        return list(line.take(most, lease, self._now())) if line is not None else []

    async def _arrival(self, queue: str, until: float) -> bool:
        """Wait until there may be a message; false where the time is over."""
        loop = asyncio.get_running_loop()
        left = until - loop.time()
        if left <= 0:
            return False
        line = self._lines.get(queue)
        due = line.next_due() if line is not None and not line.paused else None
        pause = left if due is None else min(left, max(0.001, due - self._now()))
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(queue, []).append(future)
        timer = loop.call_later(pause, _settle, future)
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():
                self._wake(queue, 1)  # It was called for a message that it will not take.
            raise
        finally:
            timer.cancel()
            self._forget(queue, future)
        return True

    def _forget(self, queue: str, future: asyncio.Future[None]) -> None:
        self._waiting[queue].remove(future)
        if not self._waiting[queue]:
            del self._waiting[queue]

    async def ack(self, queue: str, receipts: Sequence[str], /) -> list[bool]:
        """See the protocol."""
        line, now = self._line(queue), self._now()
        good = [line.ack(receipt, now) for receipt in receipts]
        self._wake(queue, len(receipts))  # The next message of a group may be free now.
        return good

    async def nack(self, queue: str, failures: Sequence[Failure], /) -> list[bool]:
        """See the protocol."""
        line, now = self._line(queue), self._now()
        good = [line.nack(failure, now) for failure in failures]
        self._wake(queue, len(failures))
        return good

    async def extend(self, queue: str, receipts: Sequence[str], lease: float, /) -> list[bool]:
        """See the protocol."""
        line, now = self._line(queue), self._now()
        return [line.extend(receipt, lease, now) for receipt in receipts]

    async def bury(self, queue: str, dead: str, failure: Failure, /) -> bool:
        """See the protocol."""
        now, wall = self._now(), self._wall()
        message = self._line(queue).remove(failure, now, wall)
        if message is None:
            return False
        self._made(dead).add(message, now, wall)
        self._wake(dead, 1)
        self._wake(queue, 1)
        return True

    async def counts(self, queue: str, /) -> Counts:
        """See the protocol."""
        return self._line(queue).counts(self._now(), self._wall())

    async def purge(self, queue: str, /) -> int:
        """See the protocol."""
        line = self._line(queue)
        count = line.purge(self._now())
        if not line:
            line.listed = False
            if not line.paused:
                self._lines.pop(queue, None)
        return count

    async def queues(self) -> list[str]:
        """See the protocol."""
        return sorted(name for name, line in self._lines.items() if line.listed)[:10_000]

    async def peek(self, queue: str, skip: int, most: int, /) -> list[Leased]:
        """See the protocol."""
        return list(self._line(queue).peek(skip, most, self._now()))

    async def pause(self, queue: str, /) -> None:
        """See the protocol."""
        self._made(queue).paused = True

    async def resume(self, queue: str, /) -> None:
        """See the protocol."""
        self._line(queue).paused = False
        self._wake(queue, len(self._waiting.get(queue, [])))

    async def health(self) -> None:
        """See the protocol; memory is always there."""

    def _made(self, queue: str) -> Line:
        line = self._lines.get(queue)
        if line is None:
            line = self._lines[queue] = Line(self._numbers, self._tally)
        return line

    def _line(self, queue: str) -> Line:
        line = self._lines.get(queue)
        return Line() if line is None else line  # One that is empty is false, and may be paused all the same.


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
