"""Receiving from Redis: who asks in one turn of the loop asks together, and who waits looks again when woken."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TypeAlias

from noobly.core.joining import closing, fail, portions
from noobly.core.lifecycle import Tasks
from noobly.queueing.driver import Leased

MOST = 1000
"""Messages of one claim."""

_LOOK_AGAIN = 2.0
"""Seconds after which who waits looks again even if nobody has woken it."""

Claim: TypeAlias = Callable[[str, int, float, bool], Awaitable[tuple[float | None, list[Leased]]]]
"""Leases messages: queue, most, lease, whether somebody waits; gives also the seconds until more may come due."""

GiveBack: TypeAlias = Callable[[str, Sequence[Leased]], Coroutine[object, object, None]]


class Request:
    """One call that wants messages; ``until`` is the loop's time at which it wants them no more."""

    __slots__ = ("future", "lease", "most", "until")

    def __init__(self, most: int, lease: float, until: float) -> None:
        self.most, self.lease, self.until = most, lease, until
        self.future: asyncio.Future[list[Leased]] = asyncio.get_running_loop().create_future()


class Receivers:
    """All who receive from one queue in this process.

    Args:
        queue: The queue.
        claim: Leases messages at the store.
        give_back: Gives back messages that nobody wants any more.
        tasks: Owns the work under way.
    """

    def __init__(self, queue: str, claim: Claim, give_back: GiveBack, tasks: Tasks) -> None:
        self._queue, self._claim, self._give_back, self._tasks = queue, claim, give_back, tasks
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Request] = []
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._leaving = False
        self._looking = 0
        self._wakes = 0

    @property
    def idle(self) -> bool:
        """Whether nobody is here."""
        return not self._waiting and not self._looking

    async def receive(self, most: int, lease: float, wait: float) -> list[Leased]:
        """Return messages, or none once ``wait`` seconds are over."""
        request = Request(most, lease, self._loop.time() + wait if wait else 0.0)
        self._waiting.append(request)
        self._look_soon()
        try:
            return await request.future
        except asyncio.CancelledError:
            self._leave(request)
            raise

    def wake(self) -> None:
        """Look again: something has come, or may have come unseen."""
        self._wakes += 1
        if self._waiting:
            self._look_soon()

    def _leave(self, request: Request) -> None:
        with suppress(ValueError):
            self._waiting.remove(request)
        if request.future.done() and not request.future.cancelled() and request.future.exception() is None:
            self._return(request.future.result())

    def _return(self, found: Sequence[Leased]) -> None:
        if found:
            self._tasks.spawn(self._give_back(self._queue, found), f"giving back to queue {self._queue!r}")

    def _look_soon(self) -> None:
        if not self._leaving:
            self._leaving = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Send all who wait to look, together where their leases are the same."""
        self._leaving = False
        self._due = None
        self._disarm()
        together: defaultdict[float, list[Request]] = defaultdict(list)
        for request in self._waiting:
            if not request.future.done():
                together[request.lease].append(request)
        self._waiting = []
        for lease, asked in together.items():
            wanted = [request.most for request in asked]
            for requests in portions(asked, wanted, MOST):
                self._looking += 1
                task = self._tasks.spawn(self._serve(lease, requests), f"receiving from queue {self._queue!r}")
                closing(task, f"queue {self._queue!r}", [request.future for request in requests])

    async def _serve(self, lease: float, requests: Sequence[Request]) -> None:
        wakes = self._wakes
        most = min(MOST, sum(request.most for request in requests))
        waits = any(request.until for request in requests)
        try:
            due, found = await self._claim(self._queue, most, lease, waits)
        except Exception as error:  # noqa: BLE001 - raised to the callers
            fail([request.future for request in requests], error)
            return
        finally:
            self._looking -= 1
        more = len(found) == most or wakes != self._wakes
        self._return(_shared_out(found, requests))
        self._go_on(requests, due, more=more)

    def _go_on(self, requests: Sequence[Request], due: float | None, *, more: bool) -> None:
        """Let those who got nothing wait on, or look again at once where there may be more."""
        left = [request for request in requests if not request.future.done()]
        _release(left, self._loop.time())
        self._waiting = [request for request in left if not request.future.done()] + self._waiting
        if not self._waiting:
            return
        if due is not None:
            at = self._loop.time() + due
            self._due = at if self._due is None else min(self._due, at)
        if more:
            self._look_soon()
        else:
            self._arm()

    def _arm(self) -> None:
        self._disarm()
        ends = [request.until for request in self._waiting]
        at = min(self._loop.time() + _LOOK_AGAIN, *ends, math.inf if self._due is None else self._due)
        self._timer = self._loop.call_at(at, self._elapse)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _elapse(self) -> None:
        """Release those whose time is over; look again where nobody's is, for then a message's has come."""
        self._timer = None
        now = self._loop.time()
        released = _release(self._waiting, now)
        self._waiting = [request for request in self._waiting if not request.future.done()]
        if not self._waiting:
            self._due = None
        elif released and (self._due is None or self._due > now):
            self._arm()
        else:
            self._look_soon()


def _shared_out(found: list[Leased], requests: Sequence[Request]) -> list[Leased]:
    """Give messages to those who asked, first come first served; return what nobody wants any more."""
    start = 0
    for request in requests:
        if start < len(found) and not request.future.done():
            request.future.set_result(found[start : start + request.most])
            start += request.most
    return found[start:]


def _release(requests: Sequence[Request], now: float) -> bool:
    over = [request for request in requests if not request.future.done() and request.until <= now]
    for request in over:
        request.future.set_result([])
    return bool(over)
