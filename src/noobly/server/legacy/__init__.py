"""The routes of nooblyjs-core 1.0.14 as thin adapters over the same portable types, so that its clients keep working.

One small table per service. Differences from the original are the faults its contract marks: nothing is reachable
without a key where keys are required, errors never show a stack trace, a missing value is ``null``.
"""

from __future__ import annotations

from collections.abc import Iterator

from noobly.app import Noobly
from noobly.server.legacy import caching, logging, measuring, queueing, working
from noobly.server.legacy.shapes import PREFIX
from noobly.server.routes import Endpoint

__all__ = ["PREFIX", "legacy"]

TABLES = tuple(table.endpoints for table in (caching, logging, measuring, queueing, working))


def legacy(noobly: Noobly) -> Iterator[Endpoint]:
    """Yield the legacy endpoints of all services."""
    for table in TABLES:
        yield from table(noobly)
