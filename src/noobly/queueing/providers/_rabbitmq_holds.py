"""Leases: what this process holds, and until when. RabbitMQ has none, so they are kept here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aio_pika.abc import AbstractIncomingMessage

from noobly.core.clock import Clock, fresh_id
from noobly.core.errors import Unavailable
from noobly.queueing.providers._rabbitmq_messages import Letter
from noobly.queueing.providers._rabbitmq_tap import Tap


class Hold:
    """A delivery that is held: the letter, with this delivery counted, and what settles it with the server.

    One that is ``answered`` was acknowledged, and the server may not have got it.
    """

    def __init__(self, queue: str, tap: Tap, incoming: AbstractIncomingMessage, letter: Letter) -> None:
        self.queue, self.tap, self.incoming, self.letter = queue, tap, incoming, letter
        self.receipt = fresh_id()
        self.until = 0.0
        self.latest = 0.0
        self.answered = False
        self.timer: asyncio.TimerHandle | None = None


class Holds:
    """What is held, by receipt; a hold whose lease has ended is handed to ``ended``, once.

    Args:
        clock: Says when leases end.
        longest: Seconds a message can be held, all extensions included.
        ended: Gives a message back.
    """

    def __init__(self, clock: Clock, longest: float, ended: Callable[[Hold], None]) -> None:
        self._now = clock.monotonic
        self._longest = longest
        self._ended = ended
        self._holds: dict[str, Hold] = {}

    def add(self, hold: Hold, lease: float) -> None:
        """Hold a delivery from now on."""
        now = self._now()
        hold.latest = now + self._longest
        hold.tap.held += 1
        self._keep(hold, now + lease)

    def _keep(self, hold: Hold, until: float) -> None:
        if hold.timer is not None:
            hold.timer.cancel()
        hold.until = min(until, hold.latest)
        self._holds[hold.receipt] = hold
        self._watch(hold)

    def _watch(self, hold: Hold) -> None:
        pause = max(0.001, hold.until - self._now())
        hold.timer = asyncio.get_running_loop().call_later(pause, self._check, hold)

    def _check(self, hold: Hold) -> None:
        if self._now() < hold.until:
            self._watch(hold)
        else:
            self._drop(hold)
            if not hold.answered:
                self._ended(hold)

    def take(self, queue: str, receipts: Sequence[str]) -> list[Hold | None]:
        """Return what receipts stand for, which are good no more; None for each that was not any more.

        Raises:
            Unavailable: One was acknowledged on a connection that was lost, so nobody knows; all stay as they are.
        """
        for receipt in receipts:
            self._certain(queue, receipt)
        return [self._taken(queue, receipt) for receipt in receipts]

    def _taken(self, queue: str, receipt: str) -> Hold | None:
        hold = self._good(queue, receipt)
        if hold is not None:
            self._drop(hold)
        return hold

    def _certain(self, queue: str, receipt: str) -> None:
        hold = self._holds.get(receipt)
        if hold is not None and hold.queue == queue and hold.answered and hold.tap.closed:
            raise Unavailable(
                f"the connection was lost while a message of queue {queue!r} was acknowledged; if RabbitMQ has not got"
                " that, the message comes again"
            )

    def restore(self, hold: Hold) -> None:
        """Hold again what was taken and could not be settled, as long as its lease still stands."""
        hold.tap.held += 1
        self._keep(hold, hold.until)

    def extend(self, queue: str, receipt: str, lease: float) -> bool:
        """Let a lease end later, or sooner; return whether it stood."""
        hold = self._good(queue, receipt)
        if hold is not None:
            self._keep(hold, self._now() + lease)
        return hold is not None

    def count(self, queue: str) -> int:
        """Return how many messages of a queue are held here."""
        now = self._now()
        return sum(hold.queue == queue and hold.until > now and not hold.tap.closed for hold in self._holds.values())

    def close(self) -> None:
        """Forget everything; the server takes it back with the connection."""
        for hold in list(self._holds.values()):
            self._drop(hold)

    def _good(self, queue: str, receipt: str) -> Hold | None:
        hold = self._holds.get(receipt)
        if hold is None or hold.queue != queue or hold.until <= self._now() or hold.tap.closed:
            return None
        return hold

    def _drop(self, hold: Hold) -> None:
        del self._holds[hold.receipt]
        hold.tap.held -= 1
        if hold.timer is not None:
            hold.timer.cancel()
