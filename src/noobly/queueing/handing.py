"""From leased messages to deliveries: what cannot be delivered is put aside on the way."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from noobly.core.codec import Damaged, readable
from noobly.core.errors import NooblyError
from noobly.core.lifecycle import Tasks
from noobly.core.scope import Scope
from noobly.queueing import events, names
from noobly.queueing.driver import Failure, Leased, QueueDriver
from noobly.queueing.messages import Delivery
from noobly.queueing.options import QueueOptions
from noobly.queueing.packing import Packer
from noobly.queueing.receipts import handed_out
from noobly.queueing.settling import Settling

_log = logging.getLogger("noobly.queueing")


class Hands:
    """Hands out what a driver leased: messages delivered too often and unreadable ones die, late ones are dropped.

    Deliveries are counted, not failures, so a message that kills its receiver ends among the dead letters too.
    """

    def __init__(
        self, driver: QueueDriver, packer: Packer, settling: Settling, tasks: Tasks, scope: Scope, options: QueueOptions
    ) -> None:
        self._driver, self._packer, self._settling, self._tasks = driver, packer, settling, tasks
        self._bus = scope.environment.bus
        self._where = (scope.service, scope.instance)
        self._most = options.max_deliveries

    async def out(self, queue: str, leased: Sequence[Leased]) -> list[Delivery[object]]:
        """Return the deliveries, fewer where some messages are put aside."""
        found: list[Delivery[object]] = []
        try:
            for one in leased:
                delivery = self._at_once(queue, one) or await self._one(queue, one)
                if delivery is not None:
                    found.append(delivery)
        except BaseException:  # Nobody gets what was found, so others need not wait for the end of its lease.
            await self.give_back(queue, [one.receipt for one in leased])
            raise
        return found

    async def give_back(self, queue: str, receipts: Sequence[str]) -> None:
        """Give messages back that nobody has seen; those that were settled meanwhile stay so."""
        failures = [Failure(receipt, 0.0, "", counts=False) for receipt in receipts]
        try:
            await self._tasks.complete(self._driver.nack(queue, failures), f"giving back to queue {queue!r}")
        except NooblyError as error:
            _log.warning("messages of queue %r could not be given back, and come again later: %s", queue, error)

    def _at_once(self, queue: str, leased: Leased) -> Delivery[object] | None:
        """Return the commonest delivery, for which there is nothing to look up and nothing to wait for."""
        if leased.deliveries > self._most or leased.message.headers:
            return None
        try:
            return self._packer.delivery(queue, leased)
        except Damaged:
            return None

    async def _one(self, queue: str, leased: Leased) -> Delivery[object] | None:
        dead = names.is_dead(queue)
        spent = leased.deliveries > self._most and not dead
        try:
            if dead or not (spent or self._packer.expired(leased)):
                return self._packer.delivery(queue, leased)
            await self._aside(queue, leased, spent=spent)
        except Damaged as error:
            await self.bury(queue, leased, "unreadable", error.message)
        return None

    async def _aside(self, queue: str, leased: Leased, *, spent: bool) -> None:
        if spent:
            reason = leased.message.last_error or f"delivered {self._most} times, and never acknowledged"
            await self.bury(queue, leased, "exhausted", reason)
            return
        try:
            await self._driver.ack(queue, [leased.receipt])
        except NooblyError as error:
            _log.warning("a message of queue %r that came too late could not be dropped: %s", queue, error)
            return
        self._bus.emit(events.Expired(*self._where, queue, leased.message.id))

    async def bury(self, queue: str, leased: Leased, kind: str, reason: str) -> None:
        """Put a message among the dead letters; where that fails, its lease ends and it comes again."""
        try:
            # A dead letter keeps the errors that it died of.
            await self._settling.bury(queue, handed_out(leased), kind, "" if names.is_dead(queue) else readable(reason))
        except NooblyError as error:
            _log.warning(
                "message %s of queue %r could not be put among its dead letters: %s", leased.message.id, queue, error
            )
