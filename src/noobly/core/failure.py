"""What is kept of an exception: text that every store and every log can carry, whatever the exception is."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

from noobly.core.errors import InvalidArgument

LONGEST = 4000
"""Characters kept of an error, and of a traceback."""

_LONGEST_PAUSE = 1e7
_HERE = str(Path(__file__).parent.parent)


def storable(text: str) -> str:
    """Return a text without lone surrogates, which UTF-8 cannot carry; they become escapes."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def error_text(error: BaseException) -> str:
    """Return an exception's class and text, ``LONGEST`` characters at most; nothing is raised."""
    name = error.code if isinstance(error, InvalidArgument) else type(error).__name__
    try:
        text = error.message if isinstance(error, InvalidArgument) else str(error)
    except BaseException:  # noqa: BLE001 - an exception's text is anybody's code
        return storable(f"{name}, whose text cannot be had")[:LONGEST]
    return storable(f"{name}: {text[:LONGEST]}")[:LONGEST]


def cause(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return an exception as ``logging`` takes it, without the suite's own calls before a handler's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return type(error), error, trace or error.__traceback__


def trace_text(error: BaseException) -> str:
    """Return the last ``LONGEST`` characters of an exception's traceback; nothing is raised."""
    try:
        return storable("".join(traceback.format_exception(*cause(error))).rstrip()[-LONGEST:])
    except BaseException:  # noqa: BLE001 - as above
        return error_text(error)


def wanted_pause(error: BaseException) -> float:
    """Return the seconds of an exception's ``retry_after``; 0 where it has none, or one that is no length of time."""
    after = getattr(error, "retry_after", None)
    return float(after) if isinstance(after, int | float) and 0 < after < _LONGEST_PAUSE else 0.0
