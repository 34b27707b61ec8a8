"""What the Redis provider stores of a message, and what it reads back; the names of a queue's keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import cast

import msgspec

from noobly.clients.redis import Reply
from noobly.core.errors import Internal
from noobly.queueing import names
from noobly.queueing.driver import Leased, Posted

PARTS = ("s", "q", "l", "m", "n", "r", "d", "w", "f", "t", "k", "e", "z")
"""The keys of a queue, in the order the scripts expect."""


class Record(msgspec.Struct, array_like=True, frozen=True):
    """All of a message but its body, as the scripts read and write it; times in milliseconds."""

    id: str
    headers: str
    priority: int
    group: str
    tenant: str
    first_error: str
    last_error: str
    attempts: int
    died: float
    due: float
    sent: float
    turn: float


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Keys:
    """The keys of one queue, all of one hash slot, which its dead letters share."""

    __slots__ = ("all", "plain", "salt", "slot", "wake")

    def __init__(self, namespace: str, queue: str) -> None:
        self.slot = f"{{{escaped(namespace)}:{names.origin(queue)}}}"
        base = self.slot + (".dead:" if names.is_dead(queue) else ":")
        self.all = tuple((base + part).encode() for part in PARTS)
        self.wake = self.all[-1]
        self.plain = (self.all[0], self.all[1], self.wake)
        self.salt = "/" + hashlib.sha256(base.encode()).hexdigest()[:8]


def escaped(namespace: str) -> str:
    """Return a namespace without what ends one, or a hash tag: a colon and a brace."""
    return namespace.replace("%", "%25").replace(":", "%3A").replace("}", "%7D")


def special(message: Posted) -> bool:
    """Return whether a message does not go through the stream: it asks for something, or has a history."""
    return bool(
        message.priority
        or message.delay
        or message.dedup is not None
        or message.group is not None
        or message.tenant is not None
        or message.attempts
        or message.died_at
        or message.first_error
        or message.last_error
    )


def packed(message: Posted) -> tuple[str | bytes | int, ...]:
    """Return what the general script of sending is told of a message."""
    unkeyed = msgspec.structs.replace(message, dedup=None) if message.dedup is not None else message
    record = _encode(_record(message)) if special(unkeyed) else b""
    window = max(1, round(message.window * 1000))
    return message.id, message.body, message.headers, record, message.dedup or "", window


def _record(message: Posted) -> Record:
    return Record(
        id=message.id,
        headers=message.headers,
        priority=message.priority,
        group=message.group or "",
        tenant=message.tenant or "",
        first_error=message.first_error,
        last_error=message.last_error,
        attempts=message.attempts,
        died=round(message.died_at * 1000),
        due=milliseconds(message.delay),
        sent=0,
        turn=0,
    )


def leased(reply: Sequence[Reply]) -> list[Leased]:
    """Return the messages of a reply: receipt, head, body and headers of each."""
    return list(_leased(cast("Sequence[bytes]", reply)))


def _leased(parts: Sequence[bytes]) -> Iterator[Leased]:
    for at in range(0, len(parts), 4):
        receipt, head, body, headers = parts[at].decode(), parts[at + 1], parts[at + 2], parts[at + 3]
        if receipt[0] == "s":
            sent = float(receipt[1 : receipt.index("-")]) / 1000
            message = Posted(id=head.decode(), body=body, headers=headers.decode() if headers else "")
            yield Leased(message=message, receipt=receipt, deliveries=1, sent_at=sent)
        else:
            yield _recorded(receipt, _decode(head), body)


def _recorded(receipt: str, record: Record, body: bytes) -> Leased:
    message = Posted(
        id=record.id,
        body=body,
        headers=record.headers,
        priority=record.priority,
        group=record.group or None,
        tenant=record.tenant or None,
        first_error=record.first_error,
        last_error=record.last_error,
        attempts=max(0, record.attempts),
        died_at=record.died / 1000,
    )
    deliveries = int(receipt[receipt.rindex(".") + 1 :].partition("/")[0]) + min(0, record.attempts)
    return Leased(message=message, receipt=receipt, deliveries=deliveries, sent_at=record.sent / 1000)


def peeked(one: Leased) -> Leased:
    """Return a message as one who looks on sees it: without a receipt, and not delivered by that."""
    deliveries = 0 if one.receipt[0] == "s" else one.deliveries
    return Leased(message=one.message, receipt="", deliveries=deliveries, sent_at=one.sent_at)


def dead_letter(one: Leased, reason: str, now: float) -> Posted:
    """Return a delivered message as the dead letter that it becomes."""
    return msgspec.structs.replace(
        one.message,
        first_error=one.message.first_error or reason,
        last_error=reason or one.message.last_error,
        attempts=one.deliveries,
        died_at=now,
    )


def milliseconds(seconds: float) -> int:
    """Return a length of time as the server counts it; one that is not 0 is at least 1."""
    return max(1, round(seconds * 1000)) if seconds > 0 else 0


def flags(reply: Reply) -> list[bool]:
    """Return a script's answer of one digit per receipt."""
    if not isinstance(reply, bytes):
        raise Internal(f"redis answered with {type(reply).__name__} where text was expected")
    return [digit == 49 for digit in reply]


def whole(reply: Reply) -> int:
    """Return a script's answer of one whole number."""
    if not isinstance(reply, int):
        raise Internal(f"redis answered with {type(reply).__name__} where a number was expected")
    return reply
