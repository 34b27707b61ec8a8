"""The tables of working in an SQLite file, their statements, and a row as a job.

Times are whole microseconds of the wall clock, which the processes that share the file have in common. A job is in
phase 0 (ready), 1 (waits for its time), 2 (held by a worker), 3 (waits for other jobs) or 4 (ended). Statements name
phases by number, for SQLite uses a partial index only where its condition stands in the statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from noobly.clients.sqlite import Schema
from noobly.clients.sqlite_rows import SECOND, microseconds, seconds, token
from noobly.working.driver import Claimed, JobRecord, NewJob, Retrying, State

STATES = tuple(State)
"""States by the number that stands for them in the file; only ever add to the end of the enumeration."""

NUMBERS = {state: number for number, state in enumerate(STATES)}
READY, TIMED, HELD, BLOCKED, ENDED = range(5)
_RUNNING = State.RUNNING

SCHEMA = Schema(
    name="working",
    migrations=(
        (
            """CREATE TABLE job_queues (
                id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, paused INTEGER NOT NULL DEFAULT 0,
                full_at INTEGER NOT NULL DEFAULT 0
            )""",
            # What is long stands last, so that a change of what stands before it leaves its pages alone.
            """CREATE TABLE jobs (
                seq INTEGER PRIMARY KEY AUTOINCREMENT, queue INTEGER NOT NULL, phase INTEGER NOT NULL,
                state INTEGER NOT NULL, due INTEGER NOT NULL, rank INTEGER NOT NULL, fence INTEGER NOT NULL,
                attempts INTEGER NOT NULL, stalls INTEGER NOT NULL, moved INTEGER NOT NULL, pending INTEGER NOT NULL,
                cancelling INTEGER NOT NULL, created_at INTEGER NOT NULL, run_at INTEGER NOT NULL,
                expires_at INTEGER NOT NULL, started_at INTEGER NOT NULL, finished_at INTEGER NOT NULL,
                max_attempts INTEGER NOT NULL, base REAL NOT NULL, cap REAL NOT NULL, jitter REAL NOT NULL,
                fixed INTEGER NOT NULL, timeout REAL NOT NULL, lenient INTEGER NOT NULL, id TEXT NOT NULL,
                task TEXT NOT NULL, key TEXT, parent TEXT, parent_queue TEXT NOT NULL, worker TEXT NOT NULL,
                error TEXT NOT NULL, progress BLOB NOT NULL, result BLOB NOT NULL, data BLOB NOT NULL,
                UNIQUE (queue, id)
            )""",
            "CREATE INDEX jobs_ready ON jobs (queue, rank) WHERE phase = 0",
            "CREATE INDEX jobs_timed ON jobs (queue, due, phase) WHERE phase IN (1, 2)",
            "CREATE INDEX jobs_ended ON jobs (queue, finished_at) WHERE phase = 4",
            "CREATE INDEX jobs_moved ON jobs (queue, moved)",
            "CREATE INDEX jobs_parent ON jobs (parent, parent_queue) WHERE parent IS NOT NULL",
            """CREATE TABLE job_keys (
                queue INTEGER NOT NULL, key TEXT NOT NULL, id TEXT NOT NULL, ends INTEGER NOT NULL,
                PRIMARY KEY (queue, key)
            ) WITHOUT ROWID""",
            """CREATE TABLE job_logs (
                number INTEGER PRIMARY KEY AUTOINCREMENT, job INTEGER NOT NULL, line TEXT NOT NULL
            )""",
            "CREATE INDEX job_logs_job ON job_logs (job)",
        ),
        # When a job changed last is indexed only where another index does not tell, for each index costs every job.
        ("DROP INDEX jobs_moved", "CREATE INDEX jobs_waiting ON jobs (queue, moved) WHERE phase <> 2 AND phase <> 4"),
        (
            """CREATE INDEX jobs_expiring ON jobs (queue, expires_at)
               WHERE expires_at > 0 AND fence = 0 AND phase <> 2 AND phase <> 4""",
        ),
        (
            "ALTER TABLE jobs ADD COLUMN correlation_id TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE jobs ADD COLUMN traceparent TEXT NOT NULL DEFAULT ''",
        ),
    ),
)

QUEUE = "SELECT id, paused, full_at FROM job_queues WHERE name = ?"
ADD_QUEUE = "INSERT INTO job_queues (name) VALUES (?)"
PAUSE = "INSERT INTO job_queues (name, paused) VALUES (?, 1) ON CONFLICT DO UPDATE SET paused = 1"
RESUME = "UPDATE job_queues SET paused = 0 WHERE name = ?"
FULL_AT = "UPDATE job_queues SET full_at = ? WHERE id = ?"
NAMES = """SELECT name FROM job_queues WHERE EXISTS (SELECT 1 FROM jobs WHERE queue = job_queues.id)
ORDER BY name LIMIT 10000"""

EXISTS = "SELECT 1 FROM jobs WHERE queue = ? AND id = ?"
KEY = """SELECT id FROM job_keys WHERE queue = ?1 AND key = ?2 AND (ends > ?3 OR (
    ends = 0 AND EXISTS (SELECT 1 FROM jobs WHERE queue = ?1 AND jobs.id = job_keys.id)
))"""
SET_KEY = "INSERT OR REPLACE INTO job_keys VALUES (?, ?, ?, ?)"
FREE_KEY = "DELETE FROM job_keys WHERE queue = ? AND key = ? AND id = ? AND ends = 0"
DROP_KEY = "DELETE FROM job_keys WHERE queue = ? AND key = ? AND id = ?"
INSERT = f"INSERT INTO jobs VALUES (NULL{', ?' * 35})"  # noqa: S608 - nothing but question marks

ROUSE = """UPDATE jobs SET stalls = stalls + (phase = 2), attempts = attempts - (phase = 2), phase = 0, state = 0,
moved = ?2 WHERE seq IN (
    SELECT seq FROM jobs WHERE queue = ?1 AND phase IN (1, 2) AND due <= ?2 ORDER BY due LIMIT 1000
)"""
RUNNING = "SELECT count(*) FROM jobs WHERE queue = ? AND phase IN (1, 2) AND phase = 2"
CLAIM = """UPDATE jobs SET phase = 2, state = 2, due = ?3, attempts = attempts + 1, fence = fence + 1,
started_at = ?4, moved = ?4, worker = ?5 WHERE seq IN (
    SELECT seq FROM jobs WHERE queue = ?1 AND phase = 0 ORDER BY rank, seq LIMIT ?2
) RETURNING seq, fence, rank, attempts, stalls, cancelling, created_at, run_at, expires_at, max_attempts, base, cap,
jitter, fixed, timeout, id, task, parent, parent_queue, error, progress, result, data, correlation_id, traceparent"""
NEXT_DUE = "SELECT min(due) FROM jobs WHERE queue = ? AND phase IN (1, 2)"
COUNT_READY = "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE queue = ? AND phase = 0 LIMIT ?)"

HOLDING = "SELECT * FROM jobs WHERE seq = ? AND fence = ? AND queue = ? AND id = ? AND phase = 2 AND due > ?"
EXTEND = """UPDATE jobs SET due = ?6 WHERE seq = ?1 AND fence = ?2 AND queue = ?3 AND id = ?4 AND phase = 2
AND due > ?5
RETURNING cancelling"""
END = """UPDATE jobs SET phase = 4, state = ?2, finished_at = ?3, moved = ?3, result = ?4, error = ?5, cancelling = 0
WHERE seq = ?1"""
END_ALONE = """UPDATE jobs SET phase = 4, state = ?6, finished_at = ?5, moved = ?5, result = ?7, error = ?8,
cancelling = 0 WHERE seq = ?1 AND fence = ?2 AND queue = ?3 AND id = ?4 AND phase = 2 AND due > ?5
AND key IS NULL AND parent IS NULL"""
AGAIN = """UPDATE jobs SET phase = ?2, state = ?3, due = ?4, run_at = ?4, moved = ?5, attempts = ?6, error = ?7
WHERE seq = ?1"""
ONE_LESS = (
    "UPDATE jobs SET pending = pending - 1 WHERE queue = ? AND id = ? AND phase = 3 RETURNING seq, pending, run_at"
)
ONE_MORE = "UPDATE jobs SET pending = pending + 1 WHERE queue = ? AND id = ? AND phase = 3"
ADOPT = "UPDATE jobs SET parent = ?, parent_queue = ?, lenient = ? WHERE seq = ?"
UNBLOCK = "UPDATE jobs SET phase = ?2, state = ?3, due = run_at, moved = ?4 WHERE seq = ?1"

FIND = "SELECT * FROM jobs WHERE queue = ? AND id = ?"
CANCELLING = "UPDATE jobs SET cancelling = 1 WHERE seq = ?"
RERUN = """UPDATE jobs SET phase = 0, state = 0, due = ?2, run_at = ?2, moved = ?2, cancelling = 0, finished_at = 0,
pending = 0, expires_at = iif(?3, 0, expires_at), attempts = iif(?3, 0, attempts), stalls = iif(?3, 0, stalls)
WHERE seq = ?1"""
PROGRESS = "UPDATE jobs SET progress = ? WHERE seq = ?"
LOG = "INSERT INTO job_logs (job, line) VALUES (?, ?)"
TRIM_LOG = """DELETE FROM job_logs WHERE job = ?1 AND number <= (
    SELECT number FROM job_logs WHERE job = ?1 ORDER BY number DESC LIMIT 1 OFFSET 1000
)"""
LOGS = "SELECT line FROM job_logs WHERE job = ? ORDER BY number"
CHILDREN = "SELECT * FROM jobs WHERE parent = ? AND parent_queue = ? ORDER BY seq"
QUEUE_NAME = "SELECT name FROM job_queues WHERE id = ?"
_LATEST = (
    "SELECT * FROM (SELECT * FROM jobs WHERE queue = :queue AND {} ORDER BY {} DESC, seq DESC LIMIT :skip + :most)"
)
PAGE = f"""SELECT * FROM (
    {_LATEST.format("phase <> 2 AND phase <> 4 {0}", "moved")}
    UNION ALL {_LATEST.format("phase IN (1, 2) AND phase = 2 {0}", "moved")}
    UNION ALL {_LATEST.format("phase = 4 {0}", "finished_at")}
) ORDER BY moved DESC, seq DESC LIMIT :most OFFSET :skip"""  # noqa: S608 - made of nothing but what stands here
PAGE_OF = PAGE.format("AND state IN (SELECT value FROM json_each(:states))")
PAGE = PAGE.format("")
COUNTS = "SELECT state, count(*) FROM jobs WHERE queue = ? GROUP BY state"
FORGET = ("DELETE FROM job_logs WHERE job = ?", "DELETE FROM jobs WHERE seq = ?")
LATE = """SELECT * FROM jobs WHERE queue = ? AND expires_at <= ?
AND expires_at > 0 AND fence = 0 AND phase <> 2 AND phase <> 4 LIMIT 500"""
# A job that runs after it and has not ended may want to see it.
_FREE = """SELECT seq, queue, key, id FROM jobs WHERE queue = ?1 AND phase = 4 AND (parent IS NULL OR NOT EXISTS (
    SELECT 1 FROM job_queues, jobs AS later WHERE job_queues.name = jobs.parent_queue
    AND later.queue = job_queues.id AND later.id = jobs.parent AND later.phase <> 4
)) AND """
OLD = f"{_FREE} finished_at <= iif(state = 4, ?2, ?3) ORDER BY finished_at LIMIT 500"
OVER = f"""{_FREE} (state = 4) = ?3 ORDER BY finished_at
LIMIT min(500, max(0, (SELECT count(*) FROM jobs WHERE queue = ?1 AND phase = 4) - ?2))"""  # noqa: S608 - made of nothing but what stands here


class Row(NamedTuple):
    """A row of ``jobs``, its columns in their order."""

    seq: int
    queue: int
    phase: int
    state: int
    due: int
    rank: int
    fence: int
    attempts: int
    stalls: int
    moved: int
    pending: int
    cancelling: int
    created_at: int
    run_at: int
    expires_at: int
    started_at: int
    finished_at: int
    max_attempts: int
    base: float
    cap: float
    jitter: float
    fixed: int
    timeout: float
    lenient: int
    id: str
    task: str
    key: str | None
    parent: str | None
    parent_queue: str
    worker: str
    error: str
    progress: bytes
    result: bytes
    data: bytes
    correlation_id: str
    traceparent: str


class Where(NamedTuple):
    """A queue in the file, id 0 where it has none; ``full_at`` is when its rate's bucket is full again."""

    id: int = 0
    paused: bool = False
    full_at: int = 0


def find(connection: sqlite3.Connection, queue: str) -> Where:
    """Return a queue; one that has no jobs where it is unknown."""
    row = connection.execute(QUEUE, (queue,)).fetchone()
    return Where(row[0], bool(row[1]), row[2]) if row else Where()


def values(new: NewJob, queue: int, now: int) -> tuple[object, ...]:
    """Return a new job as the values of a row, without its number."""
    run_at = now + microseconds(new.delay)
    waits = new.delay > 0
    phase = BLOCKED if new.pending else TIMED if waits else READY
    state = State.DELAYED if new.pending or waits else State.QUEUED
    retrying = new.retrying
    times = (now, run_at, run_at + microseconds(new.expires) if new.expires else 0, 0, 0)
    tries = (retrying.attempts, retrying.base, retrying.cap, retrying.jitter, retrying.fixed)
    names = (new.id, new.task, new.unique, new.parent, new.parent_queue, "", "")
    place = (queue, phase, NUMBERS[state], run_at, -new.priority)
    content = (b"", b"", new.data, new.correlation_id, new.traceparent)
    return (*place, 0, 0, 0, now, new.pending, 0, *times, *tries, new.timeout, new.lenient, *names, *content)


def claimed(row: Sequence[Any], queue: str, worker: str, now: int) -> Claimed:
    """Return what ``CLAIM`` returns of a row as a claimed job; only what the claim does not know itself is fetched."""
    seq, fence, rank, attempts, stalls, cancelling, created_at, run_at, expires_at = row[:9]
    tries, base, cap, jitter, fixed, timeout, id, task, parent, parent_queue, error = row[9:20]
    progress, result, data, correlation_id, traceparent = row[20:]
    # In two steps, for Python passes more than 15 names by way of a dictionary, which takes twice as long.
    job = JobRecord(
        id=id,
        queue=queue,
        task=task,
        data=data,
        state=_RUNNING,
        priority=-rank,
        retrying=Retrying(attempts=tries, base=base, cap=cap, jitter=jitter, fixed=fixed != 0),
        timeout=timeout,
        attempts=attempts,
        stalls=stalls,
        created_at=created_at / SECOND,
        run_at=run_at / SECOND,
        expires_at=expires_at / SECOND,
        started_at=now / SECOND,
        worker=worker,
    )
    job = replace(
        job,
        progress=progress,
        result=result,
        error=error,
        parent=parent,
        parent_queue=parent_queue,
        cancelling=cancelling != 0,
        correlation_id=correlation_id,
        traceparent=traceparent,
    )
    return Claimed(job, token(seq, fence), fence)


def record(row: Row, queue: str) -> JobRecord:
    """Return a row as a job."""
    return JobRecord(
        id=row.id,
        queue=queue,
        task=row.task,
        data=row.data,
        state=STATES[row.state],
        priority=-row.rank,
        retrying=Retrying(
            attempts=row.max_attempts, base=row.base, cap=row.cap, jitter=row.jitter, fixed=row.fixed != 0
        ),
        timeout=row.timeout,
        attempts=row.attempts,
        stalls=row.stalls,
        created_at=seconds(row.created_at),
        run_at=seconds(row.run_at),
        expires_at=seconds(row.expires_at),
        started_at=seconds(row.started_at),
        finished_at=seconds(row.finished_at),
        progress=row.progress,
        result=row.result,
        error=row.error,
        worker=row.worker,
        parent=row.parent,
        parent_queue=row.parent_queue,
        pending=row.pending,
        cancelling=row.cancelling != 0,
        correlation_id=row.correlation_id,
        traceparent=row.traceparent,
    )
