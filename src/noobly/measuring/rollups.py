"""Tiers of ever coarser steps, and how a range of time is answered from them.

Each sample is kept raw and counted in the step it falls into of every tier, so that a coarse step holds exactly the
samples of the fine ones within it. A range is covered by the coarsest whole steps inside of it, and by finer ones
towards its ends, as far as these are still kept.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple, Protocol

from noobly.measuring import sketch
from noobly.measuring.driver import Answer, Rollup, Selector

STEPS = (0.0, 10.0, 60.0, 3600.0)
"""Seconds per step of each tier; 0 for raw samples. Each divides the next."""

TOP = len(STEPS) - 1
TOGETHER = 64
"""Rows that are merged at once."""
ALWAYS = -math.inf
"""The floor of a tier that has lost nothing yet."""


class Row(NamedTuple):
    """The samples of one step of one series; a raw sample is a row of its own."""

    at: float
    samples: int
    sum: float
    min: float
    max: float
    last: float
    last_at: float
    sketch: bytes


class Span(NamedTuple):
    """Rows that begin in ``[start, end)`` of one tier, and the share of them that counts."""

    level: int
    start: float
    end: float
    share: float = 1.0


class Source(Protocol):
    """One series, as its rows are read."""

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Its label values."""
        ...

    @property
    def floors(self) -> Sequence[float]:
        """The time from which on each tier still has everything; ``ALWAYS`` where nothing is lost."""
        ...

    def extent(self, level: int) -> tuple[float, float] | None:
        """Return where the first and the last row of a tier begin; None where it is empty."""
        ...

    def rows(self, span: Span) -> Iterable[Row]:
        """Return rows in order of time."""
        ...


def raw(at: float, value: float) -> Row:
    """Return a sample as a row."""
    return Row(at, 1, value, value, value, value, at, b"")


def begin(at: float, level: int) -> float:
    """Return where the step begins that an instant falls into; for raw samples, the instant."""
    return at - at % STEPS[level] if level else at


def matches(labels: Sequence[tuple[str, str]], wanted: dict[str, str]) -> bool:
    """Return whether a series with these labels is meant."""
    if not wanted:
        return True
    given = dict(labels)
    return all(given.get(name, "") == value for name, value in wanted.items())


class Frame(NamedTuple):
    """How a question is answered: from which tier on, in steps of which length."""

    selector: Selector
    level: int
    step: float


class Cut(NamedTuple):
    """What one series has of a range, as it was at that moment: rows, of each the share that counts, and labels."""

    labels: dict[str, str]
    start: float
    parts: list[tuple[Iterable[Row], float]]


def frame(selector: Selector, step: float, sources: Sequence[Source]) -> Frame:
    """Return how a question about some series is answered."""
    level = max((_finest(source, selector.start) for source in sources), default=0)
    return Frame(selector, level, _widened(step, level))


def cut(source: Source, how: Frame) -> Cut:
    """Return what a series has of a range, which takes little time; what becomes of it makes no difference."""
    bounds = _bounds(source, how.selector)
    if bounds is None:
        return Cut({}, 0.0, [])
    spans = cover(*bounds, _coarsest(how.step, how.level), source.floors)
    return Cut(dict(source.labels), bounds[0], [(source.rows(span), span.share) for span in spans])


def reduced(how: Frame, cuts: Iterable[Cut]) -> Iterator[Rollup | None]:
    """Yield the rollups of what was cut out; None before the next one is ready, where that takes a while."""
    selector = how.selector
    found = (_rollups(one, how) for one in cuts)
    rollups = chain.from_iterable(found) if selector.limit is None else heapq.merge(*found, key=_at)
    return islice(rollups, selector.limit)


def answered(how: Frame, rollups: list[Rollup]) -> Answer:
    """Return an answer with these rollups."""
    return Answer(tier=STEPS[how.level], step=how.step, rollups=rollups)


def answer(selector: Selector, step: float, sources: Sequence[Source]) -> Answer:
    """Return the rollups of some series; see ``MetricDriver.query``."""
    how = frame(selector, step, sources)
    found = reduced(how, (cut(source, how) for source in sources))
    return answered(how, [rollup for rollup in found if rollup is not None])


def _at(rollup: Rollup | None) -> float:
    return math.nan if rollup is None else rollup.at


def _finest(source: Source, start: float) -> int:
    """Return the finest tier that still has everything from an instant on, or the coarsest one there is."""
    return next((level for level in range(TOP) if source.floors[level] <= start), TOP)


def _widened(step: float, level: int) -> float:
    if not level or math.isinf(step):
        return step
    return max(1, math.ceil(step / STEPS[level])) * STEPS[level]


def _rollups(one: Cut, how: Frame) -> Iterator[Rollup | None]:
    selector, step, sketches = how.selector, how.step, how.selector.sketches
    rows = (row for found, share in one.parts for row in _shared(found, share, sketches))
    if step == 0:
        yield from (_rollup(one.labels, row.at, row) for row in rows)
        return
    window: list[Row] = []
    start = one.start
    for row in rows:
        at = one.start if math.isinf(step) else row.at - row.at % step
        if window and at != start:
            yield _rollup(one.labels, start, merged(window, sketches=sketches))
            window = []
        start = at
        window.append(row)
        if len(window) > TOGETHER and selector.limit is None:
            window = [merged(window, sketches=sketches)]
            yield None
    if window:
        yield _rollup(one.labels, start, merged(window, sketches=sketches))


def _rollup(labels: dict[str, str], at: float, row: Row) -> Rollup:
    return Rollup(
        labels=labels,
        at=at,
        count=row.samples,
        sum=row.sum,
        min=row.min,
        max=row.max,
        last=row.last,
        last_at=row.last_at,
        sketch=row.sketch,
    )


def _bounds(source: Source, selector: Selector) -> tuple[float, float] | None:
    """Return the part of the range in which the series has anything; None where there is none."""
    level = _finest(source, ALWAYS)
    extents = [found for tier in {level, TOP} if (found := source.extent(tier))]
    if not extents:
        return None
    first, last = extents[0][0], max(found[1] for found in extents)
    beyond = math.nextafter(last, math.inf) if level == 0 else last + STEPS[TOP]
    start, end = max(selector.start, first), min(selector.end, beyond)
    return (start, end) if start < end else None


def _coarsest(step: float, level: int) -> int:
    """Return the coarsest tier whose steps lie each within one step of the answer."""
    if step == 0:
        return level
    return next((tier for tier in range(TOP, level, -1) if math.isinf(step) or step % STEPS[tier] == 0), level)


def cover(start: float, end: float, level: int, floors: Sequence[float]) -> list[Span]:
    """Return spans that cover a range in order of time, from this tier and at its ends from finer ones."""
    if start >= end:
        return []
    if level == 0:
        return [Span(0, start, end)]
    step = STEPS[level]
    low, high = math.ceil(start / step) * step, math.floor(end / step) * step
    if low > high:
        return _edge(start, end, level, floors)
    inner = [Span(level, low, high)] if low < high else []
    return [*_edge(start, low, level, floors), *inner, *_edge(high, end, level, floors)]


def _edge(start: float, end: float, level: int, floors: Sequence[float]) -> list[Span]:
    """Cover a part of one step of a tier: exactly where a finer tier still has it, else by its share of the step."""
    if start >= end:
        return []
    for finer in range(level - 1, -1, -1):
        if floors[finer] <= start:
            return cover(start, end, finer, floors)
    at = begin(start, level)
    return [Span(level, at, at + STEPS[level], (end - start) / STEPS[level])]


def _shared(rows: Iterable[Row], share: float, sketches: bool) -> Iterable[Row]:
    if share >= 1:
        return rows
    return [part for row in rows if (part := _part(row, share, sketches)) is not None]


def _part(row: Row, share: float, sketches: bool) -> Row | None:
    """Return a row with a share of its samples, as if they were spread evenly; None where that is none."""
    count = round(row.samples * share)
    if not count:
        return None
    counts = {number: round(held * share) for number, held in distribution(row).items()} if sketches else {}
    kept = {number: held for number, held in counts.items() if held}
    return row._replace(samples=count, sum=row.sum / row.samples * count, sketch=sketch.encode(kept))


def distribution(row: Row) -> sketch.Counts:
    """Return how the samples of a row are distributed; where it has no sketch, they are all like the last."""
    return sketch.decode(row.sketch) if row.sketch else {sketch.bucket(row.last): row.samples}


def merged(rows: Sequence[Row], *, sketches: bool = True) -> Row:
    """Return one row that stands for several, at the time of the first.

    Args:
        rows: One or more.
        sketches: Merge their sketches too.
    """
    if len(rows) == 1:
        return rows[0]
    latest = max(reversed(rows), key=_last_at)  # of several at one time, the one that came last
    return Row(
        rows[0].at,
        sum(row.samples for row in rows),
        sum(row.sum for row in rows),
        min(row.min for row in rows),
        max(row.max for row in rows),
        latest.last,
        latest.last_at,
        _merged_sketch(rows) if sketches else b"",
    )


def _last_at(row: Row) -> float:
    return row.last_at


def _merged_sketch(rows: Sequence[Row]) -> bytes:
    counts: sketch.Counts = {}
    for row in rows:
        sketch.merge(counts, distribution(row))
    return sketch.encode(counts) if len(counts) > 1 else b""
