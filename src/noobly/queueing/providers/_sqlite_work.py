"""What queueing does in an SQLite file: each function is work in one transaction, and times are microseconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple

import msgspec

from noobly.clients.sqlite_arrivals import Glimpse
from noobly.clients.sqlite_rows import microseconds, parsed, seconds
from noobly.queueing.driver import ANSWER_BYTES, Counts, Failure, Leased, Posted, Sent, fitting
from noobly.queueing.providers import _sqlite_rows as rows
from noobly.queueing.providers._sqlite_rows import BEHIND, DELAYED, READY, Row


class Where(NamedTuple):
    """A queue in the file."""

    id: int = 0
    paused: bool = False
    round: int = 0


_NOWHERE = Where()
_FIRST = 10
"""Messages that are leased before it is known how large they are."""


class Claimed(NamedTuple):
    """Leased messages, or when the next one comes due where there are none."""

    messages: list[Leased]
    due: int | None


class Settled(NamedTuple):
    """Which receipts were good, and how many messages may be ready because of it."""

    good: list[bool]
    freed: int


def find(connection: sqlite3.Connection, queue: str) -> Where:
    """Return a queue; one that has no messages where it is unknown."""
    row = connection.execute(rows.QUEUE, (queue,)).fetchone()
    return Where(row[0], bool(row[2]), row[3]) if row else _NOWHERE


def send(connection: sqlite3.Connection, queue: str, messages: Sequence[Posted], now: int) -> list[Sent]:
    """Store messages."""
    where = _listed(connection, queue)
    taken: set[str] = set()
    sent: list[Sent] = []
    new: list[tuple[object, ...]] = []
    for message in messages:
        before = _known(connection, where.id, message, now) if message.dedup is not None else None
        sent.append(Sent(before or message.id, duplicate=before is not None))
        if before is None:
            new.append(_row(connection, where, message, taken, now))
    connection.executemany(rows.INSERT, new)
    return sent


def _listed(connection: sqlite3.Connection, queue: str) -> Where:
    row = connection.execute(rows.QUEUE, (queue,)).fetchone()
    if row and row[1]:
        return Where(row[0], bool(row[2]), row[3])
    identity, turn = connection.execute(rows.LIST_QUEUE, (queue,)).fetchall()[0]
    return Where(identity, False, turn)


def _known(connection: sqlite3.Connection, queue: int, message: Posted, now: int) -> str | None:
    """Return the message that was sent with a key before; without one, keep the key."""
    row = connection.execute(rows.KEY, (queue, message.dedup, now)).fetchone()
    if row:
        return str(row[0])
    connection.execute(rows.END_KEYS, (now,))
    connection.execute(rows.SET_KEY, (queue, message.dedup, message.id, now + microseconds(message.window)))
    return None


def _row(
    connection: sqlite3.Connection, where: Where, message: Posted, taken: set[str], now: int
) -> tuple[object, ...]:
    turn = 0
    if message.tenant is not None:
        turn = connection.execute(rows.TURN, (where.id, message.tenant, where.round)).fetchall()[0][0]
    state = DELAYED if message.delay > 0 else READY
    if message.group is not None:
        if message.group in taken or connection.execute(rows.GROUP_TAKEN, (where.id, message.group)).fetchone():
            state = BEHIND
        taken.add(message.group)
    return (
        where.id,
        state,
        now + microseconds(message.delay),
        -message.priority,
        turn,
        now,
        microseconds(message.died_at),
        message.attempts,
        message.id,
        message.group,
        message.tenant,
        message.first_error,
        message.last_error,
        message.headers,
        message.body,
    )


def claim(connection: sqlite3.Connection, queue: str, most: int, lease: float, now: int) -> Claimed:
    """Lease the next messages."""
    where = find(connection, queue)
    if not where.id or where.paused:
        return Claimed([], None)
    connection.execute(rows.ROUSE, (where.id, now))
    found = _claimed(connection, where, most, now + microseconds(lease))
    if not found:
        return Claimed([], _next_due(connection, where))
    _advance(connection, where, max(row.turn for row in found))
    return Claimed([rows.message(row, rows.receipt(row)) for row in found], None)


def _claimed(connection: sqlite3.Connection, where: Where, most: int, until: int) -> list[Row]:
    """Lease messages: a few at first, then as many as their size lets fit into an answer."""
    found: list[Row] = []
    size, fit = 0, _FIRST
    while len(found) < most and size < ANSWER_BYTES:
        asked = min(fit, most - len(found))
        portion = [Row(*row) for row in connection.execute(rows.CLAIM, (where.id, asked, until))]
        portion.sort(key=rows.place)
        found += portion
        if len(portion) < asked:
            break
        size += sum(len(row.body) for row in portion)
        fit = max(1, (ANSWER_BYTES - size) * len(found) // max(1, size))
    return found


def _advance(connection: sqlite3.Connection, where: Where, turn: int) -> None:
    """Begin a new round, in which nobody is behind the turn that was delivered."""
    if turn > where.round:
        connection.execute(rows.ROUND, (turn, where.id))
        connection.execute(rows.END_TURNS, (where.id, turn))


def _next_due(connection: sqlite3.Connection, where: Where) -> int | None:
    """Return when the next message comes due; where there is none, all tenants are alike again."""
    due: int | None = connection.execute(rows.NEXT_DUE, (where.id,)).fetchone()[0]
    if due is None and where.round:
        connection.execute(rows.CLEAR_TURNS, (where.id,))
    return due


def look(connection: sqlite3.Connection, asked: Mapping[str, int], now: int) -> dict[str, Glimpse]:
    """Look, without leasing anything, for messages of several queues."""
    return {queue: _glimpse(connection, find(connection, queue), most, now) for queue, most in asked.items()}


def _glimpse(connection: sqlite3.Connection, where: Where, most: int, now: int) -> Glimpse:
    if where.paused:
        return Glimpse(0, None)
    ready = connection.execute(rows.COUNT_READY, (where.id, most)).fetchone()[0]
    due = connection.execute(rows.NEXT_DUE, (where.id,)).fetchone()[0]
    return Glimpse(ready, None if due is None else max(0.0, seconds(due - now)))


def ack(connection: sqlite3.Connection, queue: str, receipts: Sequence[str], now: int) -> Settled:
    """Delete delivered messages."""
    where = find(connection, queue)
    good: list[bool] = []
    groups: list[str | None] = []
    for receipt in receipts:
        gone = connection.execute(rows.ACK, (*parsed(receipt), where.id, now)).fetchall()
        good.append(bool(gone))
        groups += [row[0] for row in gone]
    return Settled(good, _follow(connection, where.id, groups, now))


def _follow(connection: sqlite3.Connection, queue: int, groups: Iterable[str | None], now: int) -> int:
    """Let the next message of each group take the place of its first one, which is gone."""
    return sum(connection.execute(rows.FOLLOW, (queue, group, now)).rowcount for group in groups if group is not None)


def nack(connection: sqlite3.Connection, queue: str, failures: Sequence[Failure], now: int) -> Settled:
    """Give delivered messages back."""
    where = find(connection, queue)
    good = [
        connection.execute(
            rows.NACK, (*parsed(one.receipt), where.id, now, now + microseconds(one.delay), one.reason, one.counts)
        ).rowcount
        > 0
        for one in failures
    ]
    return Settled(good, sum(good))


def extend(connection: sqlite3.Connection, queue: str, receipts: Sequence[str], lease: float, now: int) -> list[bool]:
    """Let leases end later, or sooner."""
    where, until = find(connection, queue), now + microseconds(lease)
    return [
        connection.execute(rows.EXTEND, (*parsed(receipt), where.id, now, until)).rowcount > 0 for receipt in receipts
    ]


def bury(connection: sqlite3.Connection, queue: str, dead: str, failure: Failure, now: int) -> Settled:
    """Move a delivered message to another queue."""
    where = find(connection, queue)
    gone = connection.execute(rows.TAKE, (*parsed(failure.receipt), where.id, now)).fetchall()
    if not gone:
        return Settled([False], 0)
    taken = rows.message(Row(*gone[0]), "")
    message, reason = taken.message, failure.reason
    buried = msgspec.structs.replace(
        message,
        first_error=message.first_error or reason,
        last_error=reason or message.last_error,
        attempts=taken.deliveries,
        died_at=seconds(now),
    )
    send(connection, dead, [buried], now)
    return Settled([True], _follow(connection, where.id, [message.group], now))


def peek(connection: sqlite3.Connection, queue: str, skip: int, most: int, now: int) -> list[Leased]:
    """Return messages that nobody holds."""
    asked = {"queue": find(connection, queue).id, "now": now}
    found = chain.from_iterable(connection.execute(statement, asked) for statement in rows.PEEKS)
    return list(fitting(_peeked(connection, one) for one in islice(found, skip, skip + most)))


def _peeked(connection: sqlite3.Connection, one: tuple[int]) -> Leased:
    return rows.message(Row(*connection.execute(rows.SHOW, one).fetchone()), "")


def counts(connection: sqlite3.Connection, queue: str, now: int) -> Counts:
    """Return how many messages there are; the first of each kind was sent first, as far as the clock goes on."""
    where = find(connection, queue)
    asked = {"queue": where.id, "now": now}
    found = [connection.execute(statement, asked).fetchone() for statement in rows.COUNT_NOW]
    delayed, held = connection.execute(rows.COUNT_LATER, (where.id, now)).fetchone()
    first = min((row[1] for row in found if row[0]), default=None)
    sent_at = None if first is None else connection.execute(rows.SENT_AT, (first,)).fetchone()[0]
    return Counts(
        ready=sum(row[0] for row in found),
        delayed=delayed,
        in_flight=held,
        oldest=None if sent_at is None else max(0.0, seconds(now - sent_at)),
        paused=where.paused,
    )


def purge(connection: sqlite3.Connection, queue: str, now: int) -> int:
    """Delete all messages that nobody holds: the queue is abandoned, and another takes over its name and leases."""
    where, there = find(connection, queue), counts(connection, queue, now)
    if where.id:
        connection.execute(rows.ABANDON, (where.id,))
    if there.in_flight or where.paused:
        heir = (queue, there.in_flight > 0, where.paused, where.round)
        successor = connection.execute(rows.SUCCEED, heir).fetchall()[0][0]
        connection.execute(rows.KEEP_HELD, (where.id, successor, now))
    return there.ready + there.delayed


def sweep(connection: sqlite3.Connection) -> bool:
    """Delete a part of what purged queues have left; false where nothing is left."""
    abandoned = connection.execute(rows.ABANDONED).fetchone()
    return abandoned is not None and any(
        connection.execute(statement, abandoned).rowcount > 0 for statement in rows.SWEEPS
    )


def pause(connection: sqlite3.Connection, queue: str) -> None:
    """Hold a queue back."""
    connection.execute(rows.PAUSE, (queue,))


def resume(connection: sqlite3.Connection, queue: str) -> None:
    """Deliver again."""
    for statement in rows.RESUME:
        connection.execute(statement, (queue,))


def names(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the queues that were sent to."""
    return [row[0] for row in connection.execute(rows.NAMES)]
