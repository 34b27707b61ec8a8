"""Sending messages of one queue to another: dead letters that shall be tried again, or a whole queue that moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from noobly.core.errors import InvalidArgument
from noobly.queueing.driver import Failure, Leased, Posted, QueueDriver
from noobly.queueing.messages import Redriven
from noobly.queueing.packing import unending

_MOST = 10_000
_TOGETHER = 100
_LEASE = 600.0
"""Seconds for which messages are held, or as long as the provider can, if that is less."""


class Redrive:
    """Moves messages: each is sent to its target before it is deleted where it was, so none is lost on the way.

    Messages that are not wanted, or could not be sent, are held until all were looked at, and then given back.
    """

    def __init__(self, driver: QueueDriver, admit: Callable[[Posted], None]) -> None:
        self._driver = driver
        self._admit = admit
        self._lease = min(_LEASE, driver.limits.lease)

    async def run(self, source: str, target: str, error: str, most: int, rate: float | None) -> Redriven:
        """Move up to ``most`` messages whose errors hold a text; ``rate`` a second."""
        _check(most, rate)
        if source == target:
            raise InvalidArgument(f"messages of queue {source!r} cannot be sent to itself")
        held: dict[str, None] = {}
        seen = moved = 0
        try:
            while seen < most:
                together = min(_TOGETHER, most - seen, max(1, int(rate)) if rate else _TOGETHER)
                leased = await self._driver.receive(source, together, self._lease, 0.0)
                if not leased:
                    break
                seen += len(leased)
                wanted = [one for one in leased if error in one.message.first_error or error in one.message.last_error]
                held |= dict.fromkeys(one.receipt for one in leased)
                for receipt in await self._move(source, target, wanted):
                    del held[receipt]
                    moved += 1
                if rate:
                    await asyncio.sleep(len(wanted) / rate)
        finally:
            await self._give_back(source, list(held))
        return Redriven(seen, moved)

    async def _move(self, source: str, target: str, wanted: Sequence[Leased]) -> list[str]:
        """Send messages to the target and delete them; return the receipts of those that are moved."""
        if not wanted:
            return []
        fresh = [_fresh(one) for one in wanted]
        for one in fresh:
            self._admit(one)
        sent = await self._driver.send(target, fresh)
        done = [one.receipt for one, result in zip(wanted, sent, strict=True) if not result.error]
        await self._driver.ack(source, done)
        return done

    async def _give_back(self, source: str, receipts: Sequence[str]) -> None:
        for start in range(0, len(receipts), _TOGETHER):
            part = receipts[start : start + _TOGETHER]
            await self._driver.nack(source, [Failure(receipt, 0.0, "") for receipt in part])


def _fresh(leased: Leased) -> Posted:
    """Return a message that begins anew, at once, and is never dropped as a duplicate; its errors stay with it.

    One that somebody has received has no end any more.
    """
    message = leased.message
    received = message.attempts or leased.deliveries > 1
    headers = unending(message.headers) if received else message.headers
    return msgspec.structs.replace(message, headers=headers, delay=0.0, dedup=None, attempts=0, died_at=0.0)


def _check(most: int, rate: float | None) -> None:
    if type(most) is not int or not 1 <= most <= _MOST:
        raise InvalidArgument(f"max must be a whole number of 1 to {_MOST}, not {most!r}")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1e6):
        raise InvalidArgument(f"rate must be more than 0 and less than 1,000,000 messages per second, not {rate!r}")
