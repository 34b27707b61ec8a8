"""What callers give to measuring and get from it."""

from __future__ import annotations

import math
from datetime import datetime

import msgspec

from noobly.core.errors import InvalidArgument
from noobly.core.turns import gently
from noobly.measuring import sketch
from noobly.measuring.driver import Answer, Rollup
from noobly.measuring.rollups import TOGETHER, Row, distribution, merged

Moment = float | datetime
"""A point in time: seconds since the epoch, or a ``datetime`` with a time zone."""


class SampleIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measurement on its way in.

    Args:
        name: The metric's name.
        value: The value, finite.
        labels: Label values by name.
        at: When it was taken; now by default.
    """

    name: str
    value: float
    labels: dict[str, str] = {}
    at: Moment | None = None


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number about a range of time.

    Args:
        value: The number; None where there is none, as for the average of nothing.
        count: Samples in the range.
        tier: Seconds to which the range's ends are exact; 0 where all was answered from raw samples.
    """

    value: float | None
    count: int
    tier: float


class Measurement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A sample, or the average of those of one step where raw samples are no longer kept.

    Args:
        at: Seconds since the epoch; of a step, its beginning.
        value: The value, or the average.
        count: Samples it stands for.
        labels: Its series' label values.
    """

    at: float
    value: float
    count: int
    labels: dict[str, str]


class Measurements(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements in order of time.

    Args:
        measurements: The first ones, as many as were asked for.
        tier: Seconds of the steps they stand for; 0 for raw samples.
        more: There are more; go on from the last one's time.
    """

    measurements: list[Measurement]
    tier: float
    more: bool


class Point(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The samples of one step of a chart.

    Args:
        at: Beginning of the step, seconds since the epoch.
        count: Samples in it.
        total: Their sum.
        average: Their mean.
        min: The least.
        max: The greatest.
        last: The latest.
    """

    at: float
    count: int
    total: float
    average: float
    min: float
    max: float
    last: float


class Points(msgspec.Struct, frozen=True, kw_only=True):
    """A chart's points in order of time; steps without samples have none.

    Args:
        points: The points.
        step: Seconds of each; more than asked for where the range is no longer kept that finely.
        tier: Seconds to which the range's ends are exact.
    """

    points: list[Point]
    step: float
    tier: float


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of a range of time; None where there are no samples.

    Args:
        count: Samples.
        total: Their sum.
        average: Their mean.
        min: The least.
        max: The greatest.
        last: The latest.
        rate: The sum per second.
        p50: The median, as all percentiles within 1 %.
        p90: The 90th percentile.
        p95: The 95th percentile.
        p99: The 99th percentile.
        tier: Seconds to which the range's ends are exact.
    """

    count: int
    total: float
    average: float | None
    min: float | None
    max: float | None
    last: float | None
    rate: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    tier: float


def moment(value: Moment | None, name: str, default: float) -> float:
    """Return a point in time as seconds since the epoch.

    Args:
        value: The point in time.
        name: The argument's name, for the message.
        default: What None means.

    Raises:
        InvalidArgument: It is not a number or a datetime, not finite, or has no time zone.
    """
    if value is None:
        return default
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidArgument(f"{name} has no time zone: write {value.isoformat()}Z, or give it a tzinfo")
        return value.timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e11:
        raise InvalidArgument(f"{name} must be seconds since the epoch or a datetime, not {value!r:.80}")
    return float(value)


async def whole(answer: Answer) -> Row | None:
    """Return one row that stands for all rollups of an answer; None where there are none."""
    rows: list[Row] = []
    async for rollup in gently(answer.rollups):
        rows.append(_row(rollup))
        if len(rows) > TOGETHER:
            rows = [merged(rows)]
    return merged(rows) if rows else None


def _row(rollup: Rollup) -> Row:
    return Row(rollup.at, rollup.count, rollup.sum, rollup.min, rollup.max, rollup.last, rollup.last_at, rollup.sketch)


def percentile(row: Row, share: float) -> float:
    """Return the value below which this share of the samples lies, within 1 %; never beyond the least and greatest."""
    found = sketch.quantile(distribution(row), share)
    return row.max if found is None else min(max(found, row.min), row.max)


async def chart(answer: Answer) -> Points:
    """Return the points of an answer, all series in one; its rollups are used up."""
    steps: dict[float, list[Rollup]] = {}
    async for rollup in gently(answer.rollups):
        steps.setdefault(rollup.at, []).append(rollup)
    # Each is let go with its step, for to let go of many thousands at once would take a while, too.
    answer.rollups.clear()
    points = [_point(at, merged(list(map(_row, steps.pop(at))), sketches=False)) async for at in gently(sorted(steps))]
    return Points(points=points, step=answer.step, tier=answer.tier)


def _point(at: float, row: Row) -> Point:
    return Point(
        at=at,
        count=row.samples,
        total=row.sum,
        average=row.sum / row.samples,
        min=row.min,
        max=row.max,
        last=row.last,
    )


async def measurements(answer: Answer, limit: int) -> Measurements:
    """Return the first measurements of an answer that may have one more."""
    found = gently(answer.rollups[:limit])
    rows = [
        Measurement(at=one.at, value=one.sum / one.count, count=one.count, labels=one.labels) async for one in found
    ]
    return Measurements(measurements=rows, tier=answer.tier, more=len(answer.rollups) > limit)


def overview(row: Row | None, rate: float | None, tier: float) -> Overview:
    """Return all figures of a row."""
    if row is None:
        nothing = dict.fromkeys(("average", "min", "max", "last", "p50", "p90", "p95", "p99"))
        return Overview(count=0, total=0.0, rate=rate, tier=tier, **nothing)
    shares = {f"p{percent}": percentile(row, percent / 100) for percent in (50, 90, 95, 99)}
    return Overview(
        count=row.samples,
        total=row.sum,
        average=row.sum / row.samples,
        min=row.min,
        max=row.max,
        last=row.last,
        rate=rate,
        tier=tier,
        **shares,
    )


def per_second(total: float, start: float, end: float) -> float | None:
    """Return a sum per second of a range; None where the range has no length."""
    return total / (end - start) if end > start and math.isfinite(end - start) else None
