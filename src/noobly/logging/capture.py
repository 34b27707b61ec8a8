"""Records of the standard library's ``logging`` and of structlog, taken in with all that belongs to them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn, cast

from noobly.core.correlation import current
from noobly.core.journal import INSIDE, Said
from noobly.logging.assembly import Source
from noobly.logging.formats import severity
from noobly.logging.levels import from_stdlib, to_stdlib
from noobly.logging.pipeline import WRITING, Pipeline
from noobly.logging.plain import shown
from noobly.logging.record import Level

_OWN = "noobly."
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every LogRecord has; anything else came with ``extra``."""
_ALIASES = {"warning": "warn", "critical": "fatal", "exception": "error", "msg": "info", "notset": "trace"}

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class Handler(logging.Handler):
    """Gives LogRecords to a pipeline: message, ``extra``, exception and stack."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self._pipeline = pipeline

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record in; never raises."""
        if WRITING.get() or (record.levelno < logging.WARNING and INSIDE.get() and not record.name.startswith(_OWN)):
            return
        try:
            self._put(record)
        except Exception:  # noqa: BLE001 - as in ``Pipeline.put``; ``extra`` may hold anything
            self.handleError(record)

    def _put(self, record: logging.LogRecord) -> None:
        level = from_stdlib(record.levelno)
        attributes = {name: value for name, value in vars(record).items() if name not in _USUAL}
        if isinstance(record.msg, Said):
            attributes |= record.msg.fields
        service = instance = ""
        if record.name.startswith(_OWN):
            service, instance = str(attributes.pop("service", "")), str(attributes.pop("instance", ""))
        source = self._pipeline.levels.source(record.name, service, instance)
        if source.threshold > level:
            _hold(self._pipeline, level, lambda: _message(record), attributes, source, record.created)
            return
        if record.stack_info:
            attributes["stack"] = record.stack_info
        error = record.exc_info[1] if record.exc_info else None
        if error is None and record.exc_text:
            attributes["exception"] = record.exc_text
        self._pipeline.put(level, _message(record), attributes, source, error, record.created)


def _hold(
    pipeline: Pipeline,
    level: int,
    message: Callable[[], str],
    attributes: dict[str, object],
    source: Source,
    at: float | None = None,
) -> None:
    """Keep a DEBUG record that is below the level for the case that its request fails."""
    ring = current().ring
    if ring is not None and level == Level.DEBUG:
        pipeline.hold(ring, level, message(), attributes, source, at)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.msg.event if isinstance(record.msg, Said) else record.getMessage()
    except Exception:  # noqa: BLE001 - a template and arguments that do not fit, or an argument that cannot be shown
        return f"{shown(record.msg)} {shown(record.args)}"


@contextmanager
def capturing(pipeline: Pipeline) -> Iterator[None]:
    """Give what the standard library's ``logging`` gets to a pipeline for the body; see ``LogsSugar.captured``."""
    root, handler = logging.getLogger(), Handler(pipeline)
    level, alone = root.level, not root.handlers
    last = _LastResort()
    if alone:
        root.setLevel(to_stdlib(pipeline.levels.of("")))
        root.addHandler(last)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.removeHandler(last)
        if alone:
            root.setLevel(level)


class _LastResort(logging.Handler):
    """Does what ``logging`` does where nobody configured it, for now somebody seems to have."""

    def emit(self, record: logging.LogRecord) -> None:
        there = logging.getLogger().handlers
        alone = all(isinstance(handler, Handler | _LastResort) for handler in there)
        if alone and logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)


class StructlogSink:
    """The last processor of a structlog chain: what it gets becomes a record, and nothing is written twice.

    Args:
        pipeline: Where records go; ``Logs.structlog`` makes one.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def __call__(self, logger: object, method: str, event: MutableMapping[str, object]) -> NoReturn:
        """Take an event in.

        Raises:
            DropEvent: Always: nothing is left for structlog to do.
        """
        attributes = dict(event)
        message = attributes.pop("event", "")
        level = severity(_ALIASES.get(method, method))
        attributes.pop("level", None)
        name = str(attributes.pop("logger", "") or getattr(logger, "name", "") or "")
        source = self._pipeline.levels.source(name)
        if source.threshold <= level:
            error = _error(attributes.pop("exc_info", None))
            self._pipeline.put(level, cast(str, message), attributes, source, error)
        else:
            _hold(self._pipeline, level, lambda: shown(message), attributes, source)
        # Whoever calls this has it loaded; nobody else shall pay for it.
        from structlog import DropEvent

        raise DropEvent


def _error(info: object) -> BaseException | None:
    """Return the exception that structlog's ``exc_info`` means: itself, a triple, or True for the one being handled."""
    if isinstance(info, BaseException):
        return info
    if isinstance(info, tuple):
        return cast(_ExcInfo, info)[1]
    return sys.exc_info()[1] if info else None
