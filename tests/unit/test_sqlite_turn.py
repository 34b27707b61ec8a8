"""Turns between processes that write to one SQLite file; another opening of the file stands for another process."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from noobly.clients import sqlite_turn
from noobly.clients.sqlite import Database, Schema
from noobly.clients.sqlite_turn import Turn
from noobly.testing import eventually

SCHEMA = Schema(name="tests", migrations=(("CREATE TABLE rows (n INTEGER)",),))


def insert(connection):
    connection.execute("INSERT INTO rows VALUES (1)")


@pytest.fixture
async def database(tmp_path):
    database = Database(tmp_path / "rows.db", schema=SCHEMA)
    async with AsyncExitStack() as stack:
        await database.start(stack)
        yield database


@pytest.fixture
def other(database, tmp_path):
    turn = Turn(tmp_path / "rows.db")
    yield turn
    turn.close()


@pytest.fixture
def looks(monkeypatch):
    found, take = [], sqlite_turn._take

    def noted(log):
        found.append(take(log))
        return found[-1]

    monkeypatch.setattr(sqlite_turn, "_take", noted)
    return found


async def test_who_waits_goes_before_who_writes_again(database, other, looks, monkeypatch):
    monkeypatch.setattr(sqlite_turn, "_PATIENCE", 60.0)
    with other.held():
        writing = asyncio.create_task(database.write(insert))
        await eventually(lambda: len(looks) > 3)
        assert looks == [True] + [False] * (len(looks) - 1)
        assert not writing.done()
    await writing


async def test_one_that_has_stopped_holds_nobody_up_for_long(database, other, looks, monkeypatch):
    monkeypatch.setattr(sqlite_turn, "_PATIENCE", 0.01)
    with other.held():
        await database.write(insert)
        assert looks[-1] is False
    await database.write(insert)
    assert looks[-1] is True


async def test_the_turn_is_over_once_the_writing_begins(database, other, looks):
    def write(connection):
        insert(connection)
        with other.held():
            return looks[-1]

    assert await database.write(write) is True


async def test_without_locks_of_the_system_it_writes_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_turn, "fcntl", None)
    database = Database(tmp_path / "rows.db", schema=SCHEMA)
    async with AsyncExitStack() as stack:
        await database.start(stack)
        await database.write(insert)
        assert await database.read(lambda c: c.execute("SELECT count(*) FROM rows").fetchone()[0]) == 1
