"""Waiting for rows of an SQLite file: who is woken, by what, and that no wake is lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from noobly.clients.sqlite import Database, Schema
from noobly.clients.sqlite_arrivals import Arrivals, Glimpse
from noobly.testing import eventually

SCHEMA = Schema(name="tests", migrations=(("CREATE TABLE rows (name TEXT, due REAL)",),))
LONG = 60.0


def look(connection, asked):
    found = {}
    for name, most in asked.items():
        dues = [row[0] for row in connection.execute("SELECT due FROM rows WHERE name = ? LIMIT ?", (name, most))]
        later = [due for due in dues if due > 0]
        found[name] = Glimpse(len(dues) - len(later), min(later, default=None))
    return found


class Process:
    """What one process has; several of them in this one."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path, schema=SCHEMA)
        self.arrivals = Arrivals(path, self.database, look)

    async def add(self, name: str, due: float = 0.0) -> None:
        await self.database.write(lambda c: c.execute("INSERT INTO rows VALUES (?, ?)", (name, due)))
        self.arrivals.tell(name, 1)

    def waiting(self, name: str, count: int, pause: float = LONG) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.arrivals.wait(name, self.arrivals.heard, pause)) for _ in range(count)]


@pytest.fixture
async def processes(tmp_path):
    async with AsyncExitStack() as stack:
        found = [Process(tmp_path / "rows.db") for _ in range(2)]
        for one in found:
            await one.database.start(stack)
            await one.arrivals.start(stack)
        yield found


def done(tasks: list[asyncio.Task[None]]) -> int:
    return sum(task.done() for task in tasks)


async def ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_as_many_are_woken_as_arrived_here(processes):
    ours, _ = processes
    tasks, others = ours.waiting("a", 3), ours.waiting("b", 1)
    await asyncio.sleep(0)
    ours.arrivals.wake("a", 2)
    await asyncio.gather(*tasks[:2])
    assert (done(tasks), done(others)) == (2, 0)
    await ended([*tasks, *others])


async def test_as_many_are_woken_as_arrived_elsewhere(processes):
    ours, theirs = processes
    tasks, others = theirs.waiting("a", 3), theirs.waiting("b", 1)
    await asyncio.sleep(0)
    await ours.add("a")
    await eventually(lambda: done(tasks) == 1)
    await ours.database.write(lambda c: c.execute("DELETE FROM rows"))
    await ours.add("b")
    await eventually(lambda: done(others) == 1)
    assert done(tasks) == 1
    await ended(tasks)


async def test_what_is_due_before_anybody_looks_wakes_one(processes):
    ours, theirs = processes
    tasks = theirs.waiting("a", 2, pause=30.0)
    await asyncio.sleep(0)
    await ours.add("a", due=20.0)
    await eventually(lambda: done(tasks) == 1)
    await ended(tasks)


async def test_what_is_due_after_somebody_looks_wakes_nobody(processes):
    ours, theirs = processes
    tasks = theirs.waiting("a", 2, pause=30.0)
    await asyncio.sleep(0)
    await ours.add("a", due=40.0)
    await eventually(lambda: theirs.arrivals.heard)
    await ours.add("b")
    witness = theirs.waiting("b", 1)
    await ours.add("b")
    await eventually(lambda: done(witness))
    assert done(tasks) == 0
    await ended(tasks)


async def test_what_arrived_since_the_last_look_is_not_missed(processes):
    ours, theirs = processes
    heard = theirs.arrivals.heard
    await ours.add("a")
    await eventually(lambda: theirs.arrivals.heard > heard)
    async with asyncio.timeout(5):
        await theirs.arrivals.wait("a", heard, LONG)


async def test_a_wake_of_one_who_is_cancelled_goes_to_the_next(processes):
    ours, _ = processes
    tasks = ours.waiting("a", 2)
    await asyncio.sleep(0)
    ours.arrivals.wake("a", 1)
    tasks[0].cancel()
    async with asyncio.timeout(5):
        await tasks[1]
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_the_pause_ends_by_itself_and_nothing_is_left(processes):
    ours, _ = processes
    await asyncio.gather(*ours.waiting("a", 3, pause=0.01))
    await ended(ours.waiting("a", 1))
    assert ours.arrivals._waiting == {}


async def test_a_file_that_cannot_be_read_for_a_while_ends_no_watch(processes):
    ours, theirs = processes
    tasks = theirs.waiting("a", 1)
    await asyncio.sleep(0)
    await ours.database.write(lambda c: c.execute("ALTER TABLE rows RENAME TO hidden"))
    ours.arrivals.tell("a", 1)
    await eventually(lambda: theirs.arrivals.heard)
    await ours.database.write(lambda c: c.execute("ALTER TABLE hidden RENAME TO rows"))
    await ours.add("a")
    await eventually(lambda: done(tasks) == 1)
