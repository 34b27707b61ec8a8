"""Any object as what JSON carries, within bounds; nothing here raises, whatever an object does."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from uuid import UUID

import msgspec

LONGEST = 8 * 1024
"""Characters of a text."""
MOST = 100
"""Members of a list or an object."""
DEEPEST = 8
"""Levels of nesting."""
PLAIN = frozenset((str, int, float, bool, type(None)))
"""The types that nobody can change after a log call, and JSON carries as they are."""

_AS_TEXT = (date, datetime, time, timedelta, Decimal, UUID, PurePath)


def decoded(text: str) -> str:
    r"""Return a text that UTF-8 can carry: a lone surrogate is shown as ``\udc80``."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shown(value: object) -> str:
    """Return a short text for any object."""
    try:
        if isinstance(value, str):
            return str(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value[: 2 * LONGEST]).decode("utf-8", "backslashreplace")
        if isinstance(value, BaseException):
            return f"{type(value).__name__}: {value}"
        return str(value) if isinstance(value, _AS_TEXT) else repr(value)
    except Exception:  # noqa: BLE001 - an object may do anything when it is shown, and logging must go on
        return f"[{type(value).__name__} that cannot be shown]"


def parts(value: object) -> object:
    """Return an object's members as a dict or list of the originals, its plain value, or a text."""
    try:
        return _parts(value)
    except Exception:  # noqa: BLE001 - as above: it may be of any class, or change while it is read
        return f"[{type(value).__name__} that cannot be read]"


def _parts(value: object) -> object:
    if isinstance(value, Enum):
        return value.value if type(value.value) in PLAIN else value.name
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple | AbstractSet | deque):
        return list(value)
    if isinstance(value, bool | int | float):
        return float(value) if isinstance(value, float) else int(value)
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.repr}
    return shown(value)
