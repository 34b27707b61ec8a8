"""Time and chance, passed in so that tests decide both."""

from __future__ import annotations

import os
import random
import time
from datetime import timedelta
from typing import Protocol

from noobly.core.errors import InvalidArgument

Seconds = float | timedelta
"""A length of time in the public API: seconds as a number, or a ``timedelta``."""


class Clock(Protocol):
    """Where the suite reads the time."""

    def time(self) -> float:
        """Return seconds since the epoch; may step when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary point; never goes back."""
        ...


class SystemClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


class Chance(Protocol):
    """Where the suite draws random numbers for jitter and spread."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...


def system_chance() -> Chance:
    """Return the default source of random numbers for jitter, seeded by the system."""
    return random.Random()  # noqa: S311 - spreads load; never used for secrets


_DRAWN = 64
_ids: list[str] = []
# A child of fork would give out what its parent does.
os.register_at_fork(after_in_child=_ids.clear)


def fresh_id() -> str:
    """Return 128 random bits of the system's as 32 hexadecimal digits, for tokens and ids."""
    try:
        return _ids.pop()
    except IndexError:
        drawn = os.urandom(16 * _DRAWN).hex()
        _ids.extend(drawn[at : at + 32] for at in range(32, len(drawn), 32))
        return drawn[:32]


def seconds(value: Seconds | None, name: str) -> float | None:
    """Return a length of time as float seconds.

    Args:
        value: Seconds or a timedelta; None stays None.
        name: The argument's name, for the message.

    Raises:
        InvalidArgument: It is not a number, not finite, or not greater than zero.
    """
    if value is None:
        return None
    if (type(value) is int or type(value) is float) and 0 < value < 1e10:
        return float(value)
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InvalidArgument(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    if not 0 < number < 1e10:
        raise InvalidArgument(f"{name} must be more than 0 and less than 1e10 seconds, not {number}")
    return float(number)


def pause(value: Seconds | None, name: str) -> float:
    """Return a length of time that may be none at all as float seconds; None is 0.

    Args:
        value: Seconds or a timedelta, 0 included.
        name: The argument's name, for the message.

    Raises:
        InvalidArgument: It is not a number, not finite, or less than zero.
    """
    if type(value) is float and value == 0.0:  # Most are, and each message and job comes by here.
        return 0.0
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, int | float) and not isinstance(number, bool) and number == 0:
        return 0.0
    return seconds(number, name) or 0.0
