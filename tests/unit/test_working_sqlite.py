"""What the SQLite provider of working does with its tables, call by call, with times of the test's own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from threading import Event

import pytest

from noobly.clients.sqlite_config import SqliteConfig
from noobly.clients.sqlite_file import Durability, File
from noobly.core.scope import Environment
from noobly.working.driver import Bounds, Claim, Hold, NewJob, Outcome, Retrying, State, Verdict
from noobly.working.providers import _sqlite_adding as adding
from noobly.working.providers import _sqlite_claiming as claiming
from noobly.working.providers import _sqlite_ended as ended
from noobly.working.providers import _sqlite_jobs as jobs
from noobly.working.providers import _sqlite_rows as rows
from noobly.working.providers.sqlite import SqliteJobs

Q = "q"
SECOND = 1_000_000


@pytest.fixture
def file(tmp_path):
    return File(tmp_path / "jobs.db", schema=rows.SCHEMA, durability=Durability.PROCESS, busy_timeout=1.0, prepare=None)


@pytest.fixture
def connection(file):
    connection = file.create()
    yield connection
    connection.close()


def new(id, **how):
    return NewJob(id=id, queue=Q, task="t", retrying=Retrying(), **{"data": b"", **how})


def claimed(connection, most, now):
    taken = claiming.claim(connection, Q, Claim(worker="w", most=most, lease=60.0, bounds=Bounds()), now)
    return {one.job.id: Hold(one.job.id, one.token) for one in taken.jobs}


def listed(connection, *states, skip=0, most=100):
    return [one.id for one in jobs.page(connection, Q, states, skip, most)]


def in_every_phase(connection):
    """Leave jobs of all phases behind, and return their ids in the order in which they changed."""
    adding.add(connection, [new("timed", delay=100.0), new("ready"), new("held", priority=9)], SECOND)
    adding.add(connection, [new("parent", pending=1), new("done", priority=9)], 2 * SECOND)
    holds = claimed(connection, 2, 3 * SECOND)
    assert holds.keys() == {"held", "done"}
    good = Outcome(hold=holds["done"], verdict=Verdict.SUCCEEDED)
    assert ended.settle(connection, Q, [good], 4 * SECOND).good == [True]
    adding.add(connection, [new("late")], 5 * SECOND)
    return ["timed", "ready", "parent", "held", "done", "late"]


class TestPage:
    def test_all_phases_are_in_the_order_of_their_changes(self, connection):
        order = in_every_phase(connection)
        assert listed(connection) == order[::-1]

    def test_pages_join(self, connection):
        everything = in_every_phase(connection)[::-1]
        pages = [listed(connection, skip=skip, most=2) for skip in range(0, 8, 2)]
        assert [id for page in pages for id in page] == everything

    def test_some_states(self, connection):
        in_every_phase(connection)
        assert listed(connection, State.QUEUED, State.SUCCEEDED) == ["late", "done", "ready"]
        assert listed(connection, State.RUNNING) == ["held"]

    def test_it_sorts_no_more_than_it_shows(self, connection):
        steps = connection.execute("EXPLAIN QUERY PLAN " + rows.PAGE, {"queue": 1, "skip": 0, "most": 1}).fetchall()
        assert {"jobs_waiting", "jobs_timed", "jobs_ended"} <= {
            word for *_, step in steps for word in step.split() if step.startswith("SEARCH jobs USING INDEX")
        }


class TestSweep:
    @pytest.mark.parametrize(("statement", "index"), [(rows.LATE, "jobs_expiring"), (rows.OLD, "jobs_ended")])
    def test_an_index_finds_what_is_to_leave(self, connection, statement, index):
        values = (1,) * max(statement.count("?"), 2) if "?1" not in statement else (1, 1, 1)
        steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
        assert any(index in step for step in steps), steps
        assert not [step for step in steps if step.startswith("SCAN ")]


class TestSettle:
    def test_one_that_is_lost_does_the_others_no_harm(self, connection):
        adding.add(connection, [new("a"), new("b"), new("c")], SECOND)
        holds = claimed(connection, 3, SECOND)
        lost = Hold("b", holds["b"].token + "1")
        outcomes = [Outcome(hold=one, verdict=Verdict.SUCCEEDED) for one in (holds["a"], lost, holds["c"])]
        assert ended.settle(connection, Q, outcomes, 2 * SECOND).good == [True, False, True]
        assert listed(connection, State.SUCCEEDED) == ["c", "a"]
        assert listed(connection, State.RUNNING) == ["b"]

    def test_the_same_claim_counts_once(self, connection):
        adding.add(connection, [new("a")], SECOND)
        (hold,) = claimed(connection, 1, SECOND).values()
        outcomes = [Outcome(hold=hold, verdict=Verdict.SUCCEEDED), Outcome(hold=hold, verdict=Verdict.FAILED)]
        assert ended.settle(connection, Q, outcomes, 2 * SECOND).good == [True, False]
        assert listed(connection, State.SUCCEEDED) == ["a"]

    def test_all_kinds_of_ends_in_one_call(self, connection):
        adding.add(connection, [new(id) for id in "abcd"], SECOND)
        holds = claimed(connection, 4, SECOND)
        verdicts = {"a": Verdict.SUCCEEDED, "b": Verdict.RETRY, "c": Verdict.RELEASE, "d": Verdict.CANCELLED}
        outcomes = [Outcome(hold=holds[id], verdict=verdict) for id, verdict in verdicts.items()]
        assert ended.settle(connection, Q, outcomes, 2 * SECOND).good == [True] * 4
        found = {one.id: (one.state, one.attempts) for one in jobs.page(connection, Q, [], 0, 10)}
        assert found == {
            "a": (State.SUCCEEDED, 1),
            "b": (State.RETRYING, 1),
            "c": (State.QUEUED, 0),
            "d": (State.CANCELLED, 1),
        }


class TestRates:
    def test_a_clock_that_is_set_back_stops_no_queue_for_longer_than_a_period(self, connection):
        adding.add(connection, [new(id) for id in "abcd"], 3600 * SECOND)
        asked = Claim(worker="w", most=1, bounds=Bounds(starts=2, period=10.0))

        def begun(now):
            taken = claiming.claim(connection, Q, asked, now)
            return [one.job.id for one in taken.jobs] or taken.due

        assert begun(3600 * SECOND) == ["a"]
        assert begun(3600 * SECOND) == ["b"]
        assert begun(SECOND) == 6 * SECOND
        assert begun(6 * SECOND) == ["c"]
        assert begun(11 * SECOND) == ["d"]


class Gate:
    """Work that holds the writer until the test lets it go."""

    def __init__(self):
        self.begun, self.go = Event(), Event()

    def __call__(self, _):
        self.begun.set()
        assert self.go.wait(10)


class TestCancelledClaims:
    async def test_what_was_claimed_for_nobody_is_given_back(self, tmp_path):
        driver = SqliteJobs(SqliteConfig(path=str(tmp_path / "jobs.db")), Environment())
        async with AsyncExitStack() as stack:
            await driver.start(stack)
            await driver.add([new("a"), new("b")])
            first, second = Gate(), Gate()
            holding = [asyncio.create_task(driver._database.write(first))]
            await asyncio.to_thread(first.begun.wait, 10)
            # What waits meanwhile is one transaction, so the claim is under way while the second gate is shut.
            holding.append(asyncio.create_task(driver._database.write(second)))
            claiming = asyncio.create_task(driver.claim(Q, Claim(worker="gone", most=2, lease=600.0)))
            await asyncio.sleep(0)
            first.go.set()
            await asyncio.to_thread(second.begun.wait, 10)
            claiming.cancel()
            await asyncio.wait([claiming])
            second.go.set()
            await asyncio.gather(*holding)
            found = await driver.claim(Q, Claim(worker="w", most=2, wait=10.0))
            assert [(one.job.id, one.job.attempts, one.job.stalls) for one in found] == [("a", 1, 0), ("b", 1, 0)]


class TestSchema:
    @pytest.mark.parametrize("version", range(1, len(rows.SCHEMA.migrations)))
    def test_a_file_of_an_earlier_version_is_brought_up_to_date(self, file, version):
        old = File(
            file.path,
            schema=rows.Schema(name="working", migrations=rows.SCHEMA.migrations[:version]),
            durability=Durability.PROCESS,
            busy_timeout=1.0,
            prepare=None,
        )
        first = old.create()
        columns = first.execute("SELECT count(*) FROM pragma_table_info('jobs')").fetchone()[0]
        values = rows.values(new("a"), adding._place(first, Q), SECOND)[: columns - 1]
        first.execute(f"INSERT INTO jobs VALUES (NULL{', ?' * len(values)})", values)
        first.commit()
        first.close()
        connection = file.create()
        adding.add(connection, [new("b", correlation_id="r", traceparent="t")], SECOND)
        found = [(one.id, one.correlation_id, one.traceparent) for one in jobs.page(connection, Q, (), 0, 9)]
        assert found == [("b", "r", "t"), ("a", "", "")]
        assert claimed(connection, 2, SECOND).keys() == {"a", "b"}
        connection.close()
