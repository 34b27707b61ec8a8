"""Adding jobs to an SQLite file, in one transaction; times are microseconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from noobly.clients.sqlite_rows import microseconds
from noobly.working.driver import Added, NewJob
from noobly.working.providers import _sqlite_ended as ended
from noobly.working.providers import _sqlite_rows as rows
from noobly.working.providers._flows import known_parents, parent_of
from noobly.working.providers._sqlite_rows import ENDED, STATES, Row, find


def add(connection: sqlite3.Connection, jobs: Sequence[NewJob], now: int) -> list[Added]:
    """Store jobs."""
    places = {queue: _place(connection, queue) for queue in dict.fromkeys(new.queue for new in jobs)}
    there = known_parents(jobs, lambda new: _known(connection, places[new.queue], new, now))
    added: list[Added] = []
    for new in jobs:
        known = _known(connection, places[new.queue], new, now)
        if parent_of(new) in there:
            known = known or Added(new.id, duplicate=True)
        if known is None:
            _store(connection, places[new.queue], new, now)
        added.append(known or Added(new.id))
    for new, found in zip(jobs, added, strict=True):
        if found.duplicate and new.parent is not None and parent_of(new) not in there:
            _adopt(connection, places, new, found.id, now)
    return added


def _place(connection: sqlite3.Connection, queue: str) -> int:
    found = find(connection, queue).id
    return found or int(connection.execute(rows.ADD_QUEUE, (queue,)).lastrowid or 0)


def _known(connection: sqlite3.Connection, place: int, new: NewJob, now: int) -> Added | None:
    """Return what a new job duplicates."""
    if connection.execute(rows.EXISTS, (place, new.id)).fetchone():
        return Added(new.id, duplicate=True)
    holder = connection.execute(rows.KEY, (place, new.unique, now)).fetchone() if new.unique is not None else None
    return Added(holder[0], duplicate=True) if holder else None


def _store(connection: sqlite3.Connection, place: int, new: NewJob, now: int) -> None:
    connection.execute(rows.INSERT, rows.values(new, place, now))
    if new.unique is not None:
        ends = now + microseconds(new.unique_for) if new.unique_for else 0
        connection.execute(rows.SET_KEY, (place, new.unique, new.id, ends))


def _adopt(connection: sqlite3.Connection, places: dict[str, int], new: NewJob, id: str, now: int) -> None:
    """Let a new parent wait for a job that was there before, unless that is run before another one or is gone."""
    row = connection.execute(rows.FIND, (places[new.queue], id)).fetchone()
    child, parent = Row(*row) if row else None, new.parent or ""
    if child is None or child.parent is not None:
        ended.one_less(connection, find(connection, new.parent_queue), parent, now)
        return
    connection.execute(rows.ADOPT, (parent, new.parent_queue, new.lenient, child.seq))
    if child.phase == ENDED:
        adopted = child._replace(parent=parent, parent_queue=new.parent_queue, lenient=int(new.lenient))
        changed = ended.Changed([], [], set())
        ended.tell_parent(connection, adopted, parent, STATES[child.state], child.error, changed, now)
