"""What was read lately: hits that are not counted yet, and small values that are copied instead of decoded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, cast

LONGEST = 1024
"""Bytes of the longest entry that is kept decoded, for a decoded value takes several times the room of its bytes."""

_PARTS = 8
"""Lists and dictionaries within a value up to which copying it is sure to cost less than decoding it."""

_FIRST, _AGAIN = 2, 8
"""Hits before a value is kept decoded, and before another is: what changes with every read is seldom kept."""

_KINDS = (dict, list)
_NOTHING = bytes(LONGEST + 1)
"""No entry that is kept: none has that length."""


class Container(Protocol):
    """A list or a dictionary."""

    def copy(self) -> Container:
        """Return another one with the same content."""
        ...

    def __setitem__(self, place: object, part: object, /) -> None:
        """Put something else in a place."""
        ...


class Recent:
    """A key that was hit lately.

    Attributes:
        hits: Hits that are not counted yet.
        data: The entry whose value this is.
        value: The value, where it cannot be changed.
        whole: The value, where it is a container: nobody else has it, and callers get copies.
        parts: The containers in it, by their place, of which callers get copies too.
    """

    __slots__ = ("_due", "data", "hits", "parts", "value", "whole")

    def __init__(self) -> None:
        self.hits = 0
        self._due = _FIRST
        self.data = _NOTHING
        self.value: object = None
        self.whole: Container | None = None
        self.parts: tuple[tuple[object, Container], ...] = ()

    def wants(self, data: bytes) -> bool:
        """Return whether this entry is worth to be kept decoded."""
        return self.hits >= self._due and len(data) <= LONGEST

    def keep(self, data: bytes, value: object) -> None:
        """Keep an entry's value, which nobody else has, unless copying it would cost more than decoding."""
        self._due = self.hits + _AGAIN
        parts = _containers(value)
        if len(parts) > _PARTS or any(_containers(part) for _, part in parts):
            return
        self.data, self.parts = data, parts
        self.value, self.whole = (None, cast(Container, value)) if isinstance(value, _KINDS) else (value, None)


def _containers(value: object) -> tuple[tuple[object, Container], ...]:
    if not isinstance(value, _KINDS):
        return ()
    places: Iterable[tuple[object, object]] = value.items() if isinstance(value, dict) else enumerate(value)
    return tuple((place, cast(Container, part)) for place, part in places if isinstance(part, _KINDS))


COLD = Recent()
"""Stands for a key that was not hit lately."""
