"""What the suite itself has to say: the standard library's ``logging`` with fields, the one way for all of it.

Fields travel beside the text, so that ``noobly.logging`` keeps them apart, and any handler of a user's own shows both.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

__all__ = ["INSIDE", "Journal", "Said"]

INSIDE: ContextVar[bool] = ContextVar("noobly_inside", default=False)
"""Whether a client of the suite itself is at work: what its library reports of each call is no news for users."""

_CALLER = 3
"""Frames from a record's maker to whoever has something to say."""


class Said:
    """The message of a log record: an event's name and its fields; as text, ``name key='value' …``."""

    __slots__ = ("event", "fields")

    def __init__(self, event: str, fields: Mapping[str, object]) -> None:
        self.event = event
        self.fields = MappingProxyType(fields)

    def __str__(self) -> str:
        return " ".join([self.event, *(f"{name}={value!r}" for name, value in self.fields.items())])


class Journal:
    """The logger of one part of the suite: ``Journal("noobly.server").warning("cut off", grace=3)``.

    structlog would do as well, and costs each program that imports the suite a third of its start.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, /, *, cause: BaseException | None = None, **fields: object) -> None:
        """Say what only somebody who looks for a fault wants to know."""
        self._say(logging.DEBUG, event, cause, fields)

    def info(self, event: str, /, *, cause: BaseException | None = None, **fields: object) -> None:
        """Say what happened."""
        self._say(logging.INFO, event, cause, fields)

    def warning(self, event: str, /, *, cause: BaseException | None = None, **fields: object) -> None:
        """Say what somebody should look at; the cause's traceback comes along."""
        self._say(logging.WARNING, event, cause, fields)

    def error(self, event: str, /, *, cause: BaseException | None = None, **fields: object) -> None:
        """Say what has failed; the cause's traceback comes along."""
        self._say(logging.ERROR, event, cause, fields)

    def _say(self, level: int, event: str, cause: BaseException | None, fields: Mapping[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, Said(event, fields), exc_info=cause, stacklevel=_CALLER)
