"""From messages of ours to those of AMQP, and back. What is known of a message travels in headers of its own."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractIncomingMessage, HeadersType

from noobly.queueing.driver import Posted

_PREFIX = "noobly-"
_NOT_KEPT = (_PREFIX, "x-death", "x-first-death", "x-last-death", "x-delivery-count", "x-acquired-count", "CC", "BCC")
"""How headers begin that do not stay: ours, the server's own, and those that would send copies elsewhere."""


class Foreign(msgspec.Struct, frozen=True, kw_only=True):
    """What a foreign sender has put beside a message, which stays with it. All fields are AMQP's own."""

    headers: HeadersType = {}
    content_type: str | None = None
    content_encoding: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    type: str | None = None
    app_id: str | None = None


_OURS = Foreign()


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A message with all that is kept of it.

    Args:
        message: The message.
        sent_at: When it was sent, seconds since the epoch.
        deliveries: Deliveries before it was last stored.
        due: Seconds since the epoch before which it is not delivered.
        foreign: What else is to stay with it.
    """

    message: Posted
    sent_at: float
    deliveries: int = 0
    due: float = 0.0
    foreign: Foreign = _OURS


def pack(letter: Letter) -> Message:
    """Return a letter as AMQP carries it."""
    message, foreign = letter.message, letter.foreign
    known: dict[str, str | int] = {
        "headers": message.headers,
        "first-error": message.first_error,
        "last-error": message.last_error,
        "attempts": message.attempts,
        "died-at": _ms(message.died_at),
        "deliveries": letter.deliveries,
        "due": _ms(letter.due),
    }
    ours = {_PREFIX + name: value for name, value in known.items() if value}
    return Message(
        message.body,
        headers={**foreign.headers, **ours, _PREFIX + "sent-at": _ms(letter.sent_at)},
        message_id=message.id,
        delivery_mode=DeliveryMode.PERSISTENT,
        content_type=foreign.content_type,
        content_encoding=foreign.content_encoding,
        correlation_id=foreign.correlation_id,
        reply_to=foreign.reply_to,
        type=foreign.type,
        app_id=foreign.app_id,
    )


def unpack(incoming: AbstractIncomingMessage) -> Letter:
    """Return the letter; one of a foreign sender has an id and a time only where AMQP's own fields say so."""
    headers: Mapping[str, object] = incoming.headers
    message = Posted(
        id=incoming.message_id or uuid.uuid5(uuid.NAMESPACE_OID, incoming.body.hex()).hex,
        body=incoming.body,
        headers=_read(headers, "headers", ""),
        first_error=_read(headers, "first-error", ""),
        last_error=_read(headers, "last-error", ""),
        attempts=_read(headers, "attempts", 0),
        died_at=_read(headers, "died-at", 0) / 1000,
    )
    given = incoming.timestamp
    sent_at = _read(headers, "sent-at", _ms(given.timestamp()) if isinstance(given, datetime) else 0)
    letter = Letter(
        message=message,
        sent_at=sent_at / 1000,
        deliveries=_read(headers, "deliveries", 0),
        due=_read(headers, "due", 0) / 1000,
        foreign=_foreign(incoming),
    )
    return _given_up(letter, headers) or letter


def _foreign(incoming: AbstractIncomingMessage) -> Foreign:
    kept = {name: value for name, value in incoming.headers.items() if not name.startswith(_NOT_KEPT)}
    return Foreign(
        headers=kept,
        content_type=incoming.content_type,
        content_encoding=incoming.content_encoding,
        correlation_id=incoming.correlation_id,
        reply_to=incoming.reply_to,
        type=incoming.type,
        app_id=incoming.app_id,
    )


def returns(incoming: AbstractIncomingMessage) -> int:
    """Return how often the server has taken a message back since it was stored."""
    count = incoming.headers.get("x-delivery-count", 0)
    return count if isinstance(count, int) else 0


def _given_up(letter: Letter, headers: Mapping[str, object]) -> Letter | None:
    """Return the dead letter that the server made by itself; None where it did not.

    The copies that this provider stores bear none of the server's marks, so this is seen once only.
    """
    deaths = headers.get("x-death")
    died = deaths[0] if isinstance(deaths, list) and deaths else {}
    if not isinstance(died, dict) or died.get("reason") != "delivery_limit":
        return None
    when = died.get("time")
    message = msgspec.structs.replace(
        letter.message,
        last_error=letter.message.last_error or "delivered too often, and never acknowledged",
        attempts=letter.deliveries + 1,
        died_at=when.timestamp() if isinstance(when, datetime) else 0.0,
    )
    return msgspec.structs.replace(letter, message=message, deliveries=0, due=0.0)


def _read(headers: Mapping[str, object], name: str, default: Any) -> Any:
    """Return a header of ours; the default where somebody else has put another type there, or a negative number."""
    value = headers.get(_PREFIX + name, default)
    if type(value) is not type(default) or (isinstance(value, int) and value < 0):
        return default
    return value


def _ms(seconds: float) -> int:
    """Return milliseconds, rounded up; the client's floating-point headers have only single precision."""
    return math.ceil(seconds * 1000)
