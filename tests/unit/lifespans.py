"""Lifespans and a task that leave a trace, and what becomes of a worker with them."""

from __future__ import annotations

import asyncio
import logging

PATIENCE = 20.0


def span(tasks, seen, name, *, start=None, end=None):
    """Declare a lifespan that is seen, and raises where it is told to."""

    async def noted():
        seen.append(f"start {name}")
        if start is not None:
            raise start
        yield
        seen.append(f"end {name}")
        if end is not None:
            raise end

    noted.__qualname__ = name
    return tasks.lifespan(noted)


def working(tasks, seen):
    @tasks.task()
    async def work():
        seen.append("work")

    return work


async def stopped(worker):
    """Cancel a worker, and wait for its end."""
    worker.cancel()
    await asyncio.wait([worker], timeout=PATIENCE)
    assert worker.cancelled()


def complaints(caplog):
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]
