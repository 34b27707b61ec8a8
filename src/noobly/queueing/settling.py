"""Giving deliveries back, and putting them among the dead letters; whoever is told of it hears it from here."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from noobly.core.clock import Seconds
from noobly.core.errors import Conflict
from noobly.core.scope import Scope
from noobly.queueing import events, names
from noobly.queueing.driver import Failure, QueueDriver
from noobly.queueing.messages import Returned
from noobly.queueing.options import QueueOptions
from noobly.queueing.packing import told
from noobly.queueing.receipts import Handed, receipt_of
from noobly.queueing.waiting import pause_for

_log = logging.getLogger("noobly.queueing")


class Settling:
    """Ends deliveries that were not acknowledged.

    Dead letters do not die again: what would put them among the dead letters gives them back instead.
    """

    def __init__(self, driver: QueueDriver, scope: Scope, options: QueueOptions) -> None:
        self._driver, self._options = driver, options
        self._chance, self._bus = scope.environment.chance, scope.environment.bus
        self._where = (scope.service, scope.instance)

    async def fail(self, queue: str, which: Handed, delay: Seconds | None, reason: str) -> Returned:
        """Give a message back; after its last delivery it goes to the dead letters.

        Raises:
            Conflict: The lease has ended.
        """
        options = self._options
        spent = which.deliveries >= options.max_deliveries or (which.grouped and options.group_failure == "dead")
        if spent and not names.is_dead(queue):
            await self.bury(queue, which, "exhausted", reason)
            return Returned(0.0, dead=True)
        pause = pause_for(delay, which.deliveries, options, self._chance)
        given = await self._driver.nack(queue, [Failure(which.receipt, pause, told(reason))])
        if not given[0]:
            raise stale(queue, "given back")
        self._tell_given_back(queue, pause)
        return Returned(pause)

    async def bury(self, queue: str, which: Handed, kind: str, reason: str) -> None:
        """Put a message among the dead letters; a dead letter is given back, with its reason.

        Raises:
            Conflict: The lease has ended.
        """
        if names.is_dead(queue):
            await self.fail(queue, which, None, reason)
            return
        reason = told(reason)
        if not await self._driver.bury(queue, names.dead(queue), Failure(which.receipt, 0.0, reason)):
            raise stale(queue, "put among the dead letters")
        _log.warning("message %s of queue %r went to the dead letters, %s: %r", which.id, queue, kind, reason)
        self._bus.emit(events.Died(*self._where, queue, which.id, kind))

    async def release(self, queue: str, receipts: Sequence[str]) -> list[bool]:
        """Give messages back at once, uncounted; return for each whether its lease still stood."""
        given = await self._driver.nack(queue, [Failure(receipt_of(one), 0.0, "", counts=False) for one in receipts])
        for _ in filter(None, given):
            self._tell_given_back(queue, 0.0)
        return given

    def _tell_given_back(self, queue: str, pause: float) -> None:
        self._bus.emit(events.GivenBack(*self._where, queue, pause))


def stale(queue: str, what: str) -> Conflict:
    """Return the error for a receipt whose lease has ended."""
    return Conflict(
        f"a message of queue {queue!r} was not {what}, for its lease had ended; extend it in time, or lease it longer"
    )
