"""Instruments: what a program counts and measures with, declared once, on the one registry of prometheus-client.

    orders = instruments.counter("shop_orders_total", "Orders taken.", labels=["country"])
    orders.inc(country="SE")
    swedish = orders.labels("SE")      # bound once, for the hot path
    swedish.inc()

Label names are fixed at the declaration, with a type each: text unless said otherwise, a whole number, a truth value,
or an enumeration, whose values are then the only ones.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from math import inf
from operator import itemgetter
from typing import Generic, TypeVar, cast

from opentelemetry.context import get_current

from noobly.core.errors import InvalidArgument
from noobly.core.lines import Chunk, Head, Merge, trace_of
from noobly.core.meter import BOUNDS, Meter
from noobly.core.series import Cell, Cells, Family, Number, Numbers, Series
from noobly.measuring.around import InProgress, Timing
from noobly.measuring.names import check_buckets, check_labels, check_name, clean_value
from noobly.measuring.summaries import Summaries, SummarySeries, check_quantiles

LabelValue = str | int | Enum
LabelTypes = Sequence[str] | Mapping[str, type[str] | type[int] | type[bool] | type[Enum]]
"""Label names, of which each takes text; or names with the type that each takes."""

S = TypeVar("S", bound=Series)

_log = logging.getLogger("noobly.metrics")


class Count(Number):
    """One series of a counter."""

    __slots__ = ()

    def inc(self, amount: float = 1.0) -> None:
        """Add to the count.

        Raises:
            InvalidArgument: The amount is negative, infinite or NaN: a counter only goes up.
        """
        if not 0 <= amount < inf:
            raise InvalidArgument(f"a counter goes up by a finite amount, not by {amount}; a gauge goes both ways")
        self.value += amount
        if get_current():
            self.trace = trace_of(amount) or self.trace


class Reading(Number):
    """One series of a gauge."""

    __slots__ = ("callback",)

    def __init__(self, values: tuple[str, ...], start: str) -> None:
        super().__init__(values, start)
        self.callback: Callable[[], float] | None = None

    def set(self, value: float) -> None:
        """Set the value."""
        self.value = float(value)

    def inc(self, amount: float = 1.0) -> None:
        """Add to the value."""
        self.value += amount

    def dec(self, amount: float = 1.0) -> None:
        """Take from the value."""
        self.value -= amount

    def in_progress(self) -> InProgress:
        """Return a context manager, also a decorator, during whose body the value is one higher."""
        return InProgress(self.inc, self.dec)

    def read(self) -> float:
        """Return the value, from the callback where there is one; what a callback raises is logged, and 0 said."""
        if self.callback is not None:
            try:
                self.value = float(self.callback())
            except Exception:  # noqa: BLE001 - a callback is anybody's code; it must not take all metrics with it
                _log.exception("the callback of the gauge %s failed", self.start.strip())
                self.value = float("nan")
        return self.value


class Stamped(Reading):
    """One series of a gauge of which the one set last counts, whichever process set it."""

    __slots__ = ()

    def set(self, value: float) -> None:
        """Set the value and remember when."""
        self.value = float(value)
        self.at = time.time()

    def inc(self, amount: float = 1.0) -> None:
        """Add to the value."""
        self.set(self.value + amount)

    def dec(self, amount: float = 1.0) -> None:
        """Take from the value."""
        self.set(self.value - amount)


class Readings(Numbers[Reading]):
    """A gauge's family, which asks the callbacks of its series before they are shown."""

    def _capture(self, series: Sequence[Reading]) -> Chunk:
        for one in series:
            one.read()
        return super()._capture(series)


class Instrument(Generic[S]):
    """One metric by its labels; the base of all kinds."""

    def __init__(self, family: Family[S], types: LabelTypes) -> None:
        self._family = family
        # By whatever is given: what is not all text is just not found, and then made into text.
        self._series = cast("dict[tuple[LabelValue, ...], S]", family.series)
        self._names = family.head.labels
        self._types = dict(types) if isinstance(types, Mapping) else dict.fromkeys(types, str)
        self._pick = itemgetter(*self._names) if self._names else None
        self._sole = None if self._names else family.one(())

    @property
    def name(self) -> str:
        """The metric's name; a counter's without ``_total``."""
        return self._family.head.name

    def labels(self, *values: LabelValue, **named: LabelValue) -> S:
        """Return the series with these label values, in the order of their declaration or by name.

        The series stays good, so bind it once where an update is hot. A value past 256 characters is cut.

        Raises:
            InvalidArgument: There are too few or many, a name is unknown, or a value has another type than declared.
        """
        if not named:
            found = self._series.get(values)
            if found is not None:
                return found
        return self._find(self._ordered(named) if named and not values else values)

    def _named(self, named: dict[str, LabelValue]) -> S:
        if not named:
            if self._sole is not None:
                return self._sole
            raise InvalidArgument(f"{self.name} needs values for the labels {', '.join(self._names)}")
        values = self._ordered(named)
        found = self._series.get(values)
        return self._find(values) if found is None else found

    def _ordered(self, named: dict[str, LabelValue]) -> tuple[LabelValue, ...]:
        if self._pick is None or len(named) != len(self._names):
            raise self._mismatch(named)
        try:
            picked = self._pick(named)
        except KeyError as error:
            raise self._mismatch(named) from error
        return picked if len(self._names) > 1 else (picked,)

    def _find(self, values: tuple[LabelValue, ...]) -> S:
        if len(values) != len(self._names):
            raise self._mismatch(values)
        return self._family.one(tuple(map(self._text, self._names, values)))

    def _text(self, name: str, value: LabelValue) -> str:
        wanted = self._types[name]
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise InvalidArgument(f"the label {name} of {self.name} takes {wanted.__name__}, not {value!r:.80}")
        if isinstance(value, bool):
            return "true" if value else "false"
        return clean_value(str(value.value if isinstance(value, Enum) else value))

    def _mismatch(self, given: object) -> InvalidArgument:
        names = ", ".join(self._names) or "none"
        said = ", ".join(map(str, given)) if isinstance(given, dict | tuple) else given
        return InvalidArgument(f"{self.name} takes exactly the labels {names}; given were {said or 'none'}")


class Counter(Instrument[Count]):
    """A number that only goes up, until the process ends."""

    def inc(self, amount: float = 1.0, /, **labels: LabelValue) -> None:
        """Add to the series with these labels.

        Raises:
            InvalidArgument: The amount is negative, infinite or NaN, or the labels are not the declared ones.
        """
        self._named(labels).inc(amount)


class Gauge(Instrument[Reading]):
    """A number that goes up and down."""

    def set(self, value: float, /, **labels: LabelValue) -> None:
        """Set the series with these labels."""
        self._named(labels).set(value)

    def inc(self, amount: float = 1.0, /, **labels: LabelValue) -> None:
        """Add to the series with these labels."""
        self._named(labels).inc(amount)

    def dec(self, amount: float = 1.0, /, **labels: LabelValue) -> None:
        """Take from the series with these labels."""
        self._named(labels).dec(amount)

    def in_progress(self, **labels: LabelValue) -> InProgress:
        """Return a context manager, also a decorator, during whose body the series is one higher."""
        return self._named(labels).in_progress()

    def callback(self, read: Callable[[], float], /, **labels: LabelValue) -> None:
        """Ask for the value of a series at each exposition, on the event loop; ``read`` must be quick."""
        self._named(labels).callback = read


class Histogram(Instrument[Cell]):
    """How values are distributed, counted in buckets that are fixed."""

    def observe(self, value: float, /, **labels: LabelValue) -> None:
        """Count a finite value in the series with these labels."""
        self._named(labels).add(value)

    def time(self, **labels: LabelValue) -> Timing:
        """Return a context manager, also a decorator for plain and async functions, that counts the seconds taken."""
        return Timing(self._named(labels).add)


class Timer(Histogram):
    """A histogram of seconds: ``with timer(source="db"): …`` or ``@timer(source="db")``."""

    def __call__(self, **labels: LabelValue) -> Timing:
        """Return a context manager, also a decorator for plain and async functions, that counts the seconds taken."""
        return self.time(**labels)


class Summary(Instrument[SummarySeries]):
    """How many values there were and their sum; with quantiles of the last minutes, where they were asked for.

    Quantiles cannot be added up over processes or instances; where that matters, use a histogram.
    """

    def observe(self, value: float, /, **labels: LabelValue) -> None:
        """Count a finite value in the series with these labels."""
        self._named(labels).observe(value)

    def time(self, **labels: LabelValue) -> Timing:
        """Return a context manager, also a decorator for plain and async functions, that counts the seconds taken."""
        return Timing(self._named(labels).observe)


class Instruments:
    """Declares instruments on the meter of an application; declaring one again alike gives the same series.

    Args:
        meter: Where they are kept and shown.
        cap: The most series of one instrument; the meter's own by default.
    """

    def __init__(self, meter: Meter, *, cap: int | None = None) -> None:
        self._meter = meter
        self._cap = meter.cap if cap is None else cap

    def counter(self, name: str, text: str, *, labels: LabelTypes = ()) -> Counter:
        """Declare a counter.

        Args:
            name: Its name, which ends with ``_total``; with a base unit before, such as ``_seconds`` or ``_bytes``.
            text: What it counts, in one sentence.
            labels: Its labels.

        Raises:
            InvalidArgument: A name is not one, or reserved.
            AlreadyExists: Another metric has the name.
        """
        head = _head(name, "counter", text, labels)
        return Counter(self._meter.declare(Numbers(head, self._cap, Count)), labels)

    def gauge(self, name: str, text: str, *, labels: LabelTypes = (), merge: Merge = Merge.SUM) -> Gauge:
        """Declare a gauge; ``merge`` says how the values of several worker processes become one. Raises as above."""
        head = _head(name, "gauge", text, labels, merge)
        kind = Stamped if merge is Merge.MOSTRECENT else Reading
        return Gauge(self._meter.declare(Readings(head, self._cap, kind)), labels)

    def histogram(
        self, name: str, text: str, *, labels: LabelTypes = (), buckets: Sequence[float] = BOUNDS
    ) -> Histogram:
        """Declare a histogram; ``buckets`` are ascending upper bounds. Raises as above."""
        return Histogram(self._cells(name, text, labels, buckets), labels)

    def timer(self, name: str, text: str, *, labels: LabelTypes = (), buckets: Sequence[float] = BOUNDS) -> Timer:
        """Declare a histogram of seconds, whose name ends with ``_seconds``. Raises as above."""
        if not name.endswith("_seconds"):
            raise InvalidArgument(f"the timer {name!r} must end with _seconds, the unit it counts")
        return Timer(self._cells(name, text, labels, buckets), labels)

    def summary(self, name: str, text: str, *, labels: LabelTypes = (), quantiles: Sequence[float] = ()) -> Summary:
        """Declare a summary; ``quantiles`` between 0 and 1 are shown besides count and sum. Raises as above."""
        head = _head(name, "summary", text, labels)
        family = Summaries(head, self._cap, check_quantiles(quantiles, name))
        return Summary(self._meter.declare(family), labels)

    def _cells(self, name: str, text: str, labels: LabelTypes, buckets: Sequence[float]) -> Cells:
        head = _head(name, "histogram", text, labels)
        return self._meter.declare(Cells(head, self._cap, check_buckets(buckets, name)))


def _head(name: str, kind: str, text: str, labels: LabelTypes, merge: Merge = Merge.SUM) -> Head:
    if not text.strip():
        raise InvalidArgument(f"the {kind} {name} needs a text that says what it measures")
    names = check_labels(labels if isinstance(labels, str) else tuple(labels), name, kind)
    return Head(name=check_name(name, kind), type=kind, text=text, labels=names, merge=merge)
