"""What senders and receivers see of messages."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

T_co = TypeVar("T_co", covariant=True)

Value = Any
"""What was sent, after a trip through the codec; a queue with a type has it checked and converted."""


class Outbound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One message of ``send_many``; the fields are the arguments of ``send``."""

    message: Value
    priority: int = 0
    delay: float | None = None
    ttl: float | None = None
    dedup: str | None = None
    group: str | None = None
    headers: dict[str, str] = {}


class Receipt(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What became of a message that was sent.

    Args:
        id: Its id; of a duplicate, the id of the message that was sent before.
        duplicate: It was dropped, for its ``dedup`` key had been sent within the window.
        error: Why it was not stored; empty where it was. Only ``send_many`` returns such a one.
    """

    id: str
    duplicate: bool = False
    error: str = ""


class Delivery(msgspec.Struct, Generic[T_co], frozen=True, kw_only=True):
    """A message in the hands of one receiver, until its lease ends.

    Args:
        id: The message's id, the same in every delivery: the key for making its effect happen once.
        queue: Its queue.
        value: What was sent.
        receipt: What ``ack``, ``nack`` and ``extend`` want; only good for this delivery.
        deliveries: How often the message was delivered, this time included.
        sent_at: When it was sent, seconds since the epoch.
        priority: 0 to 9.
        group: Its group.
        headers: What travelled beside it.
        first_error: Why it was first given back; empty where it never was.
        last_error: Why it was last given back.
        correlation_id: That of the request that sent it; empty outside of requests.
        traceparent: The trace it was sent in (W3C Trace Context); empty where there was none.
    """

    id: str
    queue: str
    value: T_co
    receipt: str
    deliveries: int
    sent_at: float
    priority: int = 0
    group: str | None = None
    headers: dict[str, str] = {}
    first_error: str = ""
    last_error: str = ""
    correlation_id: str = ""
    traceparent: str = ""


class Peeked(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is shown without being delivered; ``readable`` is false where its bytes are no message."""

    id: str
    value: Value
    deliveries: int
    sent_at: float
    priority: int = 0
    group: str | None = None
    headers: dict[str, str] = {}
    first_error: str = ""
    last_error: str = ""
    readable: bool = True


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was given up.

    Args:
        id: The message's id.
        origin: The queue it was sent to.
        value: What was sent; None where it cannot be read.
        attempts: How often it was delivered.
        first_error: The first error; empty where its receivers only vanished.
        last_error: The last one, or why it was given up.
        sent_at: When it was put among the dead letters or, where the store keeps it, when it was sent.
        died_at: When it was given up, seconds since the epoch; 0.0 where the store did so by itself.
        headers: What travelled beside it.
    """

    id: str
    origin: str
    value: Value
    attempts: int
    first_error: str
    last_error: str
    sent_at: float
    died_at: float
    headers: dict[str, str] = {}


class Returned(msgspec.Struct, frozen=True, gc=False):
    """What became of a message that was given back.

    Args:
        delay: Seconds until it is delivered again.
        dead: It went to the dead letters, for it had been delivered as often as may be.
    """

    delay: float
    dead: bool = False


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a queue; exact only as far as its server is.

    Args:
        queue: Its name.
        ready: Messages that could be delivered now, or wait for an earlier one of their group.
        delayed: Messages that wait for their time.
        in_flight: Messages that somebody works on.
        dead: Its dead letters.
        oldest: Seconds since the oldest ready message was sent; None where there is none, or the store does not know.
        paused: It is held back.
    """

    queue: str
    ready: int = 0
    delayed: int = 0
    in_flight: int = 0
    dead: int = 0
    oldest: float | None = None
    paused: bool = False


class Redriven(msgspec.Struct, frozen=True):
    """What a redrive or a move did: how many messages it looked at, and how many of them it sent."""

    seen: int
    moved: int
