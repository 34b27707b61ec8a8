"""The places of a worker: how many handlers may begin, and how many jobs the claims of its queues may bring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sized
from typing import NamedTuple

_UNSETTLED = 3
"""Jobs a worker may hold, running or being settled, as a multiple of its concurrency."""


class Asked(NamedTuple):
    """What one claim may bring.

    Args:
        most: How many jobs.
        kept: How many places are kept for them.
        waits: Whether it waits for a job where there is none.
    """

    most: int
    kept: int
    waits: bool


class Places:
    """Shares the places of one worker out to its queues.

    A queue with jobs keeps places while it claims them, so that claims together bring no more than can run; a queue
    without waits for one beside the others and keeps none, or a worker of one place could hear of one queue only. What
    comes of that while all places are taken has to wait for a place.

    Args:
        most: Handlers at once.
        queues: How many queues there are.
        held: The jobs in hand; those that have ended and are being settled are bounded too.
        lingering: Tells how many places are taken by what runs on although its attempt was stopped.

    Attributes:
        busy: Handlers that run.
        changed: Something is over: whoever stands in line may look again.
    """

    def __init__(self, most: int, queues: int, held: Sized, *, lingering: Callable[[], int]) -> None:
        self._most, self._queues, self._held, self._lingering = most, queues, held, lingering
        self.busy = self._kept = self._waiting = 0
        self.changed = asyncio.Event()
        self._turn = asyncio.Lock()

    def room(self) -> int:
        """Return how many handlers may begin beside those for which places are kept."""
        return self._most - self.busy - self._kept - self._lingering()

    def beside(self) -> Asked | None:
        """Ask for one job of an empty queue, as soon as there is one; None where it has to stand in line."""
        if self._queues == 1 or self._free() <= 0:
            return None
        self._waiting += 1
        return Asked(1, 0, waits=True)

    async def ask(self) -> Asked:
        """Stand in line, and keep a queue's share of the places that are free; a queue alone waits for its jobs."""
        async with self._turn:
            while (free := self._free()) <= 0:
                self.changed.clear()
                await self.changed.wait()
            share = -(-free // max(1, self._queues - self._waiting))
            self._kept += share
            return Asked(share, share, waits=self._queues == 1)

    def answered(self, asked: Asked) -> None:
        """Keep places no longer for a claim that has brought its jobs, which take theirs."""
        self._kept -= asked.kept
        if not asked.kept:
            self._waiting -= 1

    def _free(self) -> int:
        return min(self.room(), _UNSETTLED * self._most - len(self._held) - self._kept)
