"""What working does in an SQLite file: each function is work in one transaction, and times are microseconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from noobly.clients.sqlite_arrivals import Glimpse
from noobly.working.driver import (
    Beat,
    Bounds,
    Claim,
    Claimed,
    Hold,
    JobRecord,
    Outcome,
    Retention,
    State,
    Verdict,
)
from noobly.working.providers import _sqlite_rows as rows
from noobly.working.providers._sqlite_rows import BLOCKED, ENDED, HELD, NUMBERS, READY, STATES, TIMED, Row, microseconds

_ENDS = {
    Verdict.SUCCEEDED: State.SUCCEEDED,
    Verdict.FAILED: State.FAILED,
    Verdict.CANCELLED: State.CANCELLED,
    Verdict.EXPIRED: State.EXPIRED,
}


class Where(NamedTuple):
    """A queue in the file; ``full_at`` is when its rate's bucket is full again."""

    id: int = 0
    paused: bool = False
    full_at: int = 0


class Taken(NamedTuple):
    """Claimed jobs, or when it is worth looking again where there are none."""

    jobs: list[Claimed]
    due: int | None


class Changed(NamedTuple):
    """Which claims stood, the jobs that ended, and the queues in which jobs may be ready because of it."""

    good: list[bool]
    ended: list[tuple[str, str]]
    queues: set[str]


def find(connection: sqlite3.Connection, queue: str) -> Where:
    """Return a queue; one that has no jobs where it is unknown."""
    row = connection.execute(rows.QUEUE, (queue,)).fetchone()
    return Where(row[0], bool(row[1]), row[2]) if row else Where()


def claim(connection: sqlite3.Connection, queue: str, claim: Claim, now: int) -> Taken:
    """Hand out jobs, within the bounds."""
    where = find(connection, queue)
    if not where.id or where.paused:
        return Taken([], None)
    connection.execute(rows.ROUSE, (where.id, now))
    most = min(claim.most, _room(connection, where, claim.bounds), _starts(where, claim.bounds, now))
    found: list[Row] = []
    if most > 0:
        asked = (where.id, most, now + microseconds(claim.lease), now, claim.worker)
        found = [Row(*row) for row in connection.execute(rows.CLAIM, asked)]
        found.sort(key=lambda row: (row.rank, row.seq))
    if not found:
        return Taken([], _next_look(connection, where, claim.bounds, now))
    if claim.bounds.starts:
        full_at = max(where.full_at, now) + len(found) * _cost(claim.bounds)
        connection.execute(rows.FULL_AT, (full_at, where.id))
    return Taken([Claimed(rows.record(row, queue), rows.token(row), row.fence) for row in found], None)


def _room(connection: sqlite3.Connection, where: Where, bounds: Bounds) -> int:
    """Return how many more jobs may run at once."""
    if not bounds.running:
        return 1_000_000
    running: int = connection.execute(rows.RUNNING, (where.id,)).fetchone()[0]
    return bounds.running - running


def _cost(bounds: Bounds) -> int:
    return max(1, microseconds(bounds.period / bounds.starts))


def _starts(where: Where, bounds: Bounds, now: int) -> int:
    """Return how many starts the queue's rate has left.

    A token bucket as a single time, the generic cell rate algorithm of ITU-T I.371: ``full_at`` is when the bucket is
    full again, and one start costs ``period / starts``.
    """
    if not bounds.starts:
        return 1_000_000
    left = bounds.starts * _cost(bounds) - max(0, where.full_at - now)
    return max(0, left // _cost(bounds))


def _next_look(connection: sqlite3.Connection, where: Where, bounds: Bounds, now: int) -> int | None:
    """Return when it is worth looking again; None where only somebody else's doing can change anything."""
    due: int | None = connection.execute(rows.NEXT_DUE, (where.id,)).fetchone()[0]
    if not bounds.starts or not connection.execute(rows.COUNT_READY, (where.id, 1)).fetchone()[0]:
        return due
    start = where.full_at - (bounds.starts - 1) * _cost(bounds)
    return max(now, start if due is None else min(due, start))


def look(connection: sqlite3.Connection, asked: Mapping[str, int], now: int) -> dict[str, Glimpse]:
    """Look for jobs of queues (names beginning with ``q``) and for jobs that have ended (``j``, id and queue)."""
    return {name: _glimpse(connection, name, most, now) for name, most in asked.items()}


def _glimpse(connection: sqlite3.Connection, name: str, most: int, now: int) -> Glimpse:
    if name.startswith("j"):
        id, _, queue = name[1:].partition("\0")
        row = connection.execute(rows.FIND, (find(connection, queue).id, id)).fetchone()
        return Glimpse(most if row is None or Row(*row).phase == ENDED else 0, None)
    where = find(connection, name[1:])
    if where.paused:
        return Glimpse(0, None)
    ready = connection.execute(rows.COUNT_READY, (where.id, most)).fetchone()[0]
    due = connection.execute(rows.NEXT_DUE, (where.id,)).fetchone()[0]
    return Glimpse(ready, None if due is None else max(0.0, rows.seconds(due - now)))


def beat(connection: sqlite3.Connection, queue: str, holds: Sequence[Hold], lease: float, now: int) -> list[Beat]:
    """Keep claims."""
    where, until = find(connection, queue), now + microseconds(lease)
    beats: list[Beat] = []
    for hold in holds:
        kept = connection.execute(rows.EXTEND, (*rows.parsed(hold.token), where.id, hold.id, now, until)).fetchall()
        beats.append(Beat.LOST if not kept else Beat.CANCELLED if kept[0][0] else Beat.KEPT)
    return beats


def settle(connection: sqlite3.Connection, queue: str, outcomes: Sequence[Outcome], now: int) -> Changed:
    """End claims."""
    where, changed = find(connection, queue), Changed([], [], {queue})
    for outcome in outcomes:
        asked = (*rows.parsed(outcome.hold.token), where.id, outcome.hold.id, now)
        if outcome.verdict in _ENDS and _ended_alone(connection, asked, outcome):
            changed.good.append(True)
            changed.ended.append((queue, outcome.hold.id))
            continue
        row = connection.execute(rows.HOLDING, asked).fetchone()
        changed.good.append(row is not None)
        if row is None:
            continue
        if outcome.verdict in _ENDS:
            _end(connection, queue, Row(*row), _ENDS[outcome.verdict], outcome.result, outcome.error, changed, now)
        else:
            _again(connection, Row(*row), outcome, now)
    return changed


def _ended_alone(connection: sqlite3.Connection, asked: tuple[object, ...], outcome: Outcome) -> bool:
    """End a job that nothing else depends on, which most are, without looking at it first."""
    ended = (*asked, NUMBERS[_ENDS[outcome.verdict]], outcome.result, outcome.error)
    return connection.execute(rows.END_ALONE, ended).rowcount > 0


def _again(connection: sqlite3.Connection, row: Row, outcome: Outcome, now: int) -> None:
    retry = outcome.verdict is Verdict.RETRY
    waits = outcome.delay > 0
    state = State.RETRYING if retry else State.DELAYED if waits else State.QUEUED
    attempts, error = row.attempts - (not retry), outcome.error or row.error
    due = now + microseconds(outcome.delay)
    connection.execute(rows.AGAIN, (row.seq, TIMED if waits else READY, NUMBERS[state], due, now, attempts, error))


def _end(
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
    """Let the job that runs after an ended one know: it waits for one less, or fails."""
    where = find(connection, row.parent_queue)
    changed.queues.add(row.parent_queue)
    if state is State.SUCCEEDED or row.lenient:
        one_less(connection, where, parent_id, now)
        return
    parent = connection.execute(rows.FIND, (where.id, parent_id)).fetchone()
    if parent is not None and Row(*parent).phase != ENDED:
        reason = f"it runs after job {row.id}, which ended as {state.value}: {error}"
        _end(connection, row.parent_queue, Row(*parent), State.FAILED, b"", reason, changed, now)


def one_less(connection: sqlite3.Connection, where: Where, parent: str, now: int) -> None:
    """Count one job less that a job waits for; with the last one it may run."""
    for seq, pending, run_at in connection.execute(rows.ONE_LESS, (where.id, parent)).fetchall():
        if pending <= 0:
            waits = run_at > now
            state = State.DELAYED if waits else State.QUEUED
            connection.execute(rows.UNBLOCK, (seq, TIMED if waits else READY, NUMBERS[state], now))


def report(connection: sqlite3.Connection, queue: str, id: str, progress: bytes, lines: Sequence[str]) -> bool:
    """Store progress and log lines."""
    row = _row(connection, queue, id)
    if row is None:
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
    _end(connection, queue, row, State.CANCELLED, b"", "somebody cancelled the job", changed, now)
    return State.CANCELLED, changed


def rerun(connection: sqlite3.Connection, queue: str, id: str, now: int) -> bool:
    """Queue a job at once."""
    row = _row(connection, queue, id)
    if row is None or row.phase in (READY, HELD, BLOCKED) or STATES[row.state] is State.SUCCEEDED:
        return False
    connection.execute(rows.RERUN, (row.seq, now, row.phase == ENDED))
    if row.phase == ENDED and row.parent is not None:
        connection.execute(rows.ONE_MORE, (find(connection, row.parent_queue).id, row.parent))
    return True


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


def sweep(connection: sqlite3.Connection, queue: str, retention: Retention, now: int) -> int:
    """Forget some ended jobs past their retention; 0 where there are none left."""
    where = find(connection, queue).id
    limits = (now - microseconds(retention.succeeded), now - microseconds(retention.others))
    old = connection.execute(rows.OLD, (where, *limits)).fetchall()
    return _forget(connection, old or connection.execute(rows.OVER, (where, retention.most)).fetchall())


def names(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the queues that have jobs."""
    return [row[0] for row in connection.execute(rows.NAMES)]
