"""The tables of queueing in an SQLite file, their statements, and a row as a message.

Times are whole microseconds of the wall clock, which the processes that share the file have in common. A clock that is
set forward ends leases and delays that much too early, and one that is set back that much too late.

Deliveries are part of a receipt, so they are never counted back: ``attempts`` of a message that is no dead letter is 0,
or less by each delivery that does not count.

A message is in state 0 (ready), 1 (waits for its time), 2 (under a lease) or 3 (behind others of its group). Statements
name states by number, for SQLite uses a partial index only where its condition stands in the statement.
"""

from __future__ import annotations

from typing import NamedTuple

from noobly.clients.sqlite import Schema
from noobly.clients.sqlite_rows import seconds, token
from noobly.queueing.driver import Leased, Posted

READY, DELAYED, BEHIND = 0, 1, 3
"""The states of a new message."""

SCHEMA = Schema(
    name="queueing",
    migrations=(
        (
            # A queue without a name was purged, and is swept up little by little.
            """CREATE TABLE queues (
                id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, listed INTEGER NOT NULL,
                paused INTEGER NOT NULL DEFAULT 0, round INTEGER NOT NULL DEFAULT 0
            )""",
            # No number is ever used twice, for a receipt is made of it. The body is last, so that a change of what
            # stands before it leaves the pages of a long one alone.
            """CREATE TABLE queue_messages (
                seq INTEGER PRIMARY KEY AUTOINCREMENT, queue INTEGER NOT NULL, state INTEGER NOT NULL,
                due INTEGER NOT NULL, deliveries INTEGER NOT NULL, rank INTEGER NOT NULL, turn INTEGER NOT NULL,
                sent_at INTEGER NOT NULL, died_at INTEGER NOT NULL, attempts INTEGER NOT NULL, id TEXT NOT NULL,
                "group" TEXT, tenant TEXT, first_error TEXT NOT NULL, last_error TEXT NOT NULL,
                headers TEXT NOT NULL, body BLOB NOT NULL
            )""",
            "CREATE INDEX queue_messages_ready ON queue_messages (queue, rank, turn) WHERE state = 0",
            "CREATE INDEX queue_messages_timed ON queue_messages (queue, due, state) WHERE state IN (1, 2)",
            """CREATE INDEX queue_messages_grouped ON queue_messages (queue, "group", state)
               WHERE "group" IS NOT NULL""",
            """CREATE TABLE queue_keys (
                queue INTEGER NOT NULL, key TEXT NOT NULL, id TEXT NOT NULL, ends INTEGER NOT NULL, UNIQUE (queue, key)
            )""",
            "CREATE INDEX queue_keys_ends ON queue_keys (ends)",
            """CREATE TABLE queue_tenants (
                queue INTEGER NOT NULL, tenant TEXT NOT NULL, turn INTEGER NOT NULL, PRIMARY KEY (queue, tenant)
            ) WITHOUT ROWID""",
            "CREATE INDEX queue_tenants_turn ON queue_tenants (queue, turn)",
        ),
    ),
)

QUEUE = "SELECT id, listed, paused, round FROM queues WHERE name = ?"
LIST_QUEUE = "INSERT INTO queues (name, listed) VALUES (?, 1) ON CONFLICT DO UPDATE SET listed = 1 RETURNING id, round"
PAUSE = "INSERT INTO queues (name, listed, paused) VALUES (?, 0, 1) ON CONFLICT DO UPDATE SET paused = 1"
RESUME = ("UPDATE queues SET paused = 0 WHERE name = ?", "DELETE FROM queues WHERE name = ? AND NOT listed")
NAMES = "SELECT name FROM queues WHERE listed ORDER BY name LIMIT 10000"
ROUND = "UPDATE queues SET round = ? WHERE id = ?"

KEY = "SELECT id FROM queue_keys WHERE queue = ? AND key = ? AND ends > ?"
SET_KEY = "INSERT OR REPLACE INTO queue_keys VALUES (?, ?, ?, ?)"
END_KEYS = "DELETE FROM queue_keys WHERE rowid IN (SELECT rowid FROM queue_keys WHERE ends <= ? ORDER BY ends LIMIT 10)"

TURN = """INSERT INTO queue_tenants VALUES (?1, ?2, max(?3, 1))
ON CONFLICT DO UPDATE SET turn = max(turn + 1, ?3) RETURNING turn"""
END_TURNS = "DELETE FROM queue_tenants WHERE queue = ? AND turn < ?"
CLEAR_TURNS = "DELETE FROM queue_tenants WHERE queue = ?"

GROUP_TAKEN = """SELECT 1 FROM queue_messages WHERE queue = ? AND "group" = ? LIMIT 1"""
INSERT = """INSERT INTO queue_messages (queue, state, due, deliveries, rank, turn, sent_at, died_at, attempts, id,
"group", tenant, first_error, last_error, headers, body) VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
FOLLOW = """UPDATE queue_messages SET state = iif(due > ?3, 1, 0) WHERE seq = (
    SELECT seq FROM queue_messages WHERE queue = ?1 AND "group" = ?2 AND state = 3 ORDER BY seq LIMIT 1
)"""

ROUSE = """UPDATE queue_messages SET state = 0 WHERE seq IN (
    SELECT seq FROM queue_messages WHERE queue = ? AND state IN (1, 2) AND due <= ? ORDER BY due LIMIT 1000
)"""
CLAIM = """UPDATE queue_messages SET state = 2, due = ?3, deliveries = deliveries + 1 WHERE seq IN (
    SELECT seq FROM queue_messages WHERE queue = ?1 AND state = 0 ORDER BY rank, turn, seq LIMIT ?2
) RETURNING *"""
NEXT_DUE = "SELECT min(due) FROM queue_messages WHERE queue = ? AND state IN (1, 2)"
COUNT_READY = "SELECT count(*) FROM (SELECT 1 FROM queue_messages WHERE queue = ? AND state = 0 LIMIT ?)"

ACK = """DELETE FROM queue_messages WHERE seq = ? AND deliveries = ? AND queue = ? AND state = 2 AND due > ?
RETURNING "group" """
TAKE = """DELETE FROM queue_messages WHERE seq = ? AND deliveries = ? AND queue = ? AND state = 2 AND due > ?
RETURNING *"""
EXTEND = """UPDATE queue_messages SET due = ?5
WHERE seq = ?1 AND deliveries = ?2 AND queue = ?3 AND state = 2 AND due > ?4"""
NACK = """UPDATE queue_messages SET state = iif(?5 > ?4, 1, 0), due = ?5,
first_error = iif(first_error = '', ?6, first_error), last_error = iif(?6 = '', last_error, ?6),
attempts = attempts - iif(attempts > 0 OR ?7, 0, 1)
WHERE seq = ?1 AND deliveries = ?2 AND queue = ?3 AND state = 2 AND due > ?4"""

PEEKS = (
    "SELECT seq FROM queue_messages WHERE queue = :queue AND state = 0 ORDER BY rank, turn, seq",
    """SELECT seq FROM queue_messages WHERE queue = :queue AND state IN (1, 2) AND (state = 1 OR due <= :now)
    ORDER BY due""",
    """SELECT seq FROM queue_messages WHERE queue = :queue AND "group" IS NOT NULL AND state = 3
    ORDER BY "group", seq""",
)
"""Messages that nobody holds: those that are ready, those that wait for their time, and those behind others."""
SHOW = "SELECT * FROM queue_messages WHERE seq = ?"

COUNT_NOW = (
    "SELECT count(*), min(seq) FROM queue_messages WHERE queue = :queue AND state = 0",
    "SELECT count(*), min(seq) FROM queue_messages WHERE queue = :queue AND state IN (1, 2) AND due <= :now",
    """SELECT count(*), min(seq) FROM queue_messages WHERE queue = :queue AND "group" IS NOT NULL AND state = 3""",
)
COUNT_LATER = """SELECT count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2)
FROM queue_messages WHERE queue = ? AND state IN (1, 2) AND due > ?"""
SENT_AT = "SELECT sent_at FROM queue_messages WHERE seq = ?"

ABANDON = "UPDATE queues SET name = NULL, listed = 0 WHERE id = ?"
SUCCEED = "INSERT INTO queues (name, listed, paused, round) VALUES (?, ?, ?, ?) RETURNING id"
KEEP_HELD = "UPDATE queue_messages SET queue = ?2 WHERE queue = ?1 AND state IN (1, 2) AND state = 2 AND due > ?3"
ABANDONED = "SELECT id FROM queues WHERE name IS NULL LIMIT 1"
SWEEPS = (
    "DELETE FROM queue_messages WHERE seq IN (SELECT seq FROM queue_messages WHERE queue = ? AND state = 0 LIMIT 200)",
    """DELETE FROM queue_messages WHERE seq IN (
        SELECT seq FROM queue_messages WHERE queue = ? AND state IN (1, 2) LIMIT 200
    )""",
    """DELETE FROM queue_messages WHERE seq IN (
        SELECT seq FROM queue_messages WHERE queue = ? AND "group" IS NOT NULL AND state = 3 LIMIT 200
    )""",
    "DELETE FROM queue_keys WHERE rowid IN (SELECT rowid FROM queue_keys WHERE queue = ? LIMIT 200)",
    CLEAR_TURNS,
    "DELETE FROM queues WHERE id = ?",
)
"""A small part of what an abandoned queue has left, one statement after another, and at last the queue."""


class Row(NamedTuple):
    """A row of ``queue_messages``, its columns in their order."""

    seq: int
    queue: int
    state: int
    due: int
    deliveries: int
    rank: int
    turn: int
    sent_at: int
    died_at: int
    attempts: int
    id: str
    group: str | None
    tenant: str | None
    first_error: str
    last_error: str
    headers: str
    body: bytes


def place(row: Row) -> tuple[int, int, int]:
    """Return where a message stands in its queue."""
    return row.rank, row.turn, row.seq


def receipt(row: Row) -> str:
    """Return what stands for the present delivery of a message."""
    return token(row.seq, row.deliveries)


def message(row: Row, receipt: str) -> Leased:
    """Return a row as a message."""
    posted = Posted(
        id=row.id,
        body=row.body,
        headers=row.headers,
        priority=-row.rank,
        group=row.group,
        tenant=row.tenant,
        first_error=row.first_error,
        last_error=row.last_error,
        attempts=max(0, row.attempts),
        died_at=seconds(row.died_at),
    )
    deliveries = row.deliveries + min(0, row.attempts)
    return Leased(message=posted, receipt=receipt, deliveries=deliveries, sent_at=seconds(row.sent_at))
