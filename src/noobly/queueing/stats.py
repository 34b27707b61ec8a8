"""What became of messages, as counters by queue, and how much waits, as gauges that a scrape has asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from noobly.core.lines import Merge
from noobly.core.looking import Looking
from noobly.core.scope import Scope
from noobly.core.series import Number, Numbers
from noobly.queueing import events
from noobly.queueing.messages import QueueStats

__all__ = ["Analytics"]

_MESSAGES = "What became of messages, in this process."
_DEPTH = "Messages of a queue, as its store says."
_OLDEST = "Seconds since the oldest ready message of a queue was sent."
_STATES = ("ready", "delayed", "in_flight", "dead")


class Counts(dict[str, Number]):
    """One event's count by queue, for what is counted often: ``counts["orders"].value += 1``."""

    def __init__(self, family: Numbers[Number], instance: str, event: str) -> None:
        super().__init__()
        self._family, self._instance, self._event = family, instance, event

    def __missing__(self, queue: str) -> Number:
        found = self._family.one((self._instance, queue, self._event))
        if len(self) < self._family.cap:
            self[queue] = found
        return found


class Analytics:
    """The metrics of one instance.

    What happens to every message is counted directly, for an event costs more than to count it; all else reaches it as
    an event.

    Attributes:
        sent: Messages that were stored.
        received: Deliveries.
        acknowledged: Messages that are done.

    Args:
        scope: The instance.
        names: Names its queues.
        ask: Tells of one queue.
        most: Queues whose depth is asked for; 0 for none.
    """

    def __init__(
        self,
        scope: Scope,
        names: Callable[[], Awaitable[list[str]]],
        ask: Callable[[str], Awaitable[QueueStats]],
        most: int,
    ) -> None:
        self._instance = scope.instance
        meter, bus = scope.environment.meter, scope.environment.bus
        self._messages = meter.counter("noobly_queue_messages", _MESSAGES, ("instance", "queue", "event"))
        self.sent, self.received, self.acknowledged = (
            Counts(self._messages, scope.instance, event) for event in ("sent", "received", "acknowledged")
        )
        self._depth = meter.gauge("noobly_queue_depth", _DEPTH, ("instance", "queue", "state"), Merge.MOSTRECENT)
        self._oldest = meter.gauge("noobly_queue_oldest_seconds", _OLDEST, ("instance", "queue"), Merge.MOSTRECENT)
        where = {"service": scope.service, "instance": scope.instance}
        self._ends = [
            bus.subscribe(events.GivenBack, lambda event: self._count(event.queue, "given_back", 1), **where),
            bus.subscribe(events.Died, lambda event: self._count(event.queue, "died", 1), **where),
            bus.subscribe(events.Expired, lambda event: self._count(event.queue, "expired", 1), **where),
            bus.subscribe(events.Purged, lambda event: self._count(event.queue, "purged", event.count), **where),
        ]
        if most:
            look = Looking(names, ask, self._show, nothing=lambda queue: QueueStats(queue=queue), most=most)
            self._ends.append(meter.watch(look))

    def close(self) -> None:
        """Count nothing more."""
        for end in self._ends:
            end()

    def _count(self, queue: str, event: str, count: int) -> None:
        self._messages.one((self._instance, queue, event)).value += count

    def _show(self, stats: QueueStats) -> None:
        for state in _STATES:
            count: int = getattr(stats, state)
            self._depth.labels(self._instance, stats.queue, state).set(count)
        if stats.oldest is not None or not stats.ready:  # Else the store does not know.
            self._oldest.labels(self._instance, stats.queue).set(stats.oldest or 0.0)
