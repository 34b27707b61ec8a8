"""Log calls: plain functions that take next to no time and never raise."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from noobly.core.correlation import current
from noobly.logging.assembly import Source
from noobly.logging.pipeline import Pipeline

_NOTHING: Mapping[str, object] = {}


class Logger:
    """Writes records under one name: ``log.info("paid", order=7)``. A call never waits for the store, and never raises.

    Attributes are any JSON, or are shown as text; secrets among them are redacted. Once its ``Logs`` is closed, it does
    nothing.
    """

    _pipeline: Pipeline
    _source: Source
    _bound: Mapping[str, object] = _NOTHING

    def trace(self, message: str, /, **attributes: object) -> None:
        """Record the smallest steps."""
        if self._source.threshold <= 1:
            self._pipeline.put(1, message, self._all(attributes), self._source)

    def debug(self, message: str, /, **attributes: object) -> None:
        """Record what helps to find a fault; below the level, it is kept in case that its request fails."""
        source = self._source
        if source.threshold <= 5:
            self._pipeline.put(5, message, self._all(attributes), source)
        elif (ring := current().ring) is not None:
            self._pipeline.hold(ring, 5, message, self._all(attributes), source)

    def info(self, message: str, /, **attributes: object) -> None:
        """Record what happens as it should."""
        source = self._source
        if source.threshold <= 9:
            self._pipeline.put(9, message, {**self._bound, **attributes} if self._bound else attributes, source)

    def warn(self, message: str, /, **attributes: object) -> None:
        """Record what may become a fault."""
        if self._source.threshold <= 13:
            self._pipeline.put(13, message, self._all(attributes), self._source)

    def error(self, message: str, /, **attributes: object) -> None:
        """Record a fault; it is stored without delay, and never dropped or sampled."""
        if self._source.threshold <= 17:
            self._pipeline.put(17, message, self._all(attributes), self._source)

    def fatal(self, message: str, /, **attributes: object) -> None:
        """Record a fault after which the program cannot go on."""
        if self._source.threshold <= 21:
            self._pipeline.put(21, message, self._all(attributes), self._source)

    def exception(self, message: str, /, *, error: BaseException | None = None, **attributes: object) -> None:
        """Record an error together with an exception: the given one, or the one that is being handled."""
        if self._source.threshold <= 17:
            raised = error or sys.exc_info()[1]
            self._pipeline.put(17, message, self._all(attributes), self._source, raised)

    def bind(self, **attributes: object) -> Logger:
        """Return a logger that puts these attributes on each of its records."""
        return BoundLogger(self._pipeline, self._source, self._all(attributes))

    def named(self, name: str) -> Logger:
        """Return a logger with another name; dots make a hierarchy for ``set_level``."""
        return BoundLogger(self._pipeline, self._pipeline.levels.source(name), self._bound)

    def _all(self, attributes: dict[str, object]) -> dict[str, object]:
        return {**self._bound, **attributes} if self._bound else attributes


class BoundLogger(Logger):
    """A logger with a name or attributes of its own."""

    def __init__(self, pipeline: Pipeline, source: Source, bound: Mapping[str, object]) -> None:
        self._pipeline = pipeline
        self._source = source
        self._bound = bound
