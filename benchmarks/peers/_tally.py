"""What the programs of peers have in common; imports nothing but the standard library, for their packages differ.

A program is called ``PROGRAM add URL COUNT SPACING`` or ``PROGRAM work URL COUNT`` and prints one line of JSON. A job's
argument is the time at which it was added, and its handler gives it to ``Tally.began``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine

TASKS = 50
CONCURRENCY = 50


class Tally:
    """Counts jobs as they begin, and ends the process with its result when the last one has."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._late: list[float] = []
        self._began = self._cpu = 0.0

    def began(self, sent: float) -> None:
        """Note the beginning of a job."""
        if not self._late:
            self._began, self._cpu = time.perf_counter(), time.process_time()
        self._late.append(time.time() - sent)
        if len(self._late) == self._count:
            say(
                seconds=time.perf_counter() - self._began,
                cpu=time.process_time() - self._cpu,
                late=[round(late, 6) for late in self._late],
            )
            os._exit(0)


def say(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def ready() -> None:
    """Say that the worker waits for jobs."""
    say(ready=True)


async def adding(add: Callable[[float], Awaitable[object]], count: int, spacing: float) -> None:
    """Add jobs by many tasks at once, or one by one with a pause between."""
    began, cpu = time.perf_counter(), time.process_time()
    if spacing:
        for _ in range(count):
            await add(time.time())
            await asyncio.sleep(spacing)
    else:
        await asyncio.gather(*(_some(add, count // TASKS) for _ in range(TASKS)))
    say(seconds=time.perf_counter() - began, cpu=time.process_time() - cpu)


async def _some(add: Callable[[float], Awaitable[object]], count: int) -> None:
    for _ in range(count):
        await add(time.time())


def run(main: Coroutine[object, object, None]) -> None:
    """Run a program on the event loop that ``BENCH_LOOP`` names."""
    if os.environ.get("BENCH_LOOP") == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
        return
    asyncio.run(main)
