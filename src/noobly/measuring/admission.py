"""Which series exist: names and labels are checked once per series, and there are never too many series."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping

from noobly.core.errors import InvalidArgument
from noobly.core.meter import Rows
from noobly.core.scope import Scope
from noobly.measuring.driver import SeriesInfo
from noobly.measuring.events import Overflowed
from noobly.measuring.options import MetricOptions

Labels = tuple[tuple[str, str], ...]
"""Label values by name, sorted by name."""

OVERFLOW: Labels = (("overflow", "true"),)
"""The labels of the series that stands for all series past a cap."""

OTHER = "noobly_overflow"
"""The metric that stands for all metrics past the cap of all series together."""

_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,99}")
_CHARACTERS = 256
_MOST_LABELS = 16
_HELP = "Samples kept as overflow because a metric has too many series."
_NONE: Mapping[str, str] = {}

_log = logging.getLogger("noobly.measuring")


class Admission:
    """Says into which series a sample goes. Series past a cap share one per metric, so that no sample is dropped.

    Attributes:
        crowded: Some series did not fit since the last ``renew``.
    """

    def __init__(self, scope: Scope, options: MetricOptions) -> None:
        self._scope = scope
        self._options = options
        self._known: dict[object, tuple[str, Labels]] = {}
        self._metrics: dict[str, set[Labels]] = {}
        self._count = 0
        self._overflowed: dict[str, int] = {}
        self.crowded = False
        where = ("instance", "metric")
        self.close = scope.environment.meter.tallies("noobly_measuring_overflow_samples", _HELP, where, self._rows)

    def admit(self, name: str, labels: Mapping[str, str] | None) -> tuple[str, Labels]:
        """Return the series for a name and labels.

        Raises:
            InvalidArgument: The name, a label or its value cannot be one.
        """
        key: object = None
        try:
            key = (name, *labels.items()) if labels else name
            found = self._known.get(key)
        except (AttributeError, TypeError):
            found = None  # They are no labels, which the check below says better.
        if found is not None:
            return found
        wanted = check_name(name), check_labels(labels)
        placed = self._place(*wanted)
        # Only series as they were asked for: overflowing ones have no end, and each sample of them is counted.
        if placed == wanted and len(self._known) < 4 * self._options.max_series:
            self._known[key] = placed
        return placed

    def renew(self, series: Iterable[SeriesInfo]) -> None:
        """Take what the store has for what there is: at first, and after it has forgotten some."""
        self.crowded = False
        self._known.clear()
        self._metrics.clear()
        for one in series:
            self._metrics.setdefault(one.name, set()).add(tuple(sorted(one.labels.items())))
        self._count = sum(map(len, self._metrics.values()))

    def _place(self, name: str, labels: Labels) -> tuple[str, Labels]:
        series = self._metrics.get(name, set())
        if labels in series:
            return name, labels
        full = self._count >= self._options.max_series
        if not full and len(series) < self._options.series_per_metric:
            return self._add(name, labels)
        kept = name if series else OTHER
        self._overflow(kept)
        return self._add(kept, OVERFLOW)

    def _add(self, name: str, labels: Labels) -> tuple[str, Labels]:
        series = self._metrics.setdefault(name, set())
        self._count += labels not in series
        series.add(labels)
        return name, labels

    def _overflow(self, name: str) -> None:
        self.crowded = True
        first = name not in self._overflowed
        self._overflowed[name] = self._overflowed.get(name, 0) + 1
        if not first:
            return
        label = _busiest(self._metrics.get(name, set()))
        advice = f"the label {label!r} has the most values" if label else "there are too many names"
        _log.warning(
            'samples of %s go to {overflow="true"}: %s; the caps are %d series of a metric and %d in all',
            name,
            advice,
            self._options.series_per_metric,
            self._options.max_series,
        )
        scope = self._scope
        scope.environment.bus.emit(Overflowed(scope.service, scope.instance, name, label))

    def _rows(self) -> Rows:
        for name, count in list(self._overflowed.items()):
            yield (self._scope.instance, name), count


def _busiest(series: Iterable[Labels]) -> str:
    values: dict[str, set[str]] = {}
    for labels in series:
        for name, value in labels:
            values.setdefault(name, set()).add(value)
    return max(values, key=lambda name: len(values[name]), default="")


def check_name(name: object) -> str:
    """Return the name of a metric: any text of 1 to 256 characters that is not blank.

    Prometheus allows less, but such names are not exposed there: samples are only asked for by their name.

    Raises:
        InvalidArgument: It is not one.
    """
    text = _text(name, "the name of a metric")
    if not text.strip():
        raise InvalidArgument("the name of a metric must not be blank")
    return text


def check_labels(labels: object) -> Labels:
    """Return labels sorted by name; an empty value is the same as no label, as in Prometheus.

    Raises:
        InvalidArgument: A name is not of letters, digits and underscores or is reserved, a value is not text of up to
            256 characters, or there are more than 16.
    """
    given = _NONE if labels is None else labels
    if not isinstance(given, Mapping):
        raise InvalidArgument(f"labels must be a mapping of names to values, not {type(given).__name__}")
    if len(given) > _MOST_LABELS:
        raise InvalidArgument(f"a sample has at most {_MOST_LABELS} labels, not {len(given)}")
    for name, value in given.items():
        if not isinstance(name, str) or not _LABEL.fullmatch(name):
            raise InvalidArgument(f"the label {name!r:.99} must be letters, digits and underscores, up to 100 of them")
        _text(value, f"the label {name}")
    return tuple(sorted((name, value) for name, value in given.items() if value))


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} must be text, not {type(value).__name__}")
    if len(value) > _CHARACTERS:
        raise InvalidArgument(f"{what} must have at most {_CHARACTERS} characters, not {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{what} holds a lone surrogate, which is not Unicode text") from error
    return value
