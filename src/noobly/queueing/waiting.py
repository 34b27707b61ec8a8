"""How long and how many: the arguments of receiving."""

from __future__ import annotations

from noobly.core.backoff import jittered
from noobly.core.clock import Chance, Seconds, pause, seconds
from noobly.core.errors import InvalidArgument
from noobly.queueing.options import QueueOptions

LONGEST_WAIT = 20.0
"""Seconds that one call over HTTP may wait."""


def waited(wait: Seconds | None, longest: float = 1e10) -> float:
    """Return the seconds to wait; 0 for None and 0.

    Raises:
        InvalidArgument: It is no length of time, or too long.
    """
    found = pause(wait, "wait")
    if found > longest:
        raise InvalidArgument(f"wait must be at most {longest:g} seconds, not {found:g}")
    return found


def leased_for(lease: Seconds | None, options: QueueOptions) -> float:
    """Return the seconds of a lease; those of the options by default.

    Raises:
        InvalidArgument: It is not 0.01 seconds to 12 hours.
    """
    if lease is None:
        return options.lease
    held = seconds(lease, "lease") or options.lease
    if not 0.01 <= held <= 43_200:
        raise InvalidArgument(f"lease must be 0.01 to 43,200 seconds, not {held:g}")
    return held


def pause_for(delay: Seconds | None, deliveries: int, options: QueueOptions, chance: Chance) -> float:
    """Return the seconds before a message that was given back is delivered again."""
    if delay is None:
        return jittered(deliveries, options.backoff, options.backoff_cap, chance)
    return pause(delay, "delay")


def count(number: int, name: str, least: int, most: int) -> int:
    """Return a whole number.

    Raises:
        InvalidArgument: It is none, or out of bounds.
    """
    if type(number) is not int or not least <= number <= most:
        raise InvalidArgument(f"{name} must be a whole number of {least} to {most}, not {number!r}")
    return number
