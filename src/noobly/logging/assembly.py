"""From what a log call left in the queue to lines: encoding and redaction, for many records at once."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from itertools import chain

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context as TraceContext

from noobly.core.correlation import Context
from noobly.logging.driver import Line
from noobly.logging.formats import NAMES, decode, encode, level_of, micros, moment, stamp
from noobly.logging.plain import LONGEST
from noobly.logging.record import ExceptionInfo, Record
from noobly.logging.redaction import Redactor

_STACK = 32 * 1024


class Source:
    """Where records come from: a logger's name, with all that is alike on its records.

    Attributes:
        name: The logger's name.
        threshold: The least severity that is kept.
        encoded: Logger, service and instance as they stand in a line.
    """

    __slots__ = ("encoded", "name", "threshold")

    def __init__(self, name: str, service: str, instance: str, threshold: int) -> None:
        named = {"logger": name, "service": service, "instance": instance}
        self.name = name
        self.threshold = threshold
        self.encoded = b"".join(b',"%b":%b' % (key.encode(), encode(part)) for key, part in named.items() if part)


Item = tuple[
    float, int, str, dict[str, object] | msgspec.Raw, Source, Context, TraceContext, ExceptionInfo | None
]  # fmt: skip
"""A record in the queue: seconds since the epoch, severity, message, attributes (plain values by name, or already
encoded and redacted), source, context, trace and exception. A tuple, for making one is on each caller's way."""

_encode_lines = msgspec.json.Encoder().encode_lines
_LEVELS = {
    number: b'Z","level":"%b","severity_number":%d,"message":' % (name.encode(), number)
    for number, name in NAMES.items()
}
_DIGITS = [b"%03d" % number for number in range(1000)]


class Assembler:
    """Makes lines of items."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def lines(self, items: Sequence[Item]) -> list[Line]:
        """Return the items as lines, in their order, redacted."""
        made: list[Line] = []
        second, day = 1 << 62, b""
        pieces = iter(self._pieces(items) if items else ())
        for (when, severity, _, _, source, context, traced, exception), message, attributes in zip(
            items, pieces, pieces, strict=True
        ):
            at = int(when * 1e6)
            if not 0 <= at - second < 1_000_000:
                second = at - at % 1_000_000
                day = b'{"timestamp":"' + stamp(second)[:20].encode()
            micro = at - second
            ids = _ids(context, traced) if traced or context.correlation_id else b""
            line = b"".join((
                day, _DIGITS[micro // 1000], _DIGITS[micro % 1000], _LEVELS[severity], message, source.encoded, ids,
                b',"attributes":' if attributes else b"", attributes,
                b',"exception":%b}' % encode(exception) if exception else b"}",
            ))  # fmt: skip
            made.append(Line(at, severity, line))
        return made

    def admit(self, line: Line) -> Line:
        """Return a line that came from elsewhere, redacted again.

        Raises:
            InvalidArgument: It is not a record.
        """
        record = decode(line.data)
        at = micros(moment(record.timestamp))
        severity = min(24, max(1, record.severity_number))
        return Line(at, severity, encode(self.clean(record)))

    def clean(self, record: Record) -> Record:
        """Return a record without secrets, its members of the right form."""
        text, exception = self._redactor.text, record.exception
        number = min(24, max(1, record.severity_number))
        return Record(
            timestamp=stamp(micros(moment(record.timestamp))),
            level=level_of(number),
            severity_number=number,
            message=text(record.message),
            logger=text(record.logger, 200),
            service=text(record.service, 200),
            instance=text(record.instance, 200),
            trace_id=record.trace_id[:32],
            span_id=record.span_id[:16],
            correlation_id=record.correlation_id[:128],
            attributes=self._redactor.clean(record.attributes),
            exception=exception and self.redacted(exception),
        )

    def exception(self, error: BaseException) -> ExceptionInfo:
        """Return an exception as text, with its causes and, of a group, its members; never local variables."""
        described = "".join(traceback.format_exception(error))
        kind = type(error)
        module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
        lines = traceback.format_exception_only(error)
        message = "".join(lines).strip().partition(": ")[2]
        return self.redacted(ExceptionInfo(f"{module}{kind.__qualname__}", message, described))

    def redacted(self, exception: ExceptionInfo) -> ExceptionInfo:
        """Return an exception's texts without secrets."""
        text = self._redactor.text
        return ExceptionInfo(text(exception.type, 200), text(exception.message), text(exception.stacktrace, _STACK))

    def _pieces(self, items: Sequence[Item]) -> list[bytes]:
        """Return message and attributes of each item in turn, as they stand in its line; empty for no attributes."""
        data = self._together(items) or b"\n".join([piece for item in items for piece in self._alone(item)])
        # JSON has no line end within a line, so each line is one piece.
        pieces = data.split(b"\n")
        if max(map(len, pieces)) > LONGEST or self._redactor.suspects(data):
            return self._searched(items, pieces)
        return pieces

    def _together(self, items: Sequence[Item]) -> bytes | None:
        """Return the pieces encoded in one go, or None where an item needs a closer look."""
        attributes = [item[3] for item in items]
        named = [one for one in attributes if one.__class__ is dict]
        if not self._redactor.harmless(chain.from_iterable(named)):
            return None
        try:
            data = _encode_lines(list(chain.from_iterable(zip([item[2] for item in items], attributes, strict=True))))
        except (TypeError, ValueError, OverflowError):
            return None
        data = data[:-1]
        return data if all(named) else data.replace(b"\n{}\n", b"\n\n").removesuffix(b"{}")

    def _alone(self, item: Item) -> tuple[bytes, bytes]:
        attributes = item[3]
        if isinstance(attributes, dict) and not self._redactor.names(attributes):
            return self._careful(item)
        try:
            return encode(item[2]), _members(encode(attributes))
        except (TypeError, ValueError, OverflowError):
            return self._careful(item)

    def _searched(self, items: Sequence[Item], pieces: list[bytes]) -> list[bytes]:
        suspects = self._redactor.suspects
        for at, item in enumerate(items):
            message, attributes = pieces[2 * at], pieces[2 * at + 1]
            if len(message) + len(attributes) > LONGEST or suspects(message) or suspects(attributes):
                pieces[2 * at : 2 * at + 2] = self._careful(item)
        return pieces

    def _careful(self, item: Item) -> tuple[bytes, bytes]:
        attributes = item[3]
        made = encode(self._redactor.clean(attributes) if isinstance(attributes, dict) else attributes)
        return encode(self._redactor.text(item[2])), _members(made)


def _members(encoded: bytes) -> bytes:
    return b"" if encoded == b"{}" else encoded


def _ids(context: Context, traced: TraceContext) -> bytes:
    span = trace.get_current_span(traced).get_span_context()
    ids = f',"trace_id":"{span.trace_id:032x}","span_id":"{span.span_id:016x}"' if span.is_valid else ""
    if context.correlation_id:
        ids += f',"correlation_id":"{context.correlation_id}"'
    return ids.encode()
