"""From what users send to what is stored, and back."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from noobly.core.checks import Limits, Text, whole
from noobly.core.clock import Clock, Seconds, fresh_id, pause, seconds
from noobly.core.codec import DECODE_JSON, SHALLOW, UNREADABLE, Codec, Damaged, check_depth, damaged, decode, encode
from noobly.core.errors import InvalidArgument, TooLarge, Unsupported
from noobly.core.following import bound, origin
from noobly.queueing.driver import Can, Leased, Posted, QueueDriver
from noobly.queueing.messages import DeadLetter, Delivery, Outbound, Peeked
from noobly.queueing.options import QueueOptions
from noobly.queueing.receipts import receipt

_NAME = Text(1, 256).compile("the name", Limits())
_HEADER = Text(0, 1024 * 1024).compile("a header", Limits())
_REASON = Text(0, 1024 * 1024).compile("reason", Limits())
_REASON_KEPT = 1000
_HEADER_BYTES = 16 * 1024
_BYTES = (bytes, bytearray, memoryview)
_NO_GROUP = "\x00none"
"""The tenant that messages without a group are, so that they take turns with the others."""

Asked = tuple[Seconds | None, Seconds | None, str | None, str | None, dict[str, str] | None]
"""What may be asked for a message: delay, time to live, dedup key, group, headers."""
_NOTHING_ASKED: Asked = (None, None, None, None, None)


_SHORT = {"codec": "c", "expires": "x", "headers": "h", "correlation_id": "i", "traceparent": "t"}


class _Envelope(msgspec.Struct, frozen=True, omit_defaults=True, rename=_SHORT):
    """What travels beside a body; a message of somebody else's has none and is read as JSON."""

    codec: int = Codec.JSON
    expires: float = 0.0
    headers: dict[str, str] = {}
    correlation_id: str = ""
    traceparent: str = ""


_PLAIN = _Envelope()
_read_envelope = msgspec.json.Decoder(_Envelope).decode
_write_envelope = msgspec.json.Encoder().encode


class Packer:
    """Packs and unpacks the messages of one instance."""

    def __init__(self, options: QueueOptions, clock: Clock, driver: QueueDriver) -> None:
        self._driver = driver
        self._codec = Codec[options.codec.upper()]
        self._options = options
        self._now = clock.time
        self._most = min(options.message_bytes, driver.limits.value_bytes)
        self._ordered = options.groups != "fair"
        self._fair = options.groups != "ordered"
        self._groupless = _NO_GROUP if self._fair and Can.FAIR in driver.features else None
        self._simple = self._codec is Codec.JSON and options.ttl is None and self._groupless is None

    def one(self, queue: str, message: object, priority: int, asked: Asked) -> Posted:
        """Return a message ready to be stored, by the shorter way where nothing is asked; see ``pack``."""
        if asked == _NOTHING_ASKED and type(priority) is int and priority == 0:
            return self.plain(queue, message)
        delay, ttl, dedup, group, headers = asked
        outbound = Outbound(
            message=message,
            priority=priority,
            delay=pause(delay, "delay"),
            ttl=seconds(ttl, "ttl"),
            dedup=dedup,
            group=group,
            headers=headers or {},
        )
        return self.pack(queue, outbound)

    def plain(self, queue: str, message: object) -> Posted:
        """Return a message of which nothing is asked but that it is delivered; see ``pack``."""
        if not self._simple or isinstance(message, _BYTES) or bound():
            return self.pack(queue, Outbound(message=message))
        return Posted(id=fresh_id(), body=self._body(queue, message, Codec.JSON))

    def _body(self, queue: str, message: object, codec: Codec) -> bytes:
        body = encode(message, codec, f"queue {queue!r}")
        if len(body) > self._most:
            raise TooLarge(f"a message for queue {queue!r} has {len(body)} bytes; {self._most} is the most")
        return body

    def pack(self, queue: str, one: Outbound) -> Posted:
        """Return a message ready to be stored.

        Raises:
            InvalidArgument: A field is bad, or the message cannot be encoded.
            TooLarge: It is over the limit.
            Unsupported: The provider cannot do what a field asks for.
        """
        whole(one.priority, "priority", 0, 9)
        _check_name(one.dedup, "dedup")
        _check_name(one.group, "group")
        codec = Codec.RAW if isinstance(one.message, _BYTES) else self._codec
        posted = Posted(
            id=fresh_id(),
            body=self._body(queue, one.message, codec),
            headers=self._envelope(one, codec),
            priority=one.priority,
            delay=pause(one.delay, "delay"),
            dedup=one.dedup,
            window=self._options.dedup_window,
            group=one.group if self._ordered else None,
            tenant=(one.group or self._groupless) if self._fair else None,
        )
        if posted.priority or posted.delay or posted.dedup or posted.group or posted.tenant:
            self.admit(posted)
        return posted

    def admit(self, posted: Posted) -> None:
        """Refuse what the provider cannot do, before anything is sent.

        Raises:
            Unsupported: The message asks for it.
        """
        asked = (
            (posted.priority, Can.PRIORITY),
            (posted.delay, Can.DELAY),
            (posted.dedup, Can.DEDUP),
            (posted.group, Can.ORDER),
            (posted.tenant, Can.FAIR),
        )
        for value, needed in asked:
            if value and needed not in self._driver.features:
                raise Unsupported(f"the provider {self._driver.scheme} does not {needed.value}")

    def _envelope(self, one: Outbound, codec: Codec) -> str:
        ttl = seconds(one.ttl, "ttl") or self._options.ttl
        follows = bound()
        if not ttl and codec is Codec.JSON and one.headers == {} and not follows:
            return ""
        expires = self._now() + pause(one.delay, "delay") + ttl if ttl else 0.0
        identity, traceparent = origin()
        return _written(_Envelope(int(codec), expires, checked_headers(one.headers), identity, traceparent))

    def expired(self, leased: Leased) -> bool:
        """Return whether a message's time to live has ended before anybody received it."""
        if leased.deliveries > 1 or leased.message.died_at or not leased.message.headers:
            return False
        return 0 < _envelope(leased.message).expires <= self._now()

    def delivery(self, queue: str, leased: Leased) -> Delivery[object]:
        """Return a message as its receiver sees it.

        Raises:
            Damaged: Its bytes are no message.
        """
        message = leased.message
        envelope = _envelope(message) if message.headers else _PLAIN
        return Delivery(
            id=message.id,
            queue=queue,
            value=_value(message, envelope, queue),
            receipt=receipt(leased),
            deliveries=leased.deliveries,
            sent_at=leased.sent_at,
            priority=message.priority,
            group=message.group or _tenant(message),
            headers=envelope.headers if message.headers else {},
            first_error=message.first_error,
            last_error=message.last_error,
            correlation_id=envelope.correlation_id,
            traceparent=envelope.traceparent,
        )

    def peeked(self, queue: str, leased: Leased) -> Peeked:
        """Return a message as one who looks on sees it."""
        message = leased.message
        value, headers, readable = _glance(message, queue)
        return Peeked(
            id=message.id,
            value=value,
            deliveries=leased.deliveries,
            sent_at=leased.sent_at,
            priority=message.priority,
            group=message.group or _tenant(message),
            headers=headers,
            first_error=message.first_error,
            last_error=message.last_error,
            readable=readable,
        )

    def dead_letter(self, origin: str, leased: Leased) -> DeadLetter:
        """Return a dead letter as one who looks on sees it."""
        message = leased.message
        value, headers, _ = _glance(message, origin)
        return DeadLetter(
            id=message.id,
            origin=origin,
            value=value,
            attempts=message.attempts,
            first_error=message.first_error,
            last_error=message.last_error,
            sent_at=leased.sent_at,
            died_at=message.died_at,
            headers=headers,
        )


def unending(headers: str) -> str:
    """Return what travels beside a body without its end, for somebody has received it; what is damaged stays so."""
    try:
        envelope = _read_envelope(headers) if headers else _PLAIN
    except (msgspec.DecodeError, ValueError):
        return headers
    return _written(msgspec.structs.replace(envelope, expires=0.0)) if envelope.expires else headers


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers that can travel.

    Raises:
        InvalidArgument: A name or value is no text that UTF-8 can carry.
        TooLarge: They have more than 16 Ki characters together.
    """
    if not isinstance(headers, Mapping):
        raise InvalidArgument(f"headers must be a dictionary of text, not {type(headers).__name__}")
    for text in (*headers, *headers.values()):
        _HEADER(text)
    if sum(len(name) + len(value) for name, value in headers.items()) > _HEADER_BYTES:
        raise TooLarge(f"headers have more than {_HEADER_BYTES} characters together")
    return dict(headers)


def told(reason: str) -> str:
    """Return what is kept of an error: its first 1,000 characters.

    Raises:
        InvalidArgument: It is no text that UTF-8 can carry.
    """
    _REASON(reason)
    return reason[:_REASON_KEPT]


def _check_name(name: str | None, field: str) -> None:
    if name is None:
        return
    try:
        _NAME(name)
    except InvalidArgument as error:
        raise InvalidArgument(f"{field}: {error.message}") from error


def _tenant(message: Posted) -> str | None:
    return None if message.tenant == _NO_GROUP else message.tenant


def _written(envelope: _Envelope) -> str:
    return "" if envelope == _PLAIN else _write_envelope(envelope).decode()


def _envelope(message: Posted) -> _Envelope:
    if not message.headers:
        return _PLAIN
    try:
        return _read_envelope(message.headers)
    except (msgspec.DecodeError, ValueError) as error:
        raise Damaged(f"the headers of message {message.id} cannot be read: {error}") from error


def _value(message: Posted, envelope: _Envelope, queue: str) -> object:
    if envelope is _PLAIN or envelope.codec == Codec.JSON:
        try:
            found = DECODE_JSON(message.body)
            if len(message.body) > SHALLOW:
                check_depth(message.body)
        except UNREADABLE as error:
            raise damaged(f"message {message.id} of queue {queue!r}", error) from error
        return found
    subject = f"message {message.id} of queue {queue!r}"
    if envelope.codec not in (Codec.MSGPACK, Codec.RAW):
        raise Damaged(f"{subject} is encoded as {envelope.codec}, which this release does not know")
    return decode(message.body, Codec(envelope.codec), object, subject)


def _glance(message: Posted, queue: str) -> tuple[object, dict[str, str], bool]:
    try:
        envelope = _envelope(message)
        return _value(message, envelope, queue), dict(envelope.headers), True
    except Damaged:
        return None, {}, False
