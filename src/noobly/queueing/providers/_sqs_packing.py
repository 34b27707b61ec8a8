"""From messages to SQS's and back: text stays as it is, other bytes become base64, the rest goes into an attribute."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping, Sequence
from math import ceil

import msgspec

from noobly.core.clock import fresh_id
from noobly.core.errors import TooLarge, Unsupported
from noobly.queueing.driver import Posted
from noobly.queueing.providers._sqs_names import token
from noobly.queueing.providers._sqs_wire import Entry, Message, Value, weight

MOST_BYTES = 1024 * 1024
"""What a message, and a batch of them, may have with all attributes."""
TOGETHER = 10
_RESERVE = 16 * 1024
"""Bytes that are kept free for the errors of a dead letter."""
_ERRORS = (_RESERVE, 100, 0)
"""Characters of each error that a dead letter keeps, the fewer the less room there is."""
_MOST_ATTRIBUTES = 10
_LONGEST_DELAY = 900
DEDUP_WINDOW = 300
_OURS = "noobly."
_BESIDE, _ENCODING = f"{_OURS}message", f"{_OURS}encoding"
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no message may hold: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html"""


class Beside(msgspec.Struct, frozen=True, omit_defaults=True):
    """What travels beside a body, in the attribute ``noobly.message`` as JSON; the fields are those of ``Posted``.

    A message with a ``dedup`` key has no ``id`` of ours: SQS gives it one, and gives the same one to its duplicates.
    """

    id: str = ""
    headers: str = ""
    priority: int = 0
    group: str | None = None
    tenant: str | None = None
    first_error: str = ""
    last_error: str = ""
    attempts: int = 0
    died_at: float = 0.0


_FOREIGN = Beside()
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Beside).decode


class Packing:
    """Packs messages for standard queues, or for FIFO queues.

    Args:
        fifo: Whether they are FIFO queues: each message has a group and a deduplication id.
        fair: Whether the tenants of standard queues are told to SQS.
    """

    def __init__(self, *, fifo: bool, fair: bool) -> None:
        self.fifo, self._fair = fifo, fair

    def pack(self, message: Posted) -> Entry:
        """Return a message as SQS takes it.

        Raises:
            TooLarge: It is too long with all that travels beside it.
            Unsupported: Its delay or its dedup window is none that SQS has.
        """
        self._admit(message)
        entry = self._entry(message, fresh_id())
        _check_size(entry, message)
        return entry

    def letter(self, message: Posted, foreign: Mapping[str, Value], unique: str) -> Entry:
        """Return a dead letter as SQS takes it, in any case: with shorter errors, or nothing of ours, where it is long.

        Args:
            message: The message, as it was received.
            foreign: The attributes that somebody else gave it.
            unique: What is the same for each attempt to send it, for FIFO queues.
        """
        for longest in _ERRORS:
            told = {"first_error": message.first_error[:longest], "last_error": message.last_error[:longest]}
            entry = self._entry(msgspec.structs.replace(message, **told), unique)
            entry.message_attributes.update(foreign)
            if _size(entry) <= MOST_BYTES and len(entry.message_attributes) <= _MOST_ATTRIBUTES:
                return entry
        del entry.message_attributes[_BESIDE]
        return entry

    def _entry(self, message: Posted, unique: str) -> Entry:
        text, encoding = _text(message.body)
        attributes = {_BESIDE: _value(_beside(message))}
        if encoding:
            attributes[_ENCODING] = _value(encoding)
        return Entry(
            id="0",
            message_body=text,
            delay_seconds=0 if self.fifo else ceil(message.delay),
            message_attributes=attributes,
            message_group_id=self._group(message),
            message_deduplication_id=self._key(message, unique),
        )

    def _admit(self, message: Posted) -> None:
        if message.delay > _LONGEST_DELAY:
            raise Unsupported(
                f"SQS delays a message by {_LONGEST_DELAY} seconds at most, not {message.delay:g};"
                " let a schedule send it when its time has come"
            )
        if message.dedup is not None and message.window != DEDUP_WINDOW:
            raise Unsupported(
                f"SQS remembers dedup keys for {DEDUP_WINDOW} seconds, not {message.window:g};"
                f" set dedup_window to {DEDUP_WINDOW}"
            )

    def _group(self, message: Posted) -> str | None:
        if self.fifo:
            return token(message.group) if message.group is not None else fresh_id()
        return token(message.tenant) if self._fair and message.tenant is not None else None

    def _key(self, message: Posted, unique: str) -> str | None:
        if not self.fifo:
            return None
        return token(message.dedup) if message.dedup is not None else unique

    def unpack(self, message: Message) -> Posted:
        """Return a received message; one of somebody else's is its body, with the id that SQS gave it."""
        attributes = message.message_attributes
        beside = _read(attributes[_BESIDE].string_value) if _BESIDE in attributes else _FOREIGN
        given = message.attributes.get("MessageGroupId") if beside is _FOREIGN else None
        return Posted(
            id=beside.id or message.message_id,
            body=_bytes(message),
            headers=beside.headers,
            priority=beside.priority,
            group=beside.group or (given if self.fifo else None),
            tenant=beside.tenant or (given if self._fair else None),
            first_error=beside.first_error,
            last_error=beside.last_error,
            attempts=beside.attempts,
            died_at=beside.died_at,
        )


def foreign(message: Message) -> dict[str, Value]:
    """Return the attributes of a message that are not ours."""
    return {name: one for name, one in message.message_attributes.items() if not name.startswith(_OURS)}


def _beside(message: Posted) -> str:
    beside = Beside(
        id="" if message.dedup is not None else message.id,
        headers=message.headers,
        priority=message.priority,
        group=message.group,
        tenant=message.tenant,
        first_error=message.first_error,
        last_error=message.last_error,
        attempts=message.attempts,
        died_at=message.died_at,
    )
    # Characters that SQS refuses stand in strings of the JSON, where they may as well be escaped.
    return _UNFIT.sub(lambda found: f"\\u{ord(found[0]):04x}", _encode(beside).decode())


def _read(text: str) -> Beside:
    try:
        return _decode(text)
    except (msgspec.DecodeError, ValueError):
        return _FOREIGN


def _value(text: str) -> Value:
    return Value(string_value=text, data_type="String")


def _text(body: bytes) -> tuple[str, str]:
    """Return a body as text, and how it is encoded; SQS takes no empty one."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = ""
    if text and not _UNFIT.search(text):
        return text, ""
    return (b64encode(body).decode(), "base64") if body else ("-", "empty")


def _bytes(message: Message) -> bytes:
    attribute = message.message_attributes.get(_ENCODING)
    encoding = attribute.string_value if attribute else ""
    if encoding == "empty":
        return b""
    if encoding != "base64":
        return message.body.encode()
    try:
        return b64decode(message.body, validate=True)
    except (Base64Error, ValueError):
        return message.body.encode()  # No message; its receiver will say so.


def _size(entry: Entry) -> int:
    return len(entry.message_body.encode()) + weight(entry.message_attributes)


def _check_size(entry: Entry, message: Posted) -> None:
    spare = 0 if message.first_error or message.last_error or message.died_at else _RESERVE
    if (size := _size(entry) + spare) > MOST_BYTES:
        raise TooLarge(
            f"message {message.id} has {size} bytes in SQS, with its headers and {spare} for its errors;"
            f" {MOST_BYTES} is the most, and bytes that are no text need a third more than they are"
        )


def batches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Yield messages by tens, fewer where they are long, numbered within each batch."""
    batch: list[Entry] = []
    room = MOST_BYTES
    for entry in entries:
        size = _size(entry)
        if batch and (len(batch) == TOGETHER or size > room):
            yield batch
            batch, room = [], MOST_BYTES
        batch.append(msgspec.structs.replace(entry, id=str(len(batch))))
        room -= size
    if batch:
        yield batch
