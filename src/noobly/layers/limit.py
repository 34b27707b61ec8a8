"""Limit: a bounded number of calls under way per instance, and a bounded number waiting."""

from __future__ import annotations

import asyncio
from collections import deque

from noobly.core.binding import Layer
from noobly.core.errors import RateLimited
from noobly.core.operation import Call, Driver, Operation
from noobly.core.scope import Scope


class _Gate:
    """Places for calls; one that is given up goes to the call that has waited longest.

    ``asyncio.Semaphore`` costs three times as much on the way that nearly all calls take, where a place is free.
    """

    def __init__(self, concurrency: int, waiting: int) -> None:
        self.free = concurrency
        self.most = waiting
        self.waiters: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        if len(self.waiters) >= self.most:
            raise RateLimited("too many calls are waiting for this provider; slow down or raise `concurrency`")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self.waiters.remove(place)
            else:
                self.leave()  # It was given a place and cancelled before it could take it.
            raise

    def leave(self) -> None:
        for place in self.waiters:
            if not place.done():
                self.waiters.remove(place)
                place.set_result(None)
                return
        self.free += 1


def limit(scope: Scope) -> Layer:
    """Let at most ``policy.concurrency`` calls through at once; in-process providers are not limited."""
    gate = _Gate(scope.policy.concurrency, scope.policy.waiting)

    def layer(operation: Operation, driver: Driver, inner: Call) -> Call:
        if driver.in_process:
            return inner

        async def limited(*args: object) -> object:
            if gate.free:
                gate.free -= 1
            else:
                await gate.wait()
            try:
                return await inner(*args)
            finally:
                if gate.waiters:
                    gate.leave()
                else:
                    gate.free += 1

        return limited

    return layer
