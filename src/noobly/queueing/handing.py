"""From leased messages to deliveries: what cannot be delivered is put aside on the way."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from noobly.core.codec import Damaged
from noobly.core.errors import NooblyError
from noobly.core.scope import Scope
from noobly.queueing import events, names
from noobly.queueing.driver import Failure, Leased, QueueDriver
from noobly.queueing.messages import Delivery
from noobly.queueing.options import QueueOptions
from noobly.queueing.packing import Packer

_log = logging.getLogger("noobly.queueing")


class Hands:
    """Hands out what a driver leased: messages delivered too often and unreadable ones die, late ones are dropped.

    Deliveries are counted, not failures, so a message that kills its receiver ends among the dead letters too.
    """

    def __init__(self, driver: QueueDriver, packer: Packer, scope: Scope, options: QueueOptions) -> None:
        self._driver = driver
        self._packer = packer
        self._bus = scope.environment.bus
        self._where = (scope.service, scope.instance)
        self._most = options.max_deliveries

    async def out(self, queue: str, leased: Sequence[Leased]) -> list[Delivery[object]]:
        """Return the deliveries, fewer where some messages are put aside."""
        found: list[Delivery[object]] = []
        for one in leased:
            delivery = self._at_once(queue, one) or await self._one(queue, one)
            if delivery is not None:
                found.append(delivery)
        return found

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
        place = queue if names.is_dead(queue) else names.dead(queue)
        if place == queue:
            return
        try:
            await self._driver.bury(queue, place, Failure(leased.receipt, 0.0, reason[:1000]))
        except NooblyError as error:
            _log.warning(
                "message %s of queue %r could not be put among its dead letters: %s", leased.message.id, queue, error
            )
            return
        self._bus.emit(events.Died(*self._where, queue, leased.message.id, kind))
