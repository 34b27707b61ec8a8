"""Lines for tests: records as a store is given them."""

from __future__ import annotations

import msgspec

from noobly.logging.driver import Found, Line, LogDriver, Query
from noobly.logging.query import rfc3339
from noobly.logging.record import Attributes, Level, Record


def line(at: int, message: str, level: Level = Level.INFO, *, logger: str = "", **attributes: object) -> Line:
    """Return a record of this moment, in microseconds since the epoch, as a line."""
    named: Attributes = dict(attributes)
    record = Record(
        timestamp=rfc3339(at),
        level=level.name.lower(),
        severity_number=level,
        message=message,
        logger=logger,
        attributes=named,
    )
    return Line(at, level, msgspec.json.encode(record))


def message(data: bytes) -> str:
    """Return the message of a stored line."""
    return msgspec.json.decode(data, type=Record).message


async def found(driver: LogDriver, query: Query | None = None, *, limit: int = 100) -> list[str]:
    """Return the messages of all lines that a query means, walking through all pages."""
    messages: list[str] = []
    page = Found([], None)
    while True:
        page = await driver.search(query or Query(), page.after, limit)
        assert len(page.lines) <= limit
        messages += map(message, page.lines)
        if page.after is None:
            return messages
