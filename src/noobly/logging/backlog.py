"""The bounded queue between log calls and the writer, with its declared overflow."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from operator import itemgetter

from noobly.logging.assembly import Item
from noobly.logging.options import LogsOptions, Overflow
from noobly.logging.record import Level

_ERROR = Level.ERROR.value
_SPILLED_AT_ONCE = 256


class Backlog:
    """Records that wait. Errors wait apart and are never dropped: past their own bound they are spilled.

    Any thread may add; one writer takes.

    Args:
        options: How many may wait, and what happens to more.
        wake: Calls the writer; ``True`` if it shall not linger.
        spill: Takes records for which there is no place.
    """

    def __init__(self, options: LogsOptions, wake: Callable[[bool], None], spill: Callable[[list[Item]], None]) -> None:
        self._capacity = options.queue
        self._policy = options.overflow
        self._timeout = options.block_timeout
        self._watched = self._capacity // 2 if self._policy is Overflow.DROP_BY_LEVEL else self._capacity
        self._records: deque[Item] = deque()
        self._errors: deque[Item] = deque()
        self._wake = wake
        self._spill = spill
        self._signal = 0
        self._thread = threading.get_ident()
        self._space = threading.Event()
        self._counting = threading.Lock()
        self._lost = 0

    def __len__(self) -> int:
        return len(self._records) + len(self._errors)

    def add(self, item: Item) -> None:
        """Take a record in, or drop it or another one."""
        if item[1] >= _ERROR:
            self._add_error(item)
            return
        records = self._records
        if len(records) >= self._watched and not self._room(item[1]):
            self._lose()
            return
        records.append(item)
        if len(records) > self._signal:
            self._call()

    def take(self, most: int) -> list[Item]:
        """Return up to so many records, oldest first."""
        taken = _popped(self._records, most)
        if self._errors:
            taken = sorted([*taken, *_popped(self._errors, most)], key=itemgetter(0))
        self._space.set()
        return taken

    def call_at(self, waiting: int) -> None:
        """Let the writer be called once more than so many records wait."""
        self._signal = waiting

    def lost(self) -> int:
        """Return how many records were dropped since this was last asked."""
        with self._counting:
            lost, self._lost = self._lost, 0
        return lost

    def _call(self) -> None:
        idle = self._signal == 0
        self._signal = self._capacity
        self._wake(not idle)

    def _add_error(self, item: Item) -> None:
        self._errors.append(item)
        if len(self._errors) > self._capacity:
            self._spill(_popped(self._errors, _SPILLED_AT_ONCE))
        self._wake(True)

    def _room(self, severity: int) -> bool:
        if self._policy is Overflow.DROP_BY_LEVEL:
            share = 2 if severity < Level.INFO else 3 if severity < Level.WARN else 4
            return len(self._records) < self._capacity * share // 4
        if self._policy is Overflow.DROP_OLDEST:
            if _popped(self._records, 1):
                self._lose()
            return True
        return self._waited()

    def _waited(self) -> bool:
        if threading.get_ident() == self._thread:
            self._spill(_popped(self._records, _SPILLED_AT_ONCE))
            return True
        until = time.monotonic() + self._timeout
        while True:
            self._space.clear()
            if len(self._records) < self._capacity:
                return True
            if not self._space.wait(max(0.0, until - time.monotonic())):
                return False

    def _lose(self) -> None:
        with self._counting:
            self._lost += 1


def _popped(queue: deque[Item], most: int) -> list[Item]:
    taken: list[Item] = []
    with suppress(IndexError):  # Another thread may take the last one at any time; what was taken before stays.
        taken.extend(islice(iter(queue.popleft, None), min(most, len(queue))))
    return taken
