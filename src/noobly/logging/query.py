"""Which stored lines a query means: one rule for every provider, and for live readers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from noobly.core.errors import InvalidArgument
from noobly.logging.driver import Query

Scalar = str | int | float | bool
Condition = Callable[[bytes], "Seen | None"]
"""Takes a stored line; returns what it read of it where the query means it."""

OWN = frozenset({"logger", "service", "instance", "trace_id", "correlation_id"})
"""Names that are looked up in the record itself, before its attributes."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


class Seen(msgspec.Struct, frozen=True):
    """What a query needs to know of every line it means: when, how severe, and the level's name."""

    at: int
    severity: int
    level: str


class _Stored(msgspec.Struct, frozen=True):
    """The parts of a stored record that queries look at."""

    timestamp: datetime
    level: str
    severity_number: int
    message: str
    logger: str = ""
    service: str = ""
    instance: str = ""
    trace_id: str = ""
    correlation_id: str = ""
    attributes: msgspec.Raw = msgspec.Raw(b"{}")


_DECODE = msgspec.json.Decoder(_Stored).decode
_ATTRIBUTES = msgspec.json.Decoder(dict[str, Any]).decode


def micros(moment: datetime) -> int:
    """Return microseconds since the epoch; a moment without a zone counts as UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def rfc3339(at: int) -> str:
    """Return microseconds since the epoch as records show them (RFC 3339, UTC), held to the years 1 to 9999."""
    moment = _EPOCH + timedelta(microseconds=min(max(at, _FIRST), _LAST))
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def condition(query: Query) -> Condition:
    """Return the rule of a query; a line that is no record is never meant."""
    text = query.text.casefold()
    wanted = tuple(query.attributes.items())
    early = _span(query)

    def meant(line: bytes) -> Seen | None:
        if early(line):
            return None
        record = _read(line)
        if record is None or record.severity_number < query.severity:
            return None
        at = micros(record.timestamp)
        if not _within(query, at) or query.level not in ("", record.level):
            return None
        if text not in record.message.casefold() or not all(_has(record, *one) for one in wanted):
            return None
        return Seen(at, record.severity_number, record.level)

    return meant


def pairs(texts: Sequence[str]) -> dict[str, Scalar]:
    """Return attributes that were given as ``name=value``; a value that is no JSON text, number or truth is text.

    Raises:
        InvalidArgument: One has no name, or no ``=``.
    """
    found: dict[str, Scalar] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InvalidArgument(f"an attribute is given as name=value, not {text!r}")
        found[name] = _scalar(value)
    return found


def _scalar(text: str) -> Scalar:
    try:
        found: Scalar = msgspec.json.decode(text, type=Scalar)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text
    return found


def _read(line: bytes) -> _Stored | None:
    try:
        return _DECODE(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _within(query: Query, at: int) -> bool:
    return (query.since is None or at >= query.since) and (query.until is None or at < query.until)


_HEAD = b'{"timestamp":"'
_STAMP = slice(len(_HEAD), len(_HEAD) + len("2026-01-01T00:00:00.000000Z"))


def _span(query: Query) -> Callable[[bytes], bool]:
    """Return a quick test that tells lines outside of the time range by their first bytes, without reading them."""
    since = b"" if query.since is None else rfc3339(query.since).encode()
    until = b"\xff" if query.until is None else rfc3339(query.until).encode()

    def outside(line: bytes) -> bool:
        stamp = line[_STAMP]
        return line.startswith(_HEAD) and stamp.endswith(b"Z") and not since <= stamp < until

    return outside if since or query.until is not None else lambda line: False


def _has(record: _Stored, name: str, wanted: Scalar) -> bool:
    if name in OWN and _same(getattr(record, name), wanted):
        return True
    return any(_same(found, wanted) for found in _named(_attributes(record), name))


def _attributes(record: _Stored) -> Mapping[str, object]:
    try:
        return _ATTRIBUTES(record.attributes)
    except msgspec.DecodeError:
        return {}


def _named(attributes: Mapping[str, object], name: str) -> Iterator[object]:
    """Yield what a dotted name may lead to: a key may itself have dots in it."""
    if name in attributes:
        yield attributes[name]
    dot = name.find(".")
    while dot >= 0:
        inner = attributes.get(name[:dot])
        if isinstance(inner, dict):
            yield from _named(inner, name[dot + 1 :])
        dot = name.find(".", dot + 1)


def _same(found: object, wanted: Scalar) -> bool:
    # In Python True equals 1; in JSON it does not.
    return isinstance(found, bool) == isinstance(wanted, bool) and found == wanted
