"""How long and how many: the arguments of receiving."""

from __future__ import annotations

from noobly.core.backoff import jittered
from noobly.core.clock import Chance, Seconds, pause, seconds
from noobly.core.errors import ConfigError, InvalidArgument
from noobly.core.operation import Driver
from noobly.queueing.options import QueueOptions

LONGEST_WAIT = 20.0
"""Seconds that one call over HTTP may wait."""
_LONGEST_LEASE = 43_200


def waited(wait: Seconds | None, longest: float = 1e10) -> float:
    """Return the seconds to wait; 0 for None and 0.

    Raises:
        InvalidArgument: It is no length of time, or too long.
    """
    found = pause(wait, "wait")
    if found > longest:
        raise InvalidArgument(f"wait must be at most {longest:g} seconds, not {found:g}")
    return found


class Leases:
    """Says how long a lease is: as long as a call asks for, else as the option says.

    Raises:
        ConfigError: The option is longer than the provider can hold a message.
    """

    def __init__(self, options: QueueOptions, driver: Driver) -> None:
        self._default, self._longest = options.lease, driver.limits.lease
        self._bound = f"{driver.scheme} holds a message for {self._longest:g} seconds at most"
        if self._default > self._longest:
            raise ConfigError(f"lease is {self._default:g} seconds, but {self._bound}; set a shorter lease")

    def of(self, lease: Seconds | None) -> float:
        """Return the seconds of a lease.

        Raises:
            InvalidArgument: It is not 0.01 seconds to 12 hours, or longer than the provider can hold a message.
        """
        if lease is None:
            return self._default
        held = seconds(lease, "lease") or self._default
        if not 0.01 <= held <= _LONGEST_LEASE:
            raise InvalidArgument(f"lease must be 0.01 to {_LONGEST_LEASE:,} seconds, not {held:g}")
        if held > self._longest:
            raise InvalidArgument(f"lease is {held:g} seconds, but {self._bound}")
        return held


def pause_for(delay: Seconds | None, deliveries: int, options: QueueOptions, chance: Chance) -> float:
    """Return the seconds before a message that was given back is delivered again."""
    if delay is None:
        return jittered(deliveries, options.backoff, options.backoff_cap, chance)
    return pause(delay, "delay")
