"""Summaries: count, sum, and quantiles of the last five to ten minutes from sketches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import inf, nan
from time import monotonic
from typing import NamedTuple

from prometheus_client.samples import Sample

from noobly.core.errors import InvalidArgument
from noobly.core.lines import Chunk, Extra, Head, Line, label_text, number, start_of
from noobly.core.series import Family, Series, Source
from noobly.measuring.sketch import Counts, bucket, merge, quantile

WINDOW_SECONDS = 300.0
"""Quantiles are of the current window and the one before, so of five to ten minutes."""


_SKETCH = 100
"""How many plain series cost about as much as one with a sketch."""


def check_quantiles(quantiles: Sequence[float], name: str) -> tuple[float, ...]:
    """Return the quantiles of a summary.

    Raises:
        InvalidArgument: They are not ascending numbers from 0 to 1.
    """
    shares = tuple(float(share) for share in quantiles)
    ascending = all(low < high for low, high in pairwise(shares))
    if not ascending or not all(0 <= share <= 1 for share in shares):
        raise InvalidArgument(f"the quantiles of {name} must be ascending numbers from 0 to 1, not {quantiles!r}")
    return shares


class SummarySeries(Series):
    """One series of a summary."""

    __slots__ = ("_began", "_earlier", "_sketched", "_window", "count", "total")

    def __init__(self, values: tuple[str, ...], *, sketched: bool) -> None:
        super().__init__(values)
        self.count = 0
        self.total = 0.0
        self._sketched = sketched
        self._window: Counts = {}
        self._earlier: Counts = {}
        self._began = monotonic()

    def observe(self, value: float) -> None:
        """Count one value.

        Raises:
            InvalidArgument: It is NaN or infinite, which would spoil the sum for ever.
        """
        if not -inf < value < inf:
            raise InvalidArgument(f"a summary counts finite values, not {value}")
        self.count += 1
        self.total += value
        if self._sketched:
            self._turn()
            place = bucket(value)
            window = self._window
            window[place] = window.get(place, 0) + 1

    def sketch(self) -> Counts:
        """Return the distribution of the last minutes."""
        self._turn()
        both = dict(self._earlier)
        merge(both, dict(self._window))
        return both

    def _turn(self) -> None:
        now = monotonic()
        if now - self._began >= WINDOW_SECONDS:
            fresh = now - self._began < 2 * WINDOW_SECONDS
            self._earlier, self._window, self._began = self._window if fresh else {}, {}, now


class Summaries(Family[SummarySeries]):
    """A summary's family.

    Args:
        head: What it says of itself.
        cap: The most series.
        quantiles: Shares between 0 and 1 that are shown.
    """

    def __init__(self, head: Head, cap: int, quantiles: tuple[float, ...]) -> None:
        super().__init__(head, cap)
        self.quantiles = quantiles

    def __str__(self) -> str:
        return f"{super().__str__()} and the quantiles {', '.join(map(number, self.quantiles)) or 'none'}"

    def same_as(self, other: Source) -> bool:
        """Return whether both were declared alike, with the same quantiles."""
        return isinstance(other, Summaries) and super().same_as(other) and self.quantiles == other.quantiles

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Yield the series so many at a time; fewer where each has a sketch to be copied."""
        return super().chunks(max(1, size // _SKETCH) if self.quantiles else size)

    def _make(self, values: tuple[str, ...]) -> SummarySeries:
        return SummarySeries(values, sketched=bool(self.quantiles))

    def _capture(self, series: Sequence[SummarySeries]) -> Chunk:
        return _Summed(self, [_Sum(one.values, one.count, one.total, self._sketch(one)) for one in series])

    def _sketch(self, series: SummarySeries) -> Counts:
        return series.sketch() if self.quantiles else {}

    def _samples(self, series: SummarySeries) -> Iterable[Sample]:
        name, labels = self.head.name, self._named(series)
        for share, value in self.shares(self._sketch(series)):
            yield Sample(name, {**labels, "quantile": share}, value)
        yield Sample(f"{name}_count", labels, float(series.count))
        yield Sample(f"{name}_sum", labels, series.total)

    def shares(self, sketch: Counts) -> Iterator[tuple[str, float]]:
        """Yield the quantiles with their values, which are NaN while there are none."""
        for share in self.quantiles:
            value = quantile(sketch, share)
            yield number(share), nan if value is None else value


class _Sum(NamedTuple):
    values: tuple[str, ...]
    observed: int
    total: float
    sketch: Counts


class _Summed(NamedTuple):
    family: Summaries
    rows: list[_Sum]

    def lines(self, extras: dict[str, Extra]) -> list[Line]:
        return [line for row in self.rows for line in self._lines(row)]

    def _lines(self, row: _Sum) -> Iterator[Line]:
        head = self.family.head
        for share, value in self.family.shares(row.sketch):
            yield start_of(head.name, label_text((*head.labels, "quantile"), (*row.values, share))), value
        labels = label_text(head.labels, row.values)
        yield start_of(f"{head.name}_count", labels), float(row.observed)
        yield start_of(f"{head.name}_sum", labels), row.total
