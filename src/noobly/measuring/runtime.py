"""How the process itself does: how late the event loop comes, and how long garbage collection stops it.

Memory, CPU time, open files, start time and counts of collections come from prometheus-client's own collectors, whose
global registry is part of every exposition.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter

from noobly.core.lines import Head
from noobly.core.meter import Meter
from noobly.core.series import Cell, Cells

INTERVAL = 0.25
"""Seconds between two looks at the event loop."""

LAG = Head(
    name="noobly_event_loop_lag_seconds",
    type="histogram",
    text="How late the event loop ran what was due.",
)
PAUSES = Head(
    name="noobly_gc_pause_seconds",
    type="histogram",
    text="How long a garbage collection stopped the process.",
    labels=("generation",),
)
_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_PAUSES = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


@asynccontextmanager
async def watch(meter: Meter) -> AsyncIterator[None]:
    """Measure the running event loop and this process's garbage collection for the body of an ``async with``."""
    lag = _Lag(meter.declare(Cells(LAG, meter.cap, _LAGS)).one(()))
    with _pauses(meter.declare(Cells(PAUSES, meter.cap, _PAUSES))):
        try:
            yield
        finally:
            lag.end()


class _Lag:
    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + INTERVAL
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        # Timers may come a little early, by the clock's resolution.
        self._cell.add(max(now - self._due, 0.0))
        self._due = now + INTERVAL
        self._timer = self._loop.call_at(self._due, self._look)

    def end(self) -> None:
        self._timer.cancel()


@contextmanager
def _pauses(family: Cells) -> Iterator[None]:
    cells = [family.one((str(generation),)) for generation in range(len(gc.get_stats()))]
    began = 0.0

    def collected(phase: str, info: Mapping[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = perf_counter()
        elif began:
            cells[info["generation"]].add(perf_counter() - began)

    gc.callbacks.append(collected)
    try:
        yield
    finally:
        gc.callbacks.remove(collected)
