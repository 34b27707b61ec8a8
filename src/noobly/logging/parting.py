"""SIGTERM in a program that does not handle it: what waits is stored before the signal takes its usual effect.

Only the default action is stood in for, and it follows: at once on a second signal, else as soon as all is stored. A
handler that the program sets, before or after, is left alone; such a program ends its ``async with`` itself.
"""

from __future__ import annotations

import _thread
import asyncio
import os
import signal
from collections.abc import Coroutine, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

_GRACE = 1.0
"""Seconds that an event loop has beyond what closing may take; one that hangs must not keep the process alive."""


class Parting(Protocol):
    """Something that has records to store at the end."""

    patience: float
    """Seconds that closing takes at most."""

    def close(self) -> Coroutine[object, object, None]:
        """Store what waits."""

    def rescue(self) -> None:
        """Keep what waits anywhere, from any thread."""


class Parted:
    """The handler of SIGTERM; closes all who joined, and then lets the signal do what it does by default."""

    def __init__(self) -> None:
        self._members: dict[Parting, asyncio.AbstractEventLoop] = {}
        self._holders = 0
        self._process = os.getpid()

    @contextmanager
    def joined(self, member: Parting | None) -> Iterator[None]:
        """Close this as well, should the signal come while the body runs."""
        self._holders += 1
        if member is not None:
            self._members[member] = asyncio.get_running_loop()
        try:
            yield
        finally:
            self._holders -= 1
            if member is not None:
                self._members.pop(member, None)
            if not self._holders and signal.getsignal(signal.SIGTERM) == self.handle:
                _set(signal.SIG_DFL)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        signal.signal(number, signal.SIG_DFL)
        # The interrupted code may hold the locks of ``threading``, so none of it is used here.
        _thread.start_new_thread(self._part, (number,))

    def _part(self, number: int) -> None:
        members = dict(self._members) if os.getpid() == self._process else {}
        try:
            closing = [begun for one, loop in members.items() if (begun := _closing(one, loop)) is not None]
            futures.wait(closing, max((one.patience for one in members), default=0.0) + _GRACE)
            for member in members:
                member.rescue()
        finally:
            os.kill(os.getpid(), number)


def _closing(member: Parting, loop: asyncio.AbstractEventLoop) -> futures.Future[None] | None:
    work = member.close()
    try:
        return asyncio.run_coroutine_threadsafe(work, loop)
    except RuntimeError:
        work.close()  # Its loop has ended.
        return None


@contextmanager
def parting(member: Parting | None = None) -> Iterator[None]:
    """Have a member's records stored, should SIGTERM end the process while the body runs.

    Args:
        member: What has records; None to be there for members of other threads, which cannot set a handler.
    """
    handler = signal.getsignal(signal.SIGTERM)
    there = getattr(handler, "__self__", None)
    if not isinstance(there, Parted):
        there = Parted()
        if handler is not signal.SIG_DFL or not _set(there.handle):
            yield
            return
    with there.joined(member):
        yield


def _set(handler: signal._HANDLER) -> bool:
    # Only the main thread may, and an interpreter that is no main one may not at all.
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, handler)
        return True
    return False
