"""The driver protocol of queueing: the file a provider author reads.

A driver keeps messages under queue names and hands each out under a lease. A message that is neither acknowledged nor
given back before its lease ends is handed out again, so every message is delivered at least once. A driver never
validates, retries, logs, counts or looks into the bytes; layers and the portable type do. Dead letters are messages of
an ordinary queue, whose name the portable type chooses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, ClassVar, Protocol

import msgspec

from noobly.core.capability import Capability
from noobly.core.checks import Many, Text, Whole
from noobly.core.operation import Driver, operation

QUEUE = Text(1, 256)
RECEIPT = Text(1, 4096)

Queue = Annotated[str, QUEUE]
Receipt = Annotated[str, RECEIPT]
Receipts = Annotated[Sequence[str], Many(RECEIPT)]
Limit = Annotated[int, Whole(1, 1000)]


class Can(Capability):
    """What a queue provider may be able to do beyond the core."""

    PRIORITY = "deliver messages of higher priority first"
    DELAY = "deliver a message after a delay"
    DEDUP = "drop a message whose key was sent shortly before"
    ORDER = "deliver the messages of a group in order, one after another"
    FAIR = "serve tenants in turn"
    ERRORS = "keep a message's first and last error between deliveries"
    PEEK = "show messages without delivering them"
    PAUSE = "hold a queue back for all its consumers"
    UNCOUNT = "take back a delivery that nobody has worked on"


class Posted(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A message to be sent.

    Args:
        id: Its id, unique.
        body: What it carries.
        headers: What travels beside the body, as JSON text; empty for nothing.
        priority: 0 to 9; higher ones are delivered first, ``Can.PRIORITY`` where it is not 0.
        delay: Seconds before which it is not delivered, ``Can.DELAY`` where it is not 0.
        dedup: A key; with one that was sent less than ``window`` seconds ago, this message is dropped.
        window: Seconds.
        group: With a group, it is delivered once all that were sent before with the same group are done, ``Can.ORDER``.
        tenant: With tenants, messages of equal priority are delivered in turn, one of each, ``Can.FAIR``.
        first_error: The first error of its deliveries so far.
        last_error: The last one.
        attempts: Deliveries before it was sent here, which a dead letter has behind it.
        died_at: When it became a dead letter, seconds since the epoch; 0 for one that has not.
    """

    id: str
    body: bytes
    headers: str = ""
    priority: int = 0
    delay: float = 0.0
    dedup: str | None = None
    window: float = 0.0
    group: str | None = None
    tenant: str | None = None
    first_error: str = ""
    last_error: str = ""
    attempts: int = 0
    died_at: float = 0.0


ANSWER_BYTES = 16 * 1024 * 1024
"""Bytes of messages from which on an answer brings no more, however many were asked for."""


class Sent(msgspec.Struct, frozen=True, gc=False):
    """What became of one message of a batch.

    Args:
        id: The id under which it is stored; the earlier message's id of a duplicate.
        duplicate: It was dropped, for its key had been sent shortly before.
        error: Why it was not stored; empty where it was.
    """

    id: str
    duplicate: bool = False
    error: str = ""


class Leased(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A message under a lease.

    Args:
        message: As it was sent, with the errors of earlier deliveries.
        receipt: What stands for this delivery; the next delivery of the message has another one.
        deliveries: How often it was delivered, this time included.
        sent_at: When it was sent, seconds since the epoch.
    """

    message: Posted
    receipt: str
    deliveries: int
    sent_at: float


class Failure(msgspec.Struct, frozen=True, gc=False):
    """A message given back.

    Args:
        receipt: Which delivery.
        delay: Seconds before which it is not delivered again; a group that keeps its order waits with it.
        reason: The error, empty for none.
        counts: The delivery counts; else, with ``Can.UNCOUNT``, it is taken back, for nobody has worked on the message.
            Those of a dead letter may count all the same, for it does not die of them.
    """

    receipt: str
    delay: float
    reason: str
    counts: bool = True


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a queue; exact only as far as its server is.

    Args:
        ready: Messages that could be delivered now, or wait for an earlier one of their group.
        delayed: Messages that wait for their time.
        in_flight: Messages under a lease.
        oldest: Seconds since the oldest ready message was sent; None where there is none, or nobody knows.
        paused: The queue is held back.
    """

    ready: int = 0
    delayed: int = 0
    in_flight: int = 0
    oldest: float | None = None
    paused: bool = False


class Peeks(Protocol):
    """The optional ability ``Can.PEEK``."""

    @operation(idempotent=True, needs=Can.PEEK)
    async def peek(self, queue: Queue, skip: int, most: Limit, /) -> list[Leased]:
        """Return messages that are not under a lease, about in the order of their delivery, with empty receipts.

        Args:
            queue: The queue.
            skip: How many to pass over.
            most: How many at most.
        """
        ...


class Pauses(Protocol):
    """The optional ability ``Can.PAUSE``."""

    @operation(idempotent=True, needs=Can.PAUSE)
    async def pause(self, queue: Queue, /) -> None:
        """Deliver nothing more from the queue to anybody, until ``resume``; leases under way go on."""
        ...

    @operation(idempotent=True, needs=Can.PAUSE)
    async def resume(self, queue: Queue, /) -> None:
        """Deliver again."""
        ...


def fitting(messages: Iterable[Leased]) -> Iterator[Leased]:
    """Yield messages until an answer holds enough of them."""
    left = ANSWER_BYTES
    for one in messages:
        yield one
        left -= len(one.message.body)
        if left <= 0:
            return


class CoreDriver(Driver, Protocol):
    """What every queue provider does. A queue that nobody has sent to is empty, and asking does not make it."""

    service: ClassVar[str] = "queueing"

    features: frozenset[Can]
    """The capabilities that are arguments rather than methods of their own."""

    @operation(idempotent=False)
    async def send(self, queue: Queue, messages: Sequence[Posted], /) -> list[Sent]:
        """Store messages, in order, so that they survive what this provider survives; return each one's fate."""
        ...

    @operation(idempotent=False, waits=True)
    async def receive(self, queue: Queue, most: Limit, lease: float, wait: float, /) -> list[Leased]:
        """Lease messages: the highest priority first, then the one sent first; fewer, or none, where there are fewer.

        Args:
            queue: The queue.
            most: How many at most; fewer where together they have ``ANSWER_BYTES``.
            lease: Seconds for which they are held for the receiver; a lease that has run out counts as given back.
            wait: Seconds to wait for the first one, 2 at most; 0 returns at once.
        """
        ...

    @operation(idempotent=True)
    async def ack(self, queue: Queue, receipts: Receipts, /) -> list[bool]:
        """Delete delivered messages; return for each whether the receipt was still good."""
        ...

    @operation(idempotent=True)
    async def nack(self, queue: Queue, failures: Sequence[Failure], /) -> list[bool]:
        """Give messages back, to be delivered again; return for each whether the receipt was still good.

        With ``Can.ERRORS`` the reason becomes the message's last error, and its first one if it had none.
        """
        ...

    @operation(idempotent=True)
    async def extend(self, queue: Queue, receipts: Receipts, lease: float, /) -> list[bool]:
        """Let leases end ``lease`` seconds from now; return for each whether the receipt was still good."""
        ...

    @operation(idempotent=True)
    async def bury(self, queue: Queue, dead: Queue, failure: Failure, /) -> bool:
        """Move a delivered message to the queue ``dead``, with its errors, attempts and the time; ``delay`` is 0.

        Returns:
            Whether the receipt was still good.
        """
        ...

    @operation(idempotent=True)
    async def counts(self, queue: Queue, /) -> Counts:
        """Return how many messages there are."""
        ...

    @operation(idempotent=True)
    async def purge(self, queue: Queue, /) -> int:
        """Delete all messages that are not under a lease; return how many there were, as far as that is known.

        Dedup keys are forgotten with them, those of messages under a lease, too, unless the store remembers them by
        itself.
        """
        ...

    @operation(idempotent=True)
    async def queues(self) -> list[str]:
        """Return the names of the queues that were sent to and not purged since, sorted, 10,000 at most."""
        ...

    @operation(idempotent=True)
    async def health(self) -> None:
        """Make one cheap round trip to the store.

        Raises:
            Unavailable: It does not answer.
        """
        ...


class QueueDriver(CoreDriver, Peeks, Pauses, Protocol):
    """A bound driver: the core operations, and the optional ones, which raise Unsupported where they are missing."""

    joins: bool
    """Whether the provider does many messages at about the cost of one, so that single calls are joined."""
