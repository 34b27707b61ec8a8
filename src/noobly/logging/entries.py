"""What is given to and comes from ``Logs`` besides records."""

from __future__ import annotations

import msgspec

from noobly.logging.options import LevelName
from noobly.logging.record import Attributes, ExceptionInfo, Record


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A record to be written that was made elsewhere: in a browser, by another program.

    Args:
        message: What happened.
        level: ``trace``, ``debug``, ``info``, ``warn``, ``error`` or ``fatal``.
        timestamp: When it happened, RFC 3339 with a zone; now by default.
        logger: The name of the logger.
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        correlation_id: What ties records of one request together.
        attributes: What belongs to it by name.
        exception: The exception, where there was one.
    """

    message: str
    level: LevelName = "info"
    timestamp: str = ""
    logger: str = ""
    trace_id: str = ""
    span_id: str = ""
    correlation_id: str = ""
    attributes: Attributes = {}
    exception: ExceptionInfo | None = None


class LogPage(msgspec.Struct, frozen=True):
    """One page of records, newest first.

    Args:
        records: The records.
        after: Where the next page begins; None at the end.
    """

    records: list[Record]
    after: str | None
