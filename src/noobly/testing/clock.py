"""Time and chance that a test decides, and a bounded wait for what real time decides."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from itertools import cycle

from noobly.core.errors import InvalidArgument

_POLL = 0.005


class FakeClock:
    """A clock that stands still until told otherwise.

    Args:
        start: The wall-clock time at first, in seconds since the epoch.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._time = start
        self._monotonic = 0.0

    def time(self) -> float:
        """Return seconds since the epoch."""
        return self._time

    def monotonic(self) -> float:
        """Return the seconds advanced so far."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks.

        Raises:
            InvalidArgument: The seconds are negative; a monotonic clock never goes back.
        """
        if seconds < 0:
            raise InvalidArgument(f"time cannot pass by {seconds} seconds; use step() to set the wall clock back")
        self._time += seconds
        self._monotonic += seconds

    def step(self, seconds: float) -> None:
        """Set only the wall clock, forward or with negative seconds back, as an administrator would."""
        self._time += seconds


class FixedChance:
    """A source of random numbers that gives the same ones in turn, over and over.

    Args:
        values: Numbers in [0, 1).

    Raises:
        InvalidArgument: There is no number, or one is outside [0, 1).
    """

    def __init__(self, *values: float) -> None:
        if not values or not all(0 <= value < 1 for value in values):
            raise InvalidArgument(f"FixedChance needs numbers from 0 up to but not including 1, not {values}")
        self._values = cycle(values)

    def random(self) -> float:
        """Return the next number."""
        return next(self._values)


def eventually(condition: Callable[[], object], timeout: float = 5.0) -> Coroutine[None, None, None]:
    """Wait until a condition is true, asking it again and again.

    Args:
        condition: Returns something true or false, or an awaitable of it. What it raises ends the wait.
        timeout: Seconds after which to give up.

    Raises:
        AssertionError: It was still false, or still busy, when the time was up.
    """
    return _poll(condition, timeout)


async def _poll(condition: Callable[[], object], within: float) -> None:
    try:
        async with asyncio.timeout(within) as bound:
            while True:
                if await _holds(condition):
                    return
                await asyncio.sleep(_POLL)
    except TimeoutError as error:
        if not bound.expired():
            raise
        name = getattr(condition, "__qualname__", repr(condition))
        raise AssertionError(f"{name} did not become true within {within:g} s") from error


async def _holds(condition: Callable[[], object]) -> bool:
    answer = condition()
    return bool(await answer) if inspect.isawaitable(answer) else bool(answer)
