"""The levels of loggers: set at run time, inherited along dotted names, and the same for the standard library's."""

from __future__ import annotations

import logging

from noobly.logging.assembly import Source
from noobly.logging.plain import decoded
from noobly.logging.record import Level

_SILENT = 100
_STDLIB = {Level.TRACE: 5, Level.DEBUG: 10, Level.INFO: 20, Level.WARN: 30, Level.ERROR: 40, Level.FATAL: 50}


def to_stdlib(severity: int) -> int:
    """Return the level of the standard library's ``logging`` for a severity."""
    return _STDLIB[Level(severity)]


def from_stdlib(number: int) -> int:
    """Return the severity for a level of the standard library's ``logging``, which may be any number."""
    return max((own.value for own, theirs in _STDLIB.items() if theirs <= number), default=Level.TRACE.value)


class Levels:
    """Knows all loggers of one pipeline.

    Args:
        least: The least severity that is kept.
        service: The application's name.
        instance: Which of its processes this is; empty for none.
    """

    def __init__(self, least: int, service: str, instance: str = "") -> None:
        self._service = service
        self._instance = instance
        self._set: dict[str, int] = {"": least}
        self._sources: dict[tuple[str, str, str], Source] = {}

    def source(self, name: str, service: str = "", instance: str = "") -> Source:
        """Return the source of a logger's records; the same one each time."""
        key = (name, service or self._service, instance or self._instance)
        source = self._sources.get(key)
        if source is None:
            source = Source(decoded(name), decoded(key[1]), decoded(key[2]), self.of(name))
            source = self._sources.setdefault(key, source)
        return source

    def of(self, logger: str) -> int:
        """Return the least severity that a logger keeps."""
        while logger not in self._set:
            logger = logger.rpartition(".")[0]
        return self._set[logger]

    def change(self, severity: int, logger: str) -> None:
        """Set the least severity of a logger and of those below it; of all, where ``logger`` is empty."""
        self._set = {"": severity} if not logger else {**self._set, logger: severity}
        for source in list(self._sources.values()):
            source.threshold = self.of(source.name)
        logging.getLogger(logger or None).setLevel(to_stdlib(severity))

    def silence(self) -> None:
        """Let no logger keep anything any more."""
        self._set = {"": _SILENT}
        for source in list(self._sources.values()):
            source.threshold = _SILENT
