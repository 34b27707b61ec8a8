"""The ends of attempts and jobs in an SQLite file: work in one transaction each; times are microseconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from noobly.clients.sqlite_rows import microseconds, parsed
from noobly.working.driver import FINAL, Outcome, State, Verdict
from noobly.working.providers import _sqlite_rows as rows
from noobly.working.providers._outcomes import error_after, state_after
from noobly.working.providers._sqlite_rows import BLOCKED, NUMBERS, READY, TIMED, Row, Where, find


class Changed(NamedTuple):
    """Which claims stood, the jobs that ended, and the queues in which jobs may be ready because of it."""

    good: list[bool]
    ended: list[tuple[str, str]]
    queues: set[str]


def settle(connection: sqlite3.Connection, queue: str, outcomes: Sequence[Outcome], now: int) -> Changed:
    """End claims."""
    where = find(connection, queue)
    asked = [(*parsed(outcome.hold.token), where.id, outcome.hold.id, now) for outcome in outcomes]
    if _ended_alone(connection, asked, outcomes):
        return Changed([True] * len(outcomes), [(queue, outcome.hold.id) for outcome in outcomes], {queue})
    changed = Changed([], [], {queue})
    for claim, outcome in zip(asked, outcomes, strict=True):
        found = connection.execute(rows.HOLDING, claim).fetchone()
        changed.good.append(found is not None)
        if found is None:
            continue
        row = Row(*found)
        state = state_after(outcome, row.cancelling != 0)
        if state.final:
            end(connection, queue, row, state, outcome.result, error_after(outcome, state), changed, now)
        else:
            _again(connection, row, state, outcome, now)
    return changed


def _ended_alone(
    connection: sqlite3.Connection, asked: Sequence[tuple[object, ...]], outcomes: Sequence[Outcome]
) -> bool:
    """End jobs that nothing else depends on, as most are, without looking at them first; all of them, or none."""
    states = [state_after(outcome, False) for outcome in outcomes]
    if not FINAL.issuperset(states):
        return False
    endings = [
        (*claim, NUMBERS[state], outcome.result, error_after(outcome, state))
        for claim, state, outcome in zip(asked, states, outcomes, strict=True)
    ]
    connection.execute("SAVEPOINT alone")
    whole = connection.executemany(rows.END_ALONE, endings).rowcount == len(outcomes)
    if not whole:
        connection.execute("ROLLBACK TO alone")
    connection.execute("RELEASE alone")
    return whole


def _again(connection: sqlite3.Connection, row: Row, state: State, outcome: Outcome, now: int) -> None:
    phase = TIMED if outcome.delay > 0 else READY
    attempts, error = row.attempts - (outcome.verdict is Verdict.RELEASE), outcome.error or row.error
    due = now + microseconds(outcome.delay)
    connection.execute(rows.AGAIN, (row.seq, phase, NUMBERS[state], due, now, attempts, error))


def end(
    connection: sqlite3.Connection,
    queue: str,
    row: Row,
    state: State,
    result: bytes,
    error: str,
    changed: Changed,
    now: int,
) -> None:
    """Bring a job to its last state, and let the job that runs after it know."""
    connection.execute(rows.END, (row.seq, NUMBERS[state], now, result, error))
    if row.key is not None:
        connection.execute(rows.FREE_KEY, (row.queue, row.key, row.id))
    changed.ended.append((queue, row.id))
    if row.parent is not None:
        tell_parent(connection, row, row.parent, state, error, changed, now)


def tell_parent(
    connection: sqlite3.Connection, row: Row, parent_id: str, state: State, error: str, changed: Changed, now: int
) -> None:
    """Let the job that runs after an ended one know, if it still waits: for one less, or it fails."""
    where = find(connection, row.parent_queue)
    changed.queues.add(row.parent_queue)
    if state is State.SUCCEEDED or row.lenient:
        one_less(connection, where, parent_id, now)
        return
    parent = connection.execute(rows.FIND, (where.id, parent_id)).fetchone()
    if parent is not None and Row(*parent).phase == BLOCKED:
        reason = f"it runs after job {row.id}, which ended as {state.value}: {error}"
        end(connection, row.parent_queue, Row(*parent), State.FAILED, b"", reason, changed, now)


def one_less(connection: sqlite3.Connection, where: Where, parent: str, now: int) -> None:
    """Count one job less that a job waits for; with the last one it may run."""
    for seq, pending, run_at in connection.execute(rows.ONE_LESS, (where.id, parent)).fetchall():
        if pending <= 0:
            waits = run_at > now
            state = State.DELAYED if waits else State.QUEUED
            connection.execute(rows.UNBLOCK, (seq, TIMED if waits else READY, NUMBERS[state], now))
