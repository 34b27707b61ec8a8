"""The commonest calls of the driver, for one message each; where it pays, those of one turn of the loop go together.

A store that is asked over a connection, or that waits for the disk, does fifty at about the cost of one, and the layers
see one call. Where each operation is to have a span, each call goes by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from noobly.core.joining import Gather
from noobly.core.lifecycle import Tasks
from noobly.layers.spans import tracing
from noobly.queueing.driver import ANSWER_BYTES, Leased, Posted, QueueDriver, Sent
from noobly.queueing.handing import Hands
from noobly.queueing.messages import Delivery
from noobly.queueing.receipts import receipt_of

_TOGETHER = 1000
"""Messages received, or receipts, of joined calls."""

_HEAVIEST = 1024 * 1024
"""Bytes of the messages of joined calls, counting 1024 for each besides its body."""

Found = list[Delivery[object]]


class Calls:
    """Sends, receives and acknowledges.

    Args:
        driver: Who does it.
        hands: Makes deliveries of what was leased.
        tasks: Owns the work under way.
    """

    def __init__(self, driver: QueueDriver, hands: Hands, tasks: Tasks) -> None:
        self._driver, self._hands, self._tasks = driver, hands, tasks
        self._joins = driver.joins and not tracing()
        self._sends = Gather(self._send, self._send_all, tasks, _weight, _HEAVIEST)
        self._acks = Gather(self._ack, self._ack_all, tasks, _one, _TOGETHER)
        self._takes = Gather(self._take, self._take_all, tasks, int, _TOGETHER, self._unclaimed)

    def send(self, queue: str, message: Posted) -> Awaitable[Sent]:
        """Store a message, and return its fate."""
        return self._sends(queue, message) if self._joins else self._send(queue, message)

    def ack(self, queue: str, receipt: str) -> Awaitable[bool]:
        """Delete a delivered message; return whether its receipt was still good."""
        return self._acks(queue, receipt) if self._joins else self._ack(queue, receipt)

    def take(self, queue: str, most: int, lease: float) -> Awaitable[Found]:
        """Return deliveries, or none where there are none; see ``lost``."""
        return self._takes((queue, lease), most) if self._joins else self.wait(queue, most, lease, 0.0)

    async def wait(self, queue: str, most: int, lease: float, wait: float) -> Found:
        """Return deliveries, or none where nothing came within ``wait`` seconds."""
        while leased := await self._driver.receive(queue, most, lease, wait):
            if found := await self._hands.out(queue, leased):
                return found
        return []

    def lost(self, queue: str, taking: Awaitable[Found]) -> None:
        """Give back what ``take`` found for a caller who was cancelled before it went on."""
        if isinstance(taking, asyncio.Future) and taking.done() and not taking.cancelled() and not taking.exception():
            self._unclaimed((queue, 0.0), taking.result())

    async def _send(self, queue: str, message: Posted) -> Sent:
        return (await self._driver.send(queue, [message]))[0]

    def _send_all(self, queue: str, messages: Sequence[Posted]) -> Awaitable[list[Sent]]:
        return self._driver.send(queue, messages)

    async def _ack(self, queue: str, receipt: str) -> bool:
        return (await self._driver.ack(queue, [receipt]))[0]

    def _ack_all(self, queue: str, receipts: Sequence[str]) -> Awaitable[list[bool]]:
        return self._driver.ack(queue, receipts)

    def _take(self, key: tuple[str, float], most: int) -> Awaitable[Found]:
        queue, lease = key
        return self.wait(queue, most, lease, 0.0)

    async def _take_all(self, key: tuple[str, float], wanted: Sequence[int]) -> list[Found]:
        """Return a share for each who wants messages; the first one gets all it wants before the next one gets any."""
        queue, lease = key
        shares: list[Found] = [[] for _ in wanted]
        lacking = list(range(len(wanted)))
        while lacking:
            most = sum(wanted[place] for place in lacking)
            leased = await self._driver.receive(queue, most, lease, 0.0)
            found = await self._hands.out(queue, leased)
            start = 0
            for place in lacking:
                shares[place] = found[start : start + wanted[place]]
                start += wanted[place]
            if not leased or (found and len(leased) < most and _light(leased)):
                break
            lacking = [place for place in lacking if not shares[place]]
        return shares

    def _unclaimed(self, key: tuple[str, float], share: Found) -> None:
        """Give back what nobody waits for any more, so that others need not wait for the end of its lease."""
        queue, _ = key
        if receipts := [receipt_of(one.receipt) for one in share]:
            self._tasks.spawn(self._hands.give_back(queue, receipts), f"giving back to queue {queue!r}")


def _light(leased: Sequence[Leased]) -> bool:
    """Return whether there are no more messages because there are none, and not because of their size."""
    return sum(len(one.message.body) for one in leased) < ANSWER_BYTES


def _weight(message: Posted) -> int:
    return len(message.body) + 1024


def _one(_: str) -> int:
    return 1
