"""The heart of a worker: it keeps leases alive from a thread of its own, whatever handlers do to the event loop.

It has its own instance of the jobs, with its own connection, so a handler that holds the loop loses nothing. It also
sees to it that such a handler is found and named.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from threading import Event, Thread, get_ident
from time import monotonic
from types import CodeType, FrameType
from typing import Protocol, Self

from noobly.core.errors import NooblyError
from noobly.working.driver import Beat, Hold
from noobly.working.patience import lasting

_log = logging.getLogger("noobly.working")

_SLOW = 1.0
"""Seconds that a handler may hold the loop before it is named."""

_LOOK = 0.25
_LONGEST_PAUSE = 1.0
_LAST = 1.0
"""Seconds that the thread has to close its connection; nobody needs it any more, and it keeps no program alive."""


class Beating(Protocol):
    """What keeps claims."""

    async def beat(self, queue: str, holds: Sequence[Hold], lease: float | None = None) -> list[Beat]:
        """See ``Jobs.beat``."""
        ...


Twin = Callable[[], AbstractAsyncContextManager[Beating]]
"""Opens another instance that sees the same jobs, for another loop."""

Told = Callable[[str, Hold, Beat], None]
"""Learns that a claim is lost or cancelled; called on the worker's loop."""

Named = Callable[[str, float], None]
"""Learns that a task's handler, or other code under no name, held the loop for so many seconds; called on that loop."""


class Heart:
    """Keeps the claims of one worker.

    Args:
        twin: Opens what keeps them in the thread.
        lease: Seconds of a lease.
        holds: The claims to keep: a collection that changes as they begin and end.
        told: Learns of claims that are lost or cancelled.
        named: Learns of handlers that hold the loop.
        codes: The tasks by the code of their functions.
    """

    def __init__(
        self,
        twin: Twin,
        *,
        lease: float,
        holds: Collection[tuple[str, Hold]],
        told: Told,
        named: Named,
        codes: Mapping[CodeType, str],
    ) -> None:
        self._twin, self._lease, self._holds = twin, lease, holds
        self._told, self._named, self._codes = told, named, codes
        self._pause = min(_LONGEST_PAUSE, lease / 3)
        self._begun = Event()
        self._ending = False
        self._ticked = monotonic()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._main = get_ident()
        self._tick()
        self._broken: asyncio.Future[None] = self._loop.create_future()
        self._thread = Thread(target=self._live, name="noobly-heart", daemon=True)
        self._thread.start()
        try:
            await asyncio.to_thread(self._begun.wait)
        except BaseException:  # A cancellation, after which nobody calls ``__aexit__``.
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ticking.cancel()
        self._broken.cancel()
        self._end()
        await asyncio.to_thread(self._thread.join, _LAST)

    def _end(self) -> None:
        """Let the thread end, also one that has only just begun and looks whether it is to end."""
        self._ending = True
        if self._begun.is_set():
            with suppress(RuntimeError, AttributeError):  # The thread's loop has ended by itself, or never began.
                self._own.call_soon_threadsafe(self._over.set)

    def _tick(self) -> None:
        self._ticked = monotonic()
        self._ticking = self._loop.call_later(_LOOK, self._tick)

    async def sound(self) -> None:
        """Wait for ever; raises what the heart died of, for a worker without one must not go on."""
        await self._broken

    def _live(self) -> None:
        try:
            asyncio.run(self._watch_and_beat())
        except Exception as error:  # noqa: BLE001 - whatever it was, the worker has to know
            self._begun.set()
            first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._break, first)

    def _break(self, error: Exception) -> None:
        if not self._broken.done():
            self._broken.set_exception(error)

    async def _watch_and_beat(self) -> None:
        self._own, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._begun.set()
        if self._ending:
            return
        async with asyncio.TaskGroup() as group:
            living = [group.create_task(self._watch()), group.create_task(self._beat_apart())]
            await self._over.wait()
            for task in living:
                task.cancel()

    async def _watch(self) -> None:
        """Name the handler that holds the worker's loop, once each time."""
        seen = 0.0
        while True:
            await asyncio.sleep(_LOOK)
            held = monotonic() - self._ticked
            if held < _SLOW or self._ticked == seen:
                continue
            seen = self._ticked
            task = self._culprit()
            who = f"the task {task!r}" if task else "other code of this program"
            _log.warning("%s holds the event loop of its worker for %.1f s; run it as a thread or process", who, held)
            self._loop.call_soon_threadsafe(self._named, task, held)

    def _culprit(self) -> str:
        frame: FrameType | None = sys._current_frames().get(self._main)
        found = ""
        while frame is not None:
            found = self._codes.get(frame.f_code, found)
            frame = frame.f_back
        return found

    async def _beat_apart(self) -> None:
        while True:
            try:
                async with self._twin() as jobs:
                    await self._beat_for_ever(jobs)
            except NooblyError as error:
                if lasting(error):
                    raise
                _log.warning("the heart of a worker cannot reach the jobs; trying again: %s", error)
                await asyncio.sleep(self._pause)

    async def _beat_for_ever(self, jobs: Beating) -> None:
        while True:
            await asyncio.sleep(self._pause)
            by_queue: dict[str, list[Hold]] = {}
            for queue, hold in list(self._holds):
                by_queue.setdefault(queue, []).append(hold)
            for queue, holds in by_queue.items():
                await self._beat(jobs, queue, holds)

    async def _beat(self, jobs: Beating, queue: str, holds: Sequence[Hold]) -> None:
        try:
            beats = await jobs.beat(queue, holds, self._lease)
        except NooblyError as error:
            if lasting(error):
                raise
            level = logging.WARNING if error.temporary else logging.ERROR
            _log.log(level, "leases of queue %r could not be extended; trying again: %s", queue, error)
            return
        for hold, beat in zip(holds, beats, strict=True):
            if beat is not Beat.KEPT and (queue, hold) in self._holds:
                self._loop.call_soon_threadsafe(self._told, queue, hold, beat)
