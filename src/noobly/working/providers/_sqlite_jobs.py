"""Looking at jobs in an SQLite file, and changing them from outside: work in one transaction each."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from noobly.clients.sqlite_rows import microseconds
from noobly.working.driver import JobRecord, Retention, State
from noobly.working.providers import _sqlite_rows as rows
from noobly.working.providers._sqlite_ended import Changed, end, one_less
from noobly.working.providers._sqlite_rows import BLOCKED, ENDED, HELD, NUMBERS, READY, STATES, Row, find
from noobly.working.states import ASKED, LATE


def report(connection: sqlite3.Connection, queue: str, id: str, progress: bytes, lines: Sequence[str]) -> bool:
    """Store progress and log lines of a job that has not ended."""
    row = _row(connection, queue, id)
    if row is None or row.phase == ENDED:
        return False
    if progress:
        connection.execute(rows.PROGRESS, (progress, row.seq))
    if lines:
        connection.executemany(rows.LOG, [(row.seq, line) for line in lines])
        connection.execute(rows.TRIM_LOG, (row.seq,))
    return True


def _row(connection: sqlite3.Connection, queue: str, id: str) -> Row | None:
    row = connection.execute(rows.FIND, (find(connection, queue).id, id)).fetchone()
    return Row(*row) if row else None


def get(connection: sqlite3.Connection, queue: str, id: str) -> JobRecord | None:
    """Return a job."""
    row = _row(connection, queue, id)
    return rows.record(row, queue) if row else None


def logs(connection: sqlite3.Connection, queue: str, id: str) -> list[str]:
    """Return a job's log lines."""
    row = _row(connection, queue, id)
    return [one[0] for one in connection.execute(rows.LOGS, (row.seq,))] if row else []


def children(connection: sqlite3.Connection, queue: str, id: str) -> list[JobRecord]:
    """Return the jobs that a job runs after."""
    found = [Row(*row) for row in connection.execute(rows.CHILDREN, (id, queue))]
    names = {row.queue: connection.execute(rows.QUEUE_NAME, (row.queue,)).fetchone()[0] for row in found}
    return [rows.record(row, names[row.queue]) for row in found]


def page(connection: sqlite3.Connection, queue: str, states: Sequence[State], skip: int, most: int) -> list[JobRecord]:
    """Return jobs in some states."""
    numbers = msgspec.json.encode([NUMBERS[state] for state in states]).decode()
    asked = {"queue": find(connection, queue).id, "states": numbers, "skip": skip, "most": most}
    found = connection.execute(rows.PAGE_OF if states else rows.PAGE, asked)
    return [rows.record(Row(*row), queue) for row in found]


def cancel(connection: sqlite3.Connection, queue: str, id: str, now: int) -> tuple[State | None, Changed]:
    """Cancel a job, or ask for its end."""
    row, changed = _row(connection, queue, id), Changed([], [], set())
    if row is None:
        return None, changed
    if row.phase == ENDED:
        return STATES[row.state], changed
    if row.phase == HELD:
        connection.execute(rows.CANCELLING, (row.seq,))
        return State.RUNNING, changed
    end(connection, queue, row, State.CANCELLED, b"", ASKED, changed, now)
    return State.CANCELLED, changed


def rerun(connection: sqlite3.Connection, queue: str, id: str, now: int) -> bool:
    """Queue a job at once."""
    row = _row(connection, queue, id)
    if row is None or row.phase in (READY, HELD, BLOCKED) or STATES[row.state] is State.SUCCEEDED:
        return False
    if row.phase == ENDED and not _take_key(connection, row, now):
        return False
    connection.execute(rows.RERUN, (row.seq, now, row.phase == ENDED))
    if row.phase == ENDED and row.parent is not None:
        connection.execute(rows.ONE_MORE, (find(connection, row.parent_queue).id, row.parent))
    return True


def _take_key(connection: sqlite3.Connection, row: Row, now: int) -> bool:
    """Let a job that runs again have its key again; false where another one has it."""
    if row.key is None:
        return True
    holder = connection.execute(rows.KEY, (row.queue, row.key, now)).fetchone()
    if holder is None:
        connection.execute(rows.SET_KEY, (row.queue, row.key, row.id, 0))
    return holder is None or holder[0] == row.id


def remove(connection: sqlite3.Connection, queue: str, id: str, now: int) -> tuple[bool, Changed]:
    """Forget a job that is not held."""
    row, changed = _row(connection, queue, id), Changed([], [], set())
    if row is None or row.phase == HELD:
        return False, changed
    _forget(connection, [(row.seq, row.queue, row.key, row.id)])
    if row.parent is not None and row.phase != ENDED:
        one_less(connection, find(connection, row.parent_queue), row.parent, now)
        changed.queues.add(row.parent_queue)
    return True, changed


def _forget(connection: sqlite3.Connection, found: Iterable[tuple[int, int, str | None, str]]) -> int:
    count = 0
    for seq, queue, key, id in found:
        for statement in rows.FORGET:
            connection.execute(statement, (seq,))
        if key is not None:
            connection.execute(rows.DROP_KEY, (queue, key, id))
        count += 1
    return count


def counts(connection: sqlite3.Connection, queue: str) -> dict[State, int]:
    """Return how many jobs are in each state."""
    return {STATES[state]: count for state, count in connection.execute(rows.COUNTS, (find(connection, queue).id,))}


def expire(connection: sqlite3.Connection, queue: str, now: int) -> Changed:
    """End some of the jobs that nobody has begun in their time."""
    changed = Changed([], [], set())
    for row in connection.execute(rows.LATE, (find(connection, queue).id, now)).fetchall():
        end(connection, queue, Row(*row), State.EXPIRED, b"", LATE, changed, now)
    return changed


def sweep(connection: sqlite3.Connection, queue: str, retention: Retention, now: int) -> int:
    """Forget some ended jobs past their retention, succeeded ones first; 0 where there are none left."""
    where = find(connection, queue).id
    limits = (now - microseconds(retention.succeeded), now - microseconds(retention.others))
    asked = ((rows.OLD, limits), (rows.OVER, (retention.most, True)), (rows.OVER, (retention.most, False)))
    found = (connection.execute(statement, (where, *values)).fetchall() for statement, values in asked)
    return _forget(connection, next(filter(None, found), ()))


def names(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the queues that have jobs."""
    return [row[0] for row in connection.execute(rows.NAMES)]
