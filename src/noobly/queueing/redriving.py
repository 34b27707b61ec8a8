"""Sending messages of one queue to another: dead letters that shall be tried again, or a whole queue that moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from noobly.core.checks import whole
from noobly.core.errors import InvalidArgument
from noobly.core.lifecycle import Tasks
from noobly.queueing.driver import Failure, Leased, Posted, QueueDriver
from noobly.queueing.messages import Redriven
from noobly.queueing.packing import unending

_MOST = 10_000
_TOGETHER = 100
_LEASE = 30.0
"""Seconds for which messages are held, or as long as the provider can, if that is less.

Extended all the while, so that what a run that was killed has held comes back soon.
"""


class Redrive:
    """Moves messages: each is sent to its target before it is deleted where it was, so none is lost on the way.

    Messages that are not wanted, or could not be sent, are held until all were looked at, and then given back. Two that
    move messages of one queue at the same time hide them from each other.
    """

    def __init__(self, driver: QueueDriver, admit: Callable[[Posted], None], tasks: Tasks) -> None:
        self._driver, self._admit, self._tasks = driver, admit, tasks

    async def run(self, source: str, target: str, error: str, most: int, rate: float | None) -> Redriven:
        """Move up to ``most`` messages whose errors hold a text; ``rate`` a second."""
        _check(most, rate)
        if source == target:
            raise InvalidArgument(f"messages of queue {source!r} cannot be sent to itself")
        moving = _Moving(self._driver, self._admit, source, target)
        seen = moved = 0
        try:
            while seen < most:
                together = min(_TOGETHER, most - seen, max(1, int(rate)) if rate else _TOGETHER)
                leased = await moving.take(together)
                if not leased:
                    break
                seen += len(leased)
                wanted = [one for one in leased if error in one.message.first_error or error in one.message.last_error]
                # Half done, what was sent would be given back as well, and be there twice.
                moved += await self._tasks.complete(moving.move(wanted), f"moving to queue {target!r}")
                await moving.rest(len(wanted) / rate if rate else 0.0)
        finally:
            await self._tasks.complete(moving.give_back(), f"giving back to queue {source!r}")
        return Redriven(seen, moved)


class _Moving:
    """One run, and the messages that it holds."""

    def __init__(self, driver: QueueDriver, admit: Callable[[Posted], None], source: str, target: str) -> None:
        self._driver, self._admit = driver, admit
        self._source, self._target = source, target
        self._lease = min(_LEASE, driver.limits.lease)
        self._held: dict[str, None] = {}
        self._now = asyncio.get_running_loop().time
        self._extended = self._now()

    async def take(self, most: int) -> list[Leased]:
        """Hold further messages."""
        leased = await self._driver.receive(self._source, most, self._lease, 0.0)
        self._held |= dict.fromkeys(one.receipt for one in leased)
        return leased

    async def move(self, wanted: Sequence[Leased]) -> int:
        """Send messages to the target and delete them; return how many."""
        if not wanted:
            return 0
        fresh = [_fresh(one) for one in wanted]
        for one in fresh:
            self._admit(one)
        sent = await self._driver.send(self._target, fresh)
        done = [one.receipt for one, result in zip(wanted, sent, strict=True) if not result.error]
        await self._driver.ack(self._source, done)
        for receipt in done:
            self._held.pop(receipt, None)
        return len(done)

    async def rest(self, pause: float) -> None:
        """Wait so many seconds, and keep what is held from others meanwhile."""
        until = self._now() + pause
        while (left := until - self._now()) > 0:
            await asyncio.sleep(min(left, self._lease / 3))
            await self._extend()
        await self._extend()

    async def _extend(self) -> None:
        if self._now() - self._extended < self._lease / 3:
            return
        self._extended = self._now()
        for part in _parts(self._held):
            good = await self._driver.extend(self._source, part, self._lease)
            for receipt in [receipt for receipt, stands in zip(part, good, strict=True) if not stands]:
                self._held.pop(receipt, None)

    async def give_back(self) -> None:
        """Give back what is held."""
        for part in _parts(self._held):
            await self._driver.nack(self._source, [Failure(receipt, 0.0, "", counts=False) for receipt in part])


def _parts(receipts: Iterable[str]) -> Iterator[list[str]]:
    every = list(receipts)
    return (every[start : start + _TOGETHER] for start in range(0, len(every), _TOGETHER))


def _fresh(leased: Leased) -> Posted:
    """Return a message that begins anew, at once, and is never dropped as a duplicate; its errors stay with it.

    One that somebody has received has no end any more.
    """
    message = leased.message
    received = message.attempts or leased.deliveries > 1
    headers = unending(message.headers) if received else message.headers
    return msgspec.structs.replace(message, headers=headers, delay=0.0, dedup=None, attempts=0, died_at=0.0)


def _check(most: int, rate: float | None) -> None:
    whole(most, "max", 1, _MOST)
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1e6):
        raise InvalidArgument(f"rate must be more than 0 and less than 1,000,000 messages per second, not {rate!r}")
