"""Checks that a declaration attaches to an argument's type: ``Key = Annotated[str, Text(1, 1024)]``.

They run in the validate layer, before any I/O, and are the same on every provider.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from noobly.core.errors import InvalidArgument, NooblyError, TooLarge

Checked = Callable[[object], None]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider can hold.

    Args:
        value_bytes: The longest value, in bytes.
        lease: The longest lease, in seconds, where there are leases.
    """

    value_bytes: int = 64 * 1024 * 1024
    lease: float = 43_200.0


class Check(Protocol):
    """A rule for one argument; compiled once per operation."""

    def compile(self, name: str, limits: Limits) -> Checked:
        """Return a function that raises InvalidArgument or TooLarge for a bad value."""
        ...


class Text(msgspec.Struct, frozen=True):
    """Text of ``shortest`` to ``longest`` characters that UTF-8 can carry."""

    shortest: int
    longest: int

    def compile(self, name: str, limits: Limits) -> Checked:
        """Return the compiled check."""
        shortest, longest = self.shortest, self.longest

        def check(value: object) -> None:
            if type(value) is str and shortest <= len(value) <= longest and value.isascii():
                return
            _refuse_text(name, value, shortest, longest)

        return check


def _refuse_text(name: str, value: object, shortest: int, longest: int) -> None:
    if not isinstance(value, str):
        raise InvalidArgument(f"{name} must be text, not {type(value).__name__}")
    if not shortest <= len(value) <= longest:
        raise InvalidArgument(f"{name} must have {shortest} to {longest} characters, not {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{name} holds a lone surrogate at {error.start}, which is not Unicode text") from error


class Payload(msgspec.Struct, frozen=True):
    """Bytes no longer than the provider's limit."""

    def compile(self, name: str, limits: Limits) -> Checked:
        """Return the compiled check."""
        longest = limits.value_bytes

        def check(value: object) -> None:
            if not isinstance(value, bytes):
                raise InvalidArgument(f"{name} must be bytes, not {type(value).__name__}")
            if len(value) > longest:
                raise TooLarge(f"{name} has {len(value)} bytes; this provider takes {longest} at most")

        return check


class Maybe(msgspec.Struct, frozen=True):
    """None, or a value that passes ``each``."""

    each: Check

    def compile(self, name: str, limits: Limits) -> Checked:
        """Return the compiled check."""
        each = self.each.compile(name, limits)

        def check(value: object) -> None:
            if value is not None:
                each(value)

        return check


def whole(number: object, name: str, least: int, most: int, *, error: type[NooblyError] = InvalidArgument) -> int:
    """Return a whole number from ``least`` to ``most``; booleans do not count.

    Raises:
        NooblyError: It is none, or out of bounds; of the type ``error``.
    """
    if type(number) is int and least <= number <= most:
        return number
    raise error(f"{name} must be a whole number of {least:,} to {most:,}, not {number!r:.100}")


class Whole(msgspec.Struct, frozen=True):
    """A whole number from ``least`` to ``most``; booleans do not count."""

    least: int
    most: int

    def compile(self, name: str, limits: Limits) -> Checked:
        """Return the compiled check."""
        least, most = self.least, self.most

        def check(value: object) -> None:
            whole(value, name, least, most)

        return check


class Many(msgspec.Struct, frozen=True):
    """A list or tuple of at most ``most`` values, each passing ``each``."""

    each: Check
    most: int = 10_000

    def compile(self, name: str, limits: Limits) -> Checked:
        """Return the compiled check."""
        most, each = self.most, self.each.compile(name, limits)

        def check(value: object) -> None:
            if not isinstance(value, list | tuple) or len(value) > most:
                raise _no_such_list(name, value, most)
            for member in value:
                each(member)

        return check


class Few(msgspec.Struct, frozen=True):
    """A list or tuple of at most ``most`` members, whatever they are."""

    most: int

    def compile(self, name: str, limits: Limits) -> Checked:
        """Return the compiled check."""
        most = self.most

        def check(value: object) -> None:
            if not isinstance(value, list | tuple) or len(value) > most:
                raise _no_such_list(name, value, most)

        return check


def _no_such_list(name: str, value: object, most: int) -> NooblyError:
    if not isinstance(value, list | tuple):
        return InvalidArgument(f"{name} must be a list, not {type(value).__name__}")
    return TooLarge(f"{name} has {len(value)} members; {most} is the most in one call")


class Pairs(msgspec.Struct, frozen=True):
    """A list of ``(first, second)`` pairs, each part passing its own check."""

    first: Check
    second: Check
    most: int = 10_000

    def compile(self, name: str, limits: Limits) -> Checked:
        """Return the compiled check."""
        most = self.most
        first, second = self.first.compile(name, limits), self.second.compile(name, limits)

        def check(value: object) -> None:
            if not isinstance(value, list):
                raise InvalidArgument(f"{name} must be a list of pairs, not {type(value).__name__}")
            if len(value) > most:
                raise TooLarge(f"{name} has {len(value)} members; {most} is the most in one call")
            for left, right in value:
                first(left)
                second(right)

        return check
