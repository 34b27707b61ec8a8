"""One queue in SQLite against the model of the queue in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec
from hypothesis import settings
from hypothesis.stateful import invariant, rule

from noobly.clients.sqlite_rows import microseconds
from noobly.queueing.driver import Counts, Failure, Leased, Posted, Sent
from noobly.queueing.providers import _sqlite_rows as rows
from noobly.queueing.providers import _sqlite_work as work

from .test_queueing_line import LineMachine

BEGIN = 1_000_000.0


def at(now: float) -> int:
    return microseconds(BEGIN + now)


class SqliteLine:
    """The queue ``q`` of a file in memory, as the machine drives a line."""

    def __init__(self) -> None:
        self._file = sqlite3.connect(":memory:", isolation_level=None)
        for migration in rows.SCHEMA.migrations:
            for statement in migration:
                self._file.execute(statement)
        self._paused = False

    def close(self) -> None:
        self._file.close()

    def add(self, message: Posted, now: float, wall: float) -> Sent:
        return work.send(self._file, "q", [message], at(now))[0]

    def take(self, most: int, lease: float, now: float) -> Sequence[Leased]:
        return work.claim(self._file, "q", most, lease, at(now)).messages

    def ack(self, receipt: str, now: float) -> bool:
        return work.ack(self._file, "q", [receipt], at(now)).good[0]

    def nack(self, failure: Failure, now: float) -> bool:
        return work.nack(self._file, "q", [failure], at(now)).good[0]

    def extend(self, receipt: str, lease: float, now: float) -> bool:
        return work.extend(self._file, "q", [receipt], lease, at(now))[0]

    def remove(self, failure: Failure, now: float, wall: float) -> Posted | None:
        if not work.bury(self._file, "q", "q.dead", failure, at(now)).good[0]:
            return None
        (dead,) = work.claim(self._file, "q.dead", 1, 9.0, at(now)).messages
        work.ack(self._file, "q.dead", [dead.receipt], at(now))
        assert dead.message.died_at == at(now) / 1e6
        return msgspec.structs.replace(dead.message, died_at=wall)

    def peek(self, skip: int, most: int, now: float) -> Sequence[Leased]:
        return work.peek(self._file, "q", skip, most, at(now))

    def counts(self, now: float, wall: float) -> Counts:
        return work.counts(self._file, "q", at(now))

    def purge(self, now: float) -> int:
        count = work.purge(self._file, "q", at(now))
        while work.sweep(self._file):
            pass
        return count

    @property
    def paused(self) -> bool:
        return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        self._paused = value
        (work.pause if value else work.resume)(self._file, "q")

    def __len__(self) -> int:
        place = work.find(self._file, "q").id
        return int(self._file.execute("SELECT count(*) FROM queue_messages WHERE queue = ?", (place,)).fetchone()[0])

    @property
    def bytes(self) -> int:
        return 4 * len(self)

    def next_due(self) -> float | None:
        place = work.find(self._file, "q").id
        found = self._file.execute(rows.NEXT_DUE, (place,)).fetchone()[0]
        return None if found is None else found / 1e6 - BEGIN


class SqliteMachine(LineMachine):
    """The same, but that peeking shows what is ready before what waits, and nothing is tallied."""

    def __init__(self) -> None:
        super().__init__()
        self.line = SqliteLine()

    def teardown(self) -> None:
        self.line.close()

    @rule()
    def the_same_is_seen(self) -> None:
        seen = self.line.peek(0, 1000, self.model.now)
        assert sorted((one.message.id, one.deliveries) for one in seen) == sorted(
            (one.id, one.deliveries) for one in self.model.free()
        )

    @invariant()
    def the_same_is_there(self) -> None:
        assert len(self.line) == len(self.model.entries)


TestSqliteLine = SqliteMachine.TestCase
TestSqliteLine.settings = settings(max_examples=60, stateful_step_count=40)
