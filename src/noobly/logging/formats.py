"""Records as bytes: how they are stored, and how they are shown to people and to other systems."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from noobly.core.errors import InvalidArgument
from noobly.logging.options import Format
from noobly.logging.record import Attributes, Level, Record

ECS_VERSION = "8.17"
"""The version of the Elastic Common Schema whose names ``ecs`` writes."""

NAMES: Mapping[int, str] = {level.value: level.name.lower() for level in Level}
"""The levels' names by their numbers."""

encode = msgspec.json.Encoder().encode
_DECODER = msgspec.json.Decoder(Record)

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_WORD = re.compile(r"[^\s\"=]+")
_COLOURS = {"trace": "2", "debug": "2", "info": "32", "warn": "33", "error": "31", "fatal": "1;31"}


def severity(level: str) -> int:
    """Return a level's number.

    Raises:
        InvalidArgument: There is no such level.
    """
    try:
        return Level[level.upper()].value
    except (KeyError, AttributeError) as error:
        raise InvalidArgument(f"there is no level {level!r}; there are {', '.join(NAMES.values())}") from error


def level_of(number: int) -> str:
    """Return the name of the level that a severity number belongs to (OpenTelemetry: four numbers each)."""
    return NAMES[max(1, min(21, (number - 1) // 4 * 4 + 1))]


def stamp(micros: int) -> str:
    """Return microseconds since the epoch as RFC 3339."""
    seconds, rest = divmod(micros, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"


def micros(moment: datetime) -> int:
    """Return a time as microseconds since the epoch.

    Raises:
        InvalidArgument: It has no zone.
    """
    if moment.tzinfo is None:
        raise InvalidArgument(f"{moment.isoformat()} has no time zone; give one, such as datetime.UTC")
    whole = moment.astimezone(UTC).replace(microsecond=0)
    return int(whole.timestamp()) * 1_000_000 + moment.microsecond


def moment(timestamp: str) -> datetime:
    """Return the time that an RFC 3339 text names.

    Raises:
        InvalidArgument: It is not RFC 3339 with a zone.
    """
    try:
        return msgspec.convert(timestamp, datetime)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"{timestamp!r} is not an RFC 3339 time") from error


def decode(line: bytes) -> Record:
    """Return a stored record.

    Raises:
        InvalidArgument: It is not one.
    """
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"a line is not a record: {error}") from error


def renderer(format: Format, *, colour: bool) -> Callable[[bytes], bytes]:
    """Return what makes a line for others of a stored one, without its newline.

    Args:
        format: How it shall look.
        colour: Text is for a terminal.
    """
    if format is Format.JSON:
        return bytes
    if format is Format.ECS:
        return lambda line: encode(ecs(decode(line)))
    if format is Format.OTLP:
        return lambda line: encode(otlp([decode(line)]))
    return lambda line: text(decode(line), colour=colour).encode("utf-8", "backslashreplace")


def text(record: Record, *, colour: bool = False) -> str:
    """Return a record as text for people; nothing that came from outside can begin a line or steer the terminal."""
    pairs = "".join(f" {_word(name)}={_shown(value)}" for name, value in record.attributes.items())
    where = f" [{escaped(record.logger)}]" if record.logger else ""
    tied = f" id={record.correlation_id}" if record.correlation_id else ""
    level = f"{record.level.upper():5}"
    if colour:
        level = f"\x1b[{_COLOURS.get(record.level, '0')}m{level}\x1b[0m"
    head = f"{escaped(record.timestamp)} {level}{where} {escaped(record.message)}{pairs}{escaped(tied)}"
    if record.exception is None:
        return head
    lines = record.exception.stacktrace.splitlines() or [f"{record.exception.type}: {record.exception.message}"]
    return "\n".join([head, *(f"    | {escaped(line)}" for line in lines)])


def escaped(value: str) -> str:
    """Return text with control characters, line ends of any kind, direction marks and lone surrogates as escapes."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), value)


def _word(value: str) -> str:
    return escaped(value) if _WORD.fullmatch(value) else escaped(encode(value).decode())


def _shown(value: object) -> str:
    return _word(value) if isinstance(value, str) else escaped(encode(value).decode())


def ecs(record: Record) -> dict[str, object]:
    """Return a record under the names of the Elastic Common Schema; attributes stand under ``labels``."""
    found: dict[str, object] = {
        "@timestamp": record.timestamp,
        "ecs.version": ECS_VERSION,
        "log.level": record.level,
        "message": record.message,
        "log.logger": record.logger,
        "service.name": record.service,
        "service.node.name": record.instance,
        "trace.id": record.trace_id,
        "span.id": record.span_id,
        "http.request.id": record.correlation_id,
        "event.severity": record.severity_number,
    }
    if record.exception is not None:
        found["error.type"] = record.exception.type
        found["error.message"] = record.exception.message
        found["error.stack_trace"] = record.exception.stacktrace
    if record.attributes:
        found["labels"] = record.attributes
    return {name: value for name, value in found.items() if value != ""}


def otlp(records: Sequence[Record]) -> dict[str, object]:
    """Return records as one OTLP/JSON export request (opentelemetry-proto, ``logs.proto``; ids in hexadecimal)."""
    groups: dict[tuple[str, str, str], list[dict[str, object]]] = {}
    for record in records:
        groups.setdefault((record.service, record.instance, record.logger), []).append(_otlp_record(record))
    return {"resourceLogs": [_otlp_group(*names, logs) for names, logs in groups.items()]}


def _otlp_group(service: str, instance: str, logger: str, logs: list[dict[str, object]]) -> dict[str, object]:
    resource = {"service.name": service, "service.instance.id": instance}
    attributes = [_pair(name, value) for name, value in resource.items() if value]
    return {"resource": {"attributes": attributes}, "scopeLogs": [{"scope": {"name": logger}, "logRecords": logs}]}


def _otlp_record(record: Record) -> dict[str, object]:
    attributes: Attributes = dict(record.attributes)
    if record.correlation_id:
        attributes["correlation_id"] = record.correlation_id
    if record.exception is not None:
        # OpenTelemetry semantic conventions, "Exceptions in logs".
        attributes["exception.type"] = record.exception.type
        attributes["exception.message"] = record.exception.message
        attributes["exception.stacktrace"] = record.exception.stacktrace
    return {
        "timeUnixNano": str(micros(moment(record.timestamp)) * 1000),
        "severityNumber": record.severity_number,
        "severityText": record.level.upper(),
        "body": {"stringValue": record.message},
        "attributes": [_pair(name, value) for name, value in attributes.items()],
        "traceId": record.trace_id,
        "spanId": record.span_id,
    }


def _pair(name: str, value: object) -> dict[str, object]:
    return {"key": name, "value": _any_value(value)}


def _any_value(value: object) -> dict[str, object]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [_pair(name, each) for name, each in value.items()]}}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_any_value(each) for each in value]}}
    return {} if value is None else {"stringValue": str(value)}
