"""The driver protocol of logging: the file a provider author reads.

A driver keeps encoded records in the order it was given them and finds them again. Redaction, levels, sampling,
batching, retry and overflow are the pipeline's business, above.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Protocol

import msgspec

from noobly.core.checks import Text, Whole
from noobly.core.operation import Driver, operation

PageSize = Annotated[int, Whole(1, 10_000)]
BatchId = Annotated[str, Text(1, 64)]


class Line(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One record on its way into a store.

    Args:
        at: Microseconds since the epoch, UTC.
        severity: The level's number.
        data: The record as one line of JSON, without its newline.
    """

    at: int
    severity: int
    data: bytes


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are meant; all given conditions must hold.

    Args:
        since: Microseconds since the epoch, inclusive.
        until: Microseconds since the epoch, exclusive.
        severity: The least severity number.
        level: Exactly this level's name, in small letters.
        text: Text the message contains, letter case aside.
        attributes: Attributes with exactly these values; dotted names lead into objects; ``logger``, ``service``,
            ``instance``, ``trace_id`` and ``correlation_id`` are looked up in the record itself.
    """

    since: int | None = None
    until: int | None = None
    severity: int = 0
    level: str = ""
    text: str = ""
    attributes: dict[str, str | int | float | bool] = {}


class Found(msgspec.Struct, frozen=True):
    """One page of lines, newest first, and where the next page begins; None at the end."""

    lines: list[bytes]
    after: str | None


class Followed(msgspec.Struct, frozen=True):
    """Lines that were stored since a place, oldest first.

    Args:
        lines: The lines.
        after: The place behind them.
        missed: Lines that were dropped before they could be returned, where that is known.
    """

    lines: list[bytes]
    after: str
    missed: int = 0


class Count(msgspec.Struct, frozen=True):
    """How many records of a level fall into the bucket that begins at ``at`` (microseconds since the epoch)."""

    at: int
    level: str
    count: int


class LogDriver(Driver, Protocol):
    """What every log provider does."""

    service: ClassVar[str] = "logging"

    @operation(idempotent=True)
    async def append(self, batch: BatchId, lines: Sequence[Line], /) -> None:
        """Store lines together; a batch whose id was stored before is ignored, so that it may be sent again."""
        ...

    @operation(idempotent=True)
    async def search(self, query: Query, after: str | None, limit: PageSize, /) -> Found:
        """Return matching lines, newest first."""
        ...

    @operation(idempotent=True)
    async def follow(self, after: str | None, limit: PageSize, /) -> Followed:
        """Return the lines stored since a place, by whichever process; without a place, only the one behind all."""
        ...

    @operation(idempotent=True)
    async def counts(self, query: Query, bucket: Annotated[int, Whole(1, 10**12)], /) -> list[Count]:
        """Return counts per level and time bucket of so many microseconds, oldest first."""
        ...

    @operation(idempotent=True)
    async def purge(self, before: int, /) -> int:
        """Delete records older than this (microseconds since the epoch); return how many there were."""
        ...

    @operation(idempotent=True)
    async def flush(self) -> None:
        """Return when everything appended so far would survive the end of the process."""
        ...

    @operation(idempotent=True)
    async def health(self) -> None:
        """Make one cheap check that the store works.

        Raises:
            Unavailable: It does not.
        """
        ...
