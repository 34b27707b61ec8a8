"""Waiting in slices, so that no single call outlasts the deadline of a provider or of a client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TypeVar

from noobly.core.scope import Policy

T = TypeVar("T")

SLICE = 2.0
"""Seconds that one call may wait at most."""


class Ending:
    """Whether a server has begun to end, so that calls which came by it wait no longer and return what there is."""

    def __init__(self) -> None:
        self.begun = False


ENDING: ContextVar[Ending | None] = ContextVar("noobly_ending", default=None)
"""The end of the server that a call came by, where it came by one."""


def slice_of(policy: Policy) -> float:
    """Return the seconds that one call may wait, so that its answer comes well before its deadline."""
    return min(SLICE, 0.4 * policy.timeout)


async def awaited(
    ask: Callable[[float], Awaitable[T]], wait: float, slice: float, *, enough: Callable[[T], bool] = bool
) -> T:
    """Ask until the answer is enough, the time is over or the server ends; return the last answer.

    Args:
        ask: Asks once; gets the seconds that it may wait, and may answer sooner.
        wait: Seconds in all; 0 asks once and does not wait.
        slice: Seconds of one call, at most.
        enough: Says whether to ask no more; by default any answer is enough that is not empty.
    """
    ending = ENDING.get()
    now = asyncio.get_running_loop().time
    until = now() + wait
    left = wait
    while True:
        found = await ask(min(left, slice))
        left = until - now()
        if left <= 0 or enough(found) or (ending is not None and ending.begun):
            return found
