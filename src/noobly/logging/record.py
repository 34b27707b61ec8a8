"""One log record: what is known of an event, under the names of the OpenTelemetry log data model."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec


class Level(IntEnum):
    """Levels by their severity number (OpenTelemetry, "Severity fields")."""

    TRACE = 1
    DEBUG = 5
    INFO = 9
    WARN = 13
    ERROR = 17
    FATAL = 21


Attributes = dict[str, Any]
"""What belongs to a record by name: any JSON; redacted before it is stored."""


class ExceptionInfo(msgspec.Struct, frozen=True):
    """An exception as text; never local variables."""

    type: str
    message: str
    stacktrace: str


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record as it is stored, one JSON object per line, in this order of members.

    Args:
        timestamp: RFC 3339 in UTC with microseconds and a final ``Z``.
        level: The level's name in small letters.
        severity_number: Its number, 1 to 24.
        message: What happened.
        logger: The name of the logger.
        service: The application's name, or the suite's service that wrote it.
        instance: The instance within it.
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        correlation_id: What ties records of one request together.
        attributes: What belongs to it by name.
        exception: The exception, where there was one.
    """

    timestamp: str
    level: str
    severity_number: int
    message: str
    logger: str = ""
    service: str = ""
    instance: str = ""
    trace_id: str = ""
    span_id: str = ""
    correlation_id: str = ""
    attributes: Attributes = {}
    exception: ExceptionInfo | None = None
