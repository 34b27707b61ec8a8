"""Claiming jobs from an SQLite file and keeping claims: work in one transaction each; times are microseconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from noobly.clients.sqlite_arrivals import Glimpse
from noobly.clients.sqlite_rows import microseconds, parsed, seconds
from noobly.working.driver import Beat, Bounds, Claim, Claimed, Hold
from noobly.working.providers import _sqlite_rows as rows
from noobly.working.providers._sqlite_rows import ENDED, Row, Where, find

_in_turn = itemgetter(2, 0)
"""Of what ``CLAIM`` returns, in no order: the rank and the number."""


class Taken(NamedTuple):
    """Claimed jobs, or when it is worth looking again where there are none."""

    jobs: list[Claimed]
    due: int | None


def claim(connection: sqlite3.Connection, queue: str, claim: Claim, now: int) -> Taken:
    """Hand out jobs, within the bounds."""
    where = _mended(connection, find(connection, queue), claim.bounds, now)
    if not where.id or where.paused:
        return Taken([], None)
    connection.execute(rows.ROUSE, (where.id, now))
    most = min(claim.most, _room(connection, where, claim.bounds), _starts(where, claim.bounds, now))
    found: list[tuple[Any, ...]] = []
    if most > 0:
        asked = (where.id, most, now + microseconds(claim.lease), now, claim.worker)
        found = sorted(connection.execute(rows.CLAIM, asked), key=_in_turn)
    if not found:
        return Taken([], _next_look(connection, where, claim.bounds, now))
    if claim.bounds.starts:
        full_at = max(where.full_at, now) + len(found) * _cost(claim.bounds)
        connection.execute(rows.FULL_AT, (full_at, where.id))
    return Taken([rows.claimed(row, queue, claim.worker, now) for row in found], None)


def _room(connection: sqlite3.Connection, where: Where, bounds: Bounds) -> int:
    """Return how many more jobs may run at once."""
    if not bounds.running:
        return 1_000_000
    running: int = connection.execute(rows.RUNNING, (where.id,)).fetchone()[0]
    return bounds.running - running


def _cost(bounds: Bounds) -> int:
    return max(1, microseconds(bounds.cost))


def _mended(connection: sqlite3.Connection, where: Where, bounds: Bounds, now: int) -> Where:
    """Let a bucket be full within one period, which it would not be where the clock was set back."""
    latest = now + bounds.starts * _cost(bounds) if bounds.starts else where.full_at
    if where.full_at <= latest:
        return where
    connection.execute(rows.FULL_AT, (latest, where.id))
    return where._replace(full_at=latest)


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
    return Glimpse(ready, None if due is None else max(0.0, seconds(due - now)))


def beat(connection: sqlite3.Connection, queue: str, holds: Sequence[Hold], lease: float, now: int) -> list[Beat]:
    """Keep claims."""
    where, until = find(connection, queue), now + microseconds(lease)
    beats: list[Beat] = []
    for hold in holds:
        kept = connection.execute(rows.EXTEND, (*parsed(hold.token), where.id, hold.id, now, until)).fetchall()
        beats.append(Beat.LOST if not kept else Beat.CANCELLED if kept[0][0] else Beat.KEPT)
    return beats
