"""Deadline: the whole call ends in its time. One timer sweeps all calls of an instance, so a call costs no timer."""

from __future__ import annotations

import asyncio
from itertools import takewhile

import msgspec

from noobly.core.binding import Layer
from noobly.core.errors import DeadlineExceeded
from noobly.core.operation import Call, Driver, Operation
from noobly.core.scope import Scope

_TICKS = 20
"""The sweep runs this often within one timeout, so a call may last 1/20 longer than it should."""


class _Watched(msgspec.Struct, eq=False):
    task: asyncio.Task[object] | None
    cancelling: int
    due: float
    expired: bool = False


class _Sweep:
    """Cancels calls whose time is over, the first one first; ``loop`` is where the next sweep is planned, if any."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.calls: dict[_Watched, None] = {}
        self.loop: asyncio.AbstractEventLoop | None = None

    def watch(self) -> _Watched:
        loop = self.loop or self.begin()
        task = asyncio.current_task(loop)
        watched = _Watched(task, task.cancelling() if task else 0, loop.time() + self.timeout)
        self.calls[watched] = None
        return watched

    def begin(self) -> asyncio.AbstractEventLoop:
        self.loop = loop = asyncio.get_running_loop()
        loop.call_later(self.timeout / _TICKS, self.sweep, loop)
        return loop

    def sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for watched in list(takewhile(lambda call: call.due <= now, self.calls)):
            del self.calls[watched]
            if watched.task is not None:
                watched.expired = True
                watched.task.cancel()
        self.loop = None
        if self.calls:
            self.begin()


def deadline(scope: Scope) -> Layer:
    """Bound each call, retries included; in-process providers need none."""
    sweep = _Sweep(scope.policy.timeout)
    watch, forget = sweep.watch, sweep.calls.pop

    def layer(operation: Operation, driver: Driver, inner: Call) -> Call:
        if driver.in_process:
            return inner

        async def bounded(*args: object) -> object:
            watched = watch()
            try:
                return await inner(*args)
            except asyncio.CancelledError as error:
                if watched.expired and watched.task and watched.task.uncancel() <= watched.cancelling:
                    raise DeadlineExceeded(f"{operation.name} took over {sweep.timeout} s") from error
                raise
            finally:
                forget(watched, None)

        return bounded

    return layer
