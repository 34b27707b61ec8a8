"""The driver protocol of measuring: the file a provider author reads.

A driver keeps samples per series in tiers of ever coarser steps and answers range queries from them. A series is a
metric's name with its label values. Instruments, exposition and cardinality caps are the portable type's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Protocol

import msgspec

from noobly.core.checks import Text, Whole
from noobly.core.operation import Driver, operation

Prefix = Annotated[str, Text(0, 256)]
Limit = Annotated[int, Whole(1, 100_000)]


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One measurement.

    Args:
        name: The metric's name.
        labels: Label values by name, sorted by name.
        at: Seconds since the epoch.
        value: The value, finite.
    """

    name: str
    labels: tuple[tuple[str, str], ...]
    at: float
    value: float


class Selector(msgspec.Struct, frozen=True, kw_only=True):
    """Which samples are meant, and what is wanted of them.

    Args:
        name: The metric's name.
        labels: Label values that a series must have, besides any others; the empty one means that it lacks the label.
        start: Seconds since the epoch, inclusive; minus infinity for the beginning.
        end: Seconds since the epoch, exclusive; infinity for all there is.
        sketches: The rollups shall have their sketches, which makes answers larger and slower.
        limit: The most rollups of an answer, the earliest ones; None for all.
    """

    name: str
    labels: dict[str, str] = {}
    start: float
    end: float
    sketches: bool = False
    limit: int | None = None


class Rollup(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of the samples of one step of one series.

    Args:
        labels: The series' label values.
        at: Beginning of the step, seconds since the epoch; of an endless step, where its samples begin.
        count: Samples in it.
        sum: Their sum.
        min: The least.
        max: The greatest.
        last: The latest.
        last_at: When that was.
        sketch: Their distribution, as ``sketch.py`` encodes it; empty where all are equal, or it was not asked for.
    """

    labels: dict[str, str]
    at: float
    count: int
    sum: float
    min: float
    max: float
    last: float
    last_at: float
    sketch: bytes = b""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Rollups, each series' in order of time, and how exact they are.

    Args:
        tier: The step, in seconds, of the finest tier that still has the whole range; 0 for raw samples. To this the
            ends of the range are exact; beyond it the rollups at the ends are shared out by length.
        step: Seconds of each rollup, at least those asked for; 0 for raw samples. Steps begin at its multiples.
        rollups: One for each step and series with samples in it; with a limit, all series' together in order of time.
    """

    tier: float
    step: float
    rollups: list[Rollup]


class SeriesInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One series that is kept.

    Args:
        name: The metric's name.
        labels: Its label values.
        count: Samples it was given so far.
        last_at: Time of the latest one, seconds since the epoch.
        last_value: Its value.
    """

    name: str
    labels: dict[str, str]
    count: int
    last_at: float
    last_value: float


class MetricDriver(Driver, Protocol):
    """What every metric provider does."""

    service: ClassVar[str] = "measuring"

    @operation(idempotent=False)
    async def record(self, samples: Sequence[Sample], /) -> None:
        """Keep samples, in any order of time, so that they survive what this provider survives."""
        ...

    @operation(idempotent=True)
    async def query(self, selector: Selector, step: float, /) -> Answer:
        """Return rollups of at least ``step`` seconds, as exact as the finest tier that still has the whole range.

        0 is for the finest step there is, infinity for one rollup of the whole range.
        """
        ...

    @operation(idempotent=True)
    async def series(self, prefix: Prefix, limit: Limit, /) -> list[SeriesInfo]:
        """Return the series whose metric's name begins so, the one with the latest sample first."""
        ...

    @operation(idempotent=True)
    async def retain(self) -> int:
        """Drop what is past its tier's retention; return how many steps and samples there were."""
        ...

    @operation(idempotent=True)
    async def health(self) -> None:
        """Make one cheap check that the store works."""
        ...
