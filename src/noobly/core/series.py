"""Metric families and their series: fast cells that prometheus-client's registry collects, with their text made once.

A family is a collector of prometheus-client like any other. Besides it gives its series in bounded ``chunks``, which
the exposition takes on the event loop and writes out in a thread; a series knows its line's text up to the value.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

from opentelemetry.context import get_current
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from noobly.core.errors import InvalidArgument
from noobly.core.lines import (
    Chunk,
    Extra,
    Head,
    Line,
    Ready,
    Trace,
    escaped,
    exemplar_text,
    label_text,
    number,
    start_of,
    trace_of,
)

OVERFLOW = "other"
"""The label value that stands for all values past an instrument's cap."""

_MOST_FOLDED = 100
"""Series for what comes past the cap; what does not fit into these either is one series."""

_log = logging.getLogger("noobly.metrics")


class Series:
    """One series of a family.

    Updates are a few byte codes between which CPython under its global lock does not switch threads, so that they need
    no lock of their own.
    """

    __slots__ = ("values",)

    def __init__(self, values: tuple[str, ...]) -> None:
        self.values = values


class Number(Series):
    """A series that is one number."""

    __slots__ = ("at", "start", "trace", "value")

    def __init__(self, values: tuple[str, ...], start: str) -> None:
        super().__init__(values)
        self.value = 0.0
        self.start = start
        self.trace: Trace | None = None
        self.at = 0.0

    def read(self) -> float:
        """Return the value."""
        return self.value


UNMEASURED = 15
"""Calls after a measured one that count as others like it, where measuring would cost as much as the call."""


class Cell(Series):
    """A series of a histogram; the ``observe`` layer writes into ``counts`` and ``total`` directly.

    Attributes:
        unmeasured: How many more calls may go unmeasured; one that does takes one away. ``settle`` counts them.
    """

    __slots__ = ("_granted", "_like", "after", "before", "bounds", "counts", "total", "traces", "unmeasured")

    def __init__(self, values: tuple[str, ...], bounds: Sequence[float], before: str, after: str) -> None:
        super().__init__(values)
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.before, self.after = before, after
        self.traces: dict[int, Trace] = {}
        self.unmeasured = self._granted = 0
        self._like = (0, 0.0)

    def sample(self, value: float) -> None:
        """Count one finite value, which also stands for up to 15 calls from now."""
        self.settle()
        place = bisect_left(self.bounds, value)
        self.total += value
        self.counts[place] += 1
        self._like = (place, value)
        self.unmeasured = self._granted = UNMEASURED

    @property
    def count(self) -> int:
        """How many values it has counted."""
        self.settle()
        return sum(self.counts)

    def settle(self) -> None:
        """Count the calls that went unmeasured as others like the one before them."""
        calls, (place, value) = self._granted - self.unmeasured, self._like
        self._granted = self.unmeasured
        self.total += calls * value
        self.counts[place] += calls

    def add(self, value: float) -> None:
        """Count one finite value.

        Raises:
            InvalidArgument: It is NaN or infinite, which would spoil the sum for ever.
        """
        if not -inf < value < inf:
            raise InvalidArgument(f"a histogram counts finite values, not {value}")
        place = bisect_left(self.bounds, value)
        self.total += value
        self.counts[place] += 1
        if get_current():
            self.mark(value, place)

    observe = add

    def mark(self, value: float, place: int) -> None:
        """Keep the current trace, if it is sampled, as the exemplar of a bucket."""
        trace = trace_of(value)
        if trace is not None:
            self.traces[place] = trace


S = TypeVar("S", bound=Series)


class Source(Collector):
    """A collector that also gives its series in chunks.

    Args:
        head: What the family says of itself.
    """

    def __init__(self, head: Head) -> None:
        self.head = head

    @abstractmethod
    def chunks(self, size: int) -> Iterator[Chunk]:
        """Yield the series so many at a time, each part as it is when it is asked for."""

    def __str__(self) -> str:
        head = self.head
        labels = f"the labels {', '.join(head.labels)}" if head.labels else "no labels"
        merge = f", merged by {head.merge.value}" if head.type == "gauge" else ""
        return f"the {head.type} {head.name} ({head.text!r}) with {labels}{merge}"

    def same_as(self, other: Source) -> bool:
        """Return whether both were declared alike."""
        return type(self) is type(other) and self.head == other.head

    def describe(self) -> Iterable[Metric]:
        """Return the family without samples, from which a registry knows its names."""
        return [Metric(self.head.name, self.head.text, self.head.type, self.head.unit)]


class Family(Source, Generic[S]):
    """A metric with its series by label values, at most ``cap`` of them, and a few for all that come later.

    Of those the label that has the most values says ``other``, and the rest stays true.
    """

    def __init__(self, head: Head, cap: int) -> None:
        super().__init__(head)
        self.cap = cap
        self.series: dict[tuple[str, ...], S] = {}
        self._folded: dict[tuple[str, ...], S] = {}
        self._widest: int | None = None
        self._adding = Lock()

    @abstractmethod
    def _make(self, values: tuple[str, ...]) -> S:
        """Return a new series."""

    @abstractmethod
    def _capture(self, series: Sequence[S]) -> Chunk:
        """Return series as they are now; quick, for it runs on the event loop."""

    @abstractmethod
    def _samples(self, series: S) -> Iterable[Sample]:
        """Return one series as prometheus-client has it."""

    def one(self, values: tuple[str, ...]) -> S:
        """Return the series with these label values, which is made if it is new."""
        found = self.series.get(values)
        return self._add(values) if found is None else found

    def _add(self, values: tuple[str, ...]) -> S:
        with self._adding:
            if values in self.series:
                return self.series[values]
            if len(self.series) < self.cap:
                return self.series.setdefault(values, self._make(values))
            return self._fold(values)

    def _fold(self, values: tuple[str, ...]) -> S:
        if self._widest is None:
            self._widest = widest(self.series)
            self._warn(self.head.labels[self._widest])
        folded = (*values[: self._widest], OVERFLOW, *values[self._widest + 1 :])
        if folded not in self._folded and len(self._folded) >= _MOST_FOLDED:
            folded = tuple(OVERFLOW for _ in values)
        # A label may have been "other" all along.
        found = self.series.get(folded) or self._folded.get(folded)
        return self._folded.setdefault(folded, self._make(folded)) if found is None else found

    def _warn(self, label: str) -> None:
        _log.warning(
            "the metric %s has %d series, its most; further ones are counted as %r: the label %s has the most values",
            self.head.name,
            self.cap,
            OVERFLOW,
            label,
        )

    def all(self) -> list[S]:
        """Return all series, those of what came later last."""
        return [*self.series.values(), *self._folded.values()]

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Yield the series so many at a time, each part as it is when it is asked for."""
        everything = self.all()
        for begin in range(0, len(everything), size):
            yield self._capture(everything[begin : begin + size])

    def collect(self) -> Iterable[Metric]:
        """Return the family as prometheus-client asks for it."""
        metric = Metric(self.head.name, self.head.text, self.head.type, self.head.unit)
        for series in self.all():
            metric.samples.extend(self._samples(series))
        return [metric]

    def _named(self, series: S) -> dict[str, str]:
        return dict(zip(self.head.labels, series.values, strict=True))


def widest(series: Iterable[tuple[str, ...]]) -> int:
    """Return the place of the label with the most values."""
    counts = [len(set(column)) for column in zip(*series, strict=True)]
    return counts.index(max(counts)) if counts else 0


N = TypeVar("N", bound=Number)


class Numbers(Family[N]):
    """A counter's or gauge's family."""

    def __init__(self, head: Head, cap: int, kind: Callable[[tuple[str, ...], str], N]) -> None:
        super().__init__(head, cap)
        self._kind = kind
        self._name = f"{head.name}_total" if head.type == "counter" else head.name

    def _make(self, values: tuple[str, ...]) -> N:
        return self._kind(values, start_of(self._name, label_text(self.head.labels, values)))

    def _capture(self, series: Sequence[N]) -> Chunk:
        marked = [one for one in series if one.trace is not None or one.at]
        return Ready([(one.start, one.value) for one in series], {one.start: _extra(one) for one in marked})

    def _samples(self, series: N) -> Iterable[Sample]:
        exemplar = series.trace.as_exemplar() if series.trace else None
        return [Sample(self._name, self._named(series), series.read(), None, exemplar)]


def _extra(series: Number) -> Extra:
    return Extra(exemplar=exemplar_text(series.trace.as_exemplar()) if series.trace else "", at=series.at)


class _Counts(NamedTuple):
    cell: Cell
    counts: tuple[int, ...]
    total: float
    traces: dict[int, Trace]


class Cells(Family[Cell]):
    """A histogram's family; its bounds are fixed.

    Args:
        head: What it says of itself.
        cap: The most series.
        bounds: Upper bounds of the buckets, ascending, without infinity.
    """

    def __init__(self, head: Head, cap: int, bounds: Sequence[float]) -> None:
        super().__init__(head, cap)
        self.bounds = tuple(bounds)
        self._ends = [*map(number, self.bounds), "+Inf"]

    def __str__(self) -> str:
        return f"{super().__str__()} and the buckets {', '.join(map(number, self.bounds))}"

    def same_as(self, other: Source) -> bool:
        """Return whether both were declared alike, with the same buckets."""
        return isinstance(other, Cells) and super().same_as(other) and self.bounds == other.bounds

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Yield the series so many lines at a time."""
        return super().chunks(max(1, size // (len(self.bounds) + 3)))

    def _make(self, values: tuple[str, ...]) -> Cell:
        pairs = sorted(zip(self.head.labels, values, strict=True))
        before = "".join(f'{name}="{escaped(value)}",' for name, value in pairs if name < "le")
        after = "".join(f',{name}="{escaped(value)}"' for name, value in pairs if name > "le")
        return Cell(values, self.bounds, before, after)

    def _capture(self, series: Sequence[Cell]) -> Chunk:
        for one in series:
            one.settle()
        return _Histograms(
            self._lines, [_Counts(one, tuple(one.counts), one.total, dict(one.traces)) for one in series]
        )

    def _lines(self, row: _Counts, extras: dict[str, Extra]) -> Iterator[Line]:
        name, cell = self.head.name, row.cell
        running = list(accumulate(row.counts))
        for place, (end, count) in enumerate(zip(self._ends, running, strict=True)):
            start = f'{name}_bucket{{{cell.before}le="{end}"{cell.after}}} '
            if place in row.traces:
                extras[start] = Extra(exemplar=exemplar_text(row.traces[place].as_exemplar()))
            yield start, float(count)
        labels = cell.before[:-1] + cell.after if cell.before else cell.after[1:]
        yield start_of(f"{name}_count", labels), float(running[-1])
        yield start_of(f"{name}_sum", labels), row.total

    def _samples(self, series: Cell) -> Iterable[Sample]:
        series.settle()
        name, labels, running = self.head.name, self._named(series), list(accumulate(series.counts))
        for place, (end, count) in enumerate(zip(self._ends, running, strict=True)):
            trace = series.traces.get(place)
            exemplar = trace.as_exemplar() if trace else None
            yield Sample(f"{name}_bucket", {**labels, "le": end}, float(count), None, exemplar)
        yield Sample(f"{name}_count", labels, float(running[-1]))
        yield Sample(f"{name}_sum", labels, series.total)


class _Histograms(NamedTuple):
    write: Callable[[_Counts, dict[str, Extra]], Iterator[Line]]
    rows: list[_Counts]

    def lines(self, extras: dict[str, Extra]) -> list[Line]:
        return [line for row in self.rows for line in self.write(row, extras)]
