"""The table of jobs in memory, which defines what every store does, against a model that only knows lists."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from noobly.clients.sqlite_rows import microseconds
from noobly.working.driver import (
    FINAL,
    Added,
    Beat,
    Bounds,
    Claim,
    Claimed,
    Hold,
    JobRecord,
    NewJob,
    Outcome,
    Retention,
    State,
    Verdict,
)
from noobly.working.providers import _sqlite_adding as adding
from noobly.working.providers import _sqlite_claiming as claiming
from noobly.working.providers import _sqlite_ended as ended
from noobly.working.providers import _sqlite_jobs as stored
from noobly.working.providers import _sqlite_rows as rows
from noobly.working.providers._table import Table

ENDS = {
    Verdict.SUCCEEDED: State.SUCCEEDED,
    Verdict.FAILED: State.FAILED,
    Verdict.CANCELLED: State.CANCELLED,
    Verdict.EXPIRED: State.EXPIRED,
}
RATE = Bounds(starts=3, period=6.0)
MOMENT = 1 / 64
"""Seconds between two ends, so that each has a time of its own; exact as a float and in microseconds."""


@dataclass
class Model:
    """One job as the model sees it."""

    id: str
    number: int
    priority: int
    run_at: float
    state: State
    pending: int = 0
    at_once: bool = False
    attempts: int = 0
    stalls: int = 0
    until: float = 0.0
    hold: Hold | None = None
    cancelling: bool = False
    key: str | None = None
    ended: float = 0.0


def nobody(_: JobRecord) -> bool:
    """Say that no other job wants one."""
    return False


class SqliteTable:
    """The tables of the SQLite provider, asked as a ``Table`` is."""

    def __init__(self, _: object) -> None:
        self.file = sqlite3.connect(":memory:", isolation_level=None)
        for statement in chain.from_iterable(rows.SCHEMA.migrations):
            self.file.execute(statement)
        self.place = adding._place(self.file, "q")
        self.now = 0

    def at(self, now: float) -> int:
        self.now = microseconds(now)
        return self.now

    def known(self, new: NewJob, now: float) -> Added | None:
        return adding._known(self.file, self.place, new, self.at(now))

    def add(self, new: NewJob, now: float) -> None:
        adding._store(self.file, self.place, new, self.at(now))

    def child_ended(self, id: str, now: float) -> None:
        ended.one_less(self.file, rows.find(self.file, "q"), id, self.at(now))

    def claim(self, claim: Claim, now: float) -> Sequence[Claimed]:
        return claiming.claim(self.file, "q", claim, self.at(now)).jobs

    def beat(self, hold: Hold, lease: float, now: float) -> Beat:
        return claiming.beat(self.file, "q", [hold], lease, self.at(now))[0]

    def settle(self, outcome: Outcome, now: float) -> object:
        return ended.settle(self.file, "q", [outcome], self.at(now)).good[0] or None

    def cancel(self, id: str, now: float) -> object:
        return stored.cancel(self.file, "q", id, self.at(now))[1].ended or None

    def rerun(self, id: str, now: float) -> bool:
        return stored.rerun(self.file, "q", id, self.at(now))

    def remove(self, id: str) -> bool:
        return stored.remove(self.file, "q", id, self.now)[0]

    def sweep(self, retention: Retention, now: float, _: object) -> int:
        steps = iter(lambda: stored.sweep(self.file, "q", retention, self.at(now)), 0)
        return sum(steps)

    def wake(self, now: float) -> None:
        self.file.execute(rows.ROUSE, (self.place, self.at(now)))

    def page(self, states: Sequence[State], skip: int, most: int) -> Sequence[JobRecord]:
        return stored.page(self.file, "q", states, skip, most)


class Tables(RuleBasedStateMachine):
    """A table and its model, side by side."""

    holds = Bundle("holds")
    tables: Callable[[Callable[[], float]], Table | SqliteTable] = Table

    def __init__(self) -> None:
        super().__init__()
        self.table = self.tables(lambda: self.now)
        self.jobs: dict[str, Model] = {}
        self.now = 1000.0
        self.number = 0
        self.bucket = 3.0
        self.filled = self.now

    def rouse(self) -> None:
        for job in self.jobs.values():
            if job.state is State.RUNNING and job.until <= self.now:
                job.state, job.stalls, job.attempts, job.hold = State.QUEUED, job.stalls + 1, job.attempts - 1, None
            elif job.state in (State.DELAYED, State.RETRYING) and not job.at_once and self.due(job):
                job.state = State.QUEUED

    def due(self, job: Model) -> bool:
        return not job.pending and job.run_at <= self.now

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def holder(self, key: str) -> Model | None:
        held = [job for job in self.jobs.values() if job.key == key and job.state not in FINAL]
        return held[0] if held else None

    @rule(
        id=st.sampled_from("abcdefgh"),
        priority=st.integers(0, 2),
        delay=st.sampled_from([0, 0, 1, 5]),
        pending=st.sampled_from([0, 0, 0, 1, 2]),
        key=st.sampled_from([None, None, "k"]),
    )
    def add(self, id: str, priority: int, delay: float, pending: int, key: str | None) -> None:
        new = NewJob(id=id, queue="q", task="t", data=b"1", priority=priority, delay=delay, pending=pending, unique=key)
        found = self.table.known(new, self.now)
        expected = id if id in self.jobs else None
        if expected is None and key is not None and (holder := self.holder(key)) is not None:
            expected = holder.id
        assert (found.id if found else None) == expected
        if found is not None:
            return
        self.table.add(new, self.now)
        state = State.DELAYED if delay or pending else State.QUEUED
        self.jobs[id] = Model(id, self.next_number(), priority, self.now + delay, state, pending, key=key)

    @rule(seconds=st.sampled_from([0.5, 1, 2, 7]))
    def advance(self, seconds: float) -> None:
        self.now += seconds

    @rule(id=st.sampled_from("abcdefgh"))
    def child_ended(self, id: str) -> None:
        self.table.wake(self.now)
        self.table.child_ended(id, self.now)
        self.rouse()
        job = self.jobs.get(id)
        if job is not None and job.state not in FINAL and job.pending:
            job.pending -= 1
            self.rouse()

    @rule(
        target=holds,
        most=st.integers(1, 4),
        lease=st.sampled_from([1, 3, 50]),
        bounds=st.sampled_from([Bounds(), Bounds(), RATE, Bounds(running=2)]),
    )
    def claim(self, most: int, lease: float, bounds: Bounds) -> tuple[Hold, ...]:
        found = list(self.table.claim(Claim(worker="w", most=most, lease=lease, bounds=bounds), self.now))
        self.rouse()
        room = most
        if bounds.running:
            room = min(room, bounds.running - sum(job.state is State.RUNNING for job in self.jobs.values()))
        if bounds.starts:
            self.fill()
            room = min(room, int(self.bucket + 1e-6))
        ready = sorted(
            (job for job in self.jobs.values() if job.state is State.QUEUED or job.at_once),
            key=lambda job: (-job.priority, job.number),
        )[: max(0, room)]
        assert [one.job.id for one in found] == [job.id for job in ready]
        if bounds.starts:
            self.bucket -= len(found)
        for one, job in zip(found, ready, strict=True):
            job.state, job.attempts, job.until = State.RUNNING, job.attempts + 1, self.now + lease
            job.at_once = False
            job.hold = Hold(job.id, one.token)
            assert (one.job.attempts, one.job.stalls) == (job.attempts, job.stalls)
        return tuple(Hold(one.job.id, one.token) for one in found)

    def fill(self) -> None:
        self.bucket = min(3.0, self.bucket + (self.now - self.filled) * RATE.starts / RATE.period)
        self.filled = self.now

    def standing(self, hold: Hold) -> Model | None:
        job = self.jobs.get(hold.id)
        stands = job is not None and job.state is State.RUNNING and job.hold == hold and job.until > self.now
        return job if stands else None

    @rule(holds=holds, lease=st.sampled_from([1, 3, 50]))
    def beat(self, holds: tuple[Hold, ...], lease: float) -> None:
        for hold in holds:
            job = self.standing(hold)
            expected = Beat.LOST if job is None else Beat.CANCELLED if job.cancelling else Beat.KEPT
            assert self.table.beat(hold, lease, self.now) is expected
            if job is not None:
                job.until = self.now + lease

    @rule(holds=holds, verdict=st.sampled_from(Verdict), delay=st.sampled_from([0, 0, 2]))
    def settle(self, holds: tuple[Hold, ...], verdict: Verdict, delay: float) -> None:
        for hold in holds:
            job = self.standing(hold)
            found = self.table.settle(Outcome(hold=hold, verdict=verdict, delay=delay), self.now)
            assert (found is not None) is (job is not None)
            if job is None:
                continue
            job.hold = None
            if verdict in ENDS or job.cancelling:
                self.end(job, ENDS.get(verdict, State.CANCELLED))
                continue
            job.attempts -= verdict is Verdict.RELEASE
            retrying = State.RETRYING if verdict is Verdict.RETRY else State.DELAYED
            job.state, job.run_at = (retrying if delay else State.QUEUED), self.now + delay
            if verdict is Verdict.RETRY and not delay:
                job.state, job.at_once = State.RETRYING, True

    def end(self, job: Model, state: State) -> None:
        job.state, job.ended, job.cancelling, job.at_once = state, self.now, False, False
        self.now += MOMENT

    @rule(id=st.sampled_from("abcdefgh"))
    def cancel(self, id: str) -> None:
        ended = self.table.cancel(id, self.now)
        job = self.jobs.get(id)
        if job is None or job.state in FINAL:
            assert ended is None
        elif job.state is State.RUNNING:
            assert ended is None
            job.cancelling = True
        else:
            assert ended is not None
            self.end(job, State.CANCELLED)

    @rule(id=st.sampled_from("abcdefgh"))
    def rerun(self, id: str) -> None:
        self.table.wake(self.now)
        self.rouse()
        queued = self.table.rerun(id, self.now)
        job = self.jobs.get(id)
        idle = (State.RUNNING, State.QUEUED, State.SUCCEEDED)
        expected = job is not None and job.state not in idle and (job.state in FINAL or not job.pending)
        if expected and job.state in FINAL and job.key is not None:
            expected = self.holder(job.key) is None
        assert queued is expected
        if job is None or not queued:
            return
        if job.state in FINAL:
            job.attempts, job.stalls, job.pending = 0, 0, 0
        job.state, job.run_at, job.at_once = State.QUEUED, self.now, False

    @rule(id=st.sampled_from("abcdefgh"))
    def remove(self, id: str) -> None:
        job = self.jobs.get(id)
        removed = self.table.remove(id)
        assert removed is (job is not None and job.state is not State.RUNNING)
        if removed:
            del self.jobs[id]

    @precondition(lambda self: self.jobs)
    @rule(most=st.sampled_from([0, 2, 100]), age=st.sampled_from([1.0, 4.0, 100.0]))
    def sweep(self, most: int, age: float) -> None:
        count = self.table.sweep(Retention(succeeded=age, others=2 * age, most=most), self.now, nobody)
        ended = sorted((job for job in self.jobs.values() if job.state in FINAL), key=lambda job: job.ended)
        old = [job for job in ended if job.ended + (age if job.state is State.SUCCEEDED else 2 * age) <= self.now]
        young = sorted((job for job in ended if job not in old), key=lambda job: job.state is not State.SUCCEEDED)
        gone = {job.id for job in (*old, *young[: max(0, len(young) - most)])}
        assert count == len(gone)
        for id in gone:
            del self.jobs[id]

    @invariant()
    def the_same(self) -> None:
        self.table.wake(self.now)
        self.rouse()
        found = {
            one.id: (one.state, one.attempts, one.stalls, one.pending, one.cancelling)
            for one in self.table.page([], 0, 100)
        }
        assert found == {
            id: (job.state, job.attempts, job.stalls, job.pending, job.cancelling) for id, job in self.jobs.items()
        }


class SqliteTables(Tables):
    """The tables of the SQLite provider and the model."""

    tables = SqliteTable

    def teardown(self) -> None:
        self.table.file.close()


TestTable = Tables.TestCase
TestTable.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestSqliteTable = SqliteTables.TestCase
TestSqliteTable.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


def test_the_model_knows_all_verdicts() -> None:
    assert set(ENDS.values()) == FINAL
    assert set(Verdict) - set(ENDS) == {Verdict.RETRY, Verdict.RELEASE}


@pytest.mark.parametrize("starts", [1, 3, 7])
def test_a_rate_never_drifts(starts: int) -> None:
    table, bounds = Table(lambda: 0.0), Bounds(starts=starts, period=1.0)
    for number in range(1000):
        table.add(NewJob(id=str(number), queue="q", task="t", data=b""), 0.0)
    begun = [len(list(table.claim(Claim(worker="w", most=100, bounds=bounds), turn / 100))) for turn in range(1001)]
    assert begun[0] == starts
    assert sum(begun) == pytest.approx(starts * 11, abs=1)


def test_next_due_says_when_to_look_again() -> None:
    table = Table(lambda: 0.0)
    assert table.next_due(Bounds(), 0.0) is None
    table.add(NewJob(id="a", queue="q", task="t", data=b"", delay=5), 0.0)
    assert table.next_due(Bounds(), 0.0) == 5.0
    table.add(NewJob(id="b", queue="q", task="t", data=b""), 0.0)
    table.add(NewJob(id="c", queue="q", task="t", data=b""), 0.0)
    bounds = Bounds(starts=1, period=2.0)
    assert len(list(table.claim(Claim(worker="w", most=9, bounds=bounds), 0.0))) == 1
    assert table.next_due(bounds, 0.0) == 2.0
