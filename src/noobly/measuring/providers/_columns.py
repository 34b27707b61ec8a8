"""One series in memory: for each tier a column per figure, in order of time, and sketches as bytes.

A step takes 56 bytes and its sketch; a raw sample takes 16. Only the sketch of the step written last is kept open.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

from noobly.measuring import sketch
from noobly.measuring.rollups import ALWAYS, STEPS, Row, Span, begin, raw

_SLACK = 8
"""A full tier drops this part of itself at once, for dropping from the front moves all that stays."""


class Rows(Iterable[Row]):
    """Copies of parts of columns, as rows."""

    def __init__(self, make: Callable[..., Row], *columns: Sequence[object]) -> None:
        self._make = make
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns[0])

    def __iter__(self) -> Iterator[Row]:
        return map(self._make, *self._columns)


class Samples:
    """The raw samples of a series, the latest ``most`` of them."""

    def __init__(self, most: int) -> None:
        self.at = array("d")
        self.values = array("d")
        self.floor = ALWAYS
        self._most = most

    def add(self, at: float, value: float) -> None:
        """Keep a sample; of those at the same time, it is the later one."""
        if not self.at or at >= self.at[-1]:
            self.at.append(at)
            self.values.append(value)
        else:
            place = bisect_right(self.at, at)
            self.at.insert(place, at)
            self.values.insert(place, value)
        if len(self.at) > self._most + self._most // _SLACK:
            self._drop(len(self.at) - self._most)

    def rows(self, start: float, end: float) -> Iterable[Row]:
        """Return the samples within a range as rows."""
        low, high = bisect_left(self.at, start), bisect_left(self.at, end)
        return Rows(raw, self.at[low:high], self.values[low:high])

    def drop_before(self, cutoff: float) -> int:
        """Drop samples older than this; return how many."""
        count = bisect_left(self.at, cutoff)
        self._drop(count)
        return count

    def _drop(self, count: int) -> None:
        if count:
            self.floor = max(self.floor, math.nextafter(self.at[count - 1], math.inf))
            del self.at[:count], self.values[:count]


class Steps:
    """The steps of one rollup tier of a series, the latest ``most`` of them."""

    def __init__(self, level: int, most: int) -> None:
        self.at = array("d")
        self.floor = ALWAYS
        self._level = level
        self._most = most
        self._samples = array("q")
        self._figures = tuple(array("d") for _ in range(5))
        self._sketches: list[bytes] = []
        self._open_at = math.nan
        self._open = 0
        self._counts: sketch.Counts = {}

    def add(self, at: float, value: float, bucket: int) -> None:
        """Count a sample, whose value falls into this bucket of sketches."""
        start = begin(at, self._level)
        if start != self._open_at:
            self._turn_to(start)
        row, counts = self._open, self._counts
        sums, least, greatest, last, last_at = self._figures
        if not self._samples[row]:
            least[row] = greatest[row] = value
            last_at[row] = at
        self._samples[row] += 1
        sums[row] += value
        if value < least[row]:
            least[row] = value
        elif value > greatest[row]:
            greatest[row] = value
        if at >= last_at[row]:
            last[row], last_at[row] = value, at
        counts[bucket] = counts.get(bucket, 0) + 1
        if len(counts) > sketch.MOST:
            sketch.shrink(counts)

    def rows(self, start: float, end: float) -> Iterable[Row]:
        """Return the steps that begin within a range."""
        self._write_sketch()
        low, high = bisect_left(self.at, start), bisect_left(self.at, end)
        figures = (figure[low:high] for figure in self._figures)
        return Rows(Row, self.at[low:high], self._samples[low:high], *figures, self._sketches[low:high])

    def drop_before(self, cutoff: float) -> int:
        """Drop steps that ended by then; return how many."""
        count = bisect_right(self.at, cutoff - STEPS[self._level])
        self._drop(count)
        return count

    def _turn_to(self, start: float) -> None:
        self._write_sketch()
        row = bisect_left(self.at, start)
        if row == len(self.at) or self.at[row] != start:
            self._insert(row, start)
            if len(self.at) > self._most + self._most // _SLACK:
                self._drop(len(self.at) - self._most)
                row = bisect_left(self.at, start)
        if row == len(self.at) or self.at[row] != start:  # It was older than all that is kept.
            self._insert(row, start)
        self._open, self._open_at = row, start
        self._counts = self._stored_counts(row)

    def _stored_counts(self, row: int) -> sketch.Counts:
        if self._sketches[row] or not self._samples[row]:
            return sketch.decode(self._sketches[row])
        return {sketch.bucket(self._figures[3][row]): self._samples[row]}

    def _insert(self, row: int, start: float) -> None:
        self.at.insert(row, start)
        self._samples.insert(row, 0)
        for figure in self._figures:
            figure.insert(row, 0.0)
        self._sketches.insert(row, b"")

    def _write_sketch(self) -> None:
        if self._open_at == self._open_at:  # There is an open step.
            self._sketches[self._open] = sketch.encode(self._counts) if len(self._counts) > 1 else b""

    def _drop(self, count: int) -> None:
        if not count:
            return
        self._write_sketch()
        self._open_at = math.nan
        self.floor = max(self.floor, self.at[count - 1] + STEPS[self._level])
        for figure in self._figures:
            del figure[:count]
        del self.at[:count], self._samples[:count], self._sketches[:count]


class Columns:
    """A series.

    Args:
        labels: Its label values.
        most: Rows per tier.
    """

    def __init__(self, labels: tuple[tuple[str, str], ...], most: Sequence[int]) -> None:
        self.labels = labels
        self.count = 0
        self.last_at = ALWAYS
        self.last_value = 0.0
        self._samples = Samples(most[0])
        self._steps = tuple(Steps(level, most[level]) for level in range(1, len(STEPS)))
        self._tiers: tuple[Samples | Steps, ...] = (self._samples, *self._steps)

    def add(self, at: float, value: float) -> None:
        """Keep a sample."""
        self.count += 1
        if at >= self.last_at:
            self.last_at, self.last_value = at, value
        self._samples.add(at, value)
        bucket = sketch.bucket(value)
        for steps in self._steps:
            steps.add(at, value, bucket)

    @property
    def floors(self) -> tuple[float, ...]:
        """See ``Source``."""
        return tuple(tier.floor for tier in self._tiers)

    def extent(self, level: int) -> tuple[float, float] | None:
        """See ``Source``."""
        at = self._tiers[level].at
        return (at[0], at[-1]) if at else None

    def rows(self, span: Span) -> Iterable[Row]:
        """See ``Source``."""
        return self._tiers[span.level].rows(span.start, span.end)

    def drop_before(self, cutoffs: Sequence[float]) -> int:
        """Drop what is older than its tier keeps; return how many rows there were."""
        return sum(tier.drop_before(cutoff) for tier, cutoff in zip(self._tiers, cutoffs, strict=True))

    @property
    def empty(self) -> bool:
        """Nothing is left of it."""
        return not any(tier.at for tier in self._tiers)
