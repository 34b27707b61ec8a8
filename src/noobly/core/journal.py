"""What the suite itself has to say: structlog over the standard library's ``logging``, the one way for all of it.

Fields travel beside the text, so that ``noobly.logging`` keeps them apart, and any handler of a user's own shows both.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import cast

import structlog

INSIDE: ContextVar[bool] = ContextVar("noobly_inside", default=False)
"""Whether a client of the suite itself is at work: what its library reports of each call is no news for users."""

_PASSED = ("exc_info", "stack_info", "stacklevel")


class Said:
    """The message of a log record: an event's name and its fields; as text, ``name key='value' …``."""

    __slots__ = ("event", "fields")

    def __init__(self, event: str, fields: Mapping[str, object]) -> None:
        self.event = event
        self.fields = MappingProxyType(fields)

    def __str__(self) -> str:
        return " ".join([self.event, *(f"{name}={value!r}" for name, value in self.fields.items())])


def journal(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger for one part of the suite: ``journal("noobly.server").warning("cut off", grace=3)``."""
    made = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, _said],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return cast(structlog.stdlib.BoundLogger, made)


def _said(logger: object, method: str, event: MutableMapping[str, object]) -> tuple[tuple[Said], dict[str, object]]:
    passed = {name: event.pop(name) for name in _PASSED if name in event}
    return (Said(str(event.pop("event", "")), dict(event)),), passed
