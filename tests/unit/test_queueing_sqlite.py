"""Queues in an SQLite file: how statements find their rows, what is bounded, and what processes learn of each other."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from noobly.clients.sqlite import Database, Schema
from noobly.clients.sqlite_arrivals import Glimpse
from noobly.clients.sqlite_config import SqliteConfig
from noobly.clients.sqlite_rows import microseconds
from noobly.core.clock import fresh_id
from noobly.core.errors import ConfigError
from noobly.core.scope import Environment
from noobly.queueing import open_queues
from noobly.queueing.driver import Failure, Posted
from noobly.queueing.providers import _sqlite_rows as rows
from noobly.queueing.providers import _sqlite_work as work
from noobly.queueing.providers.sqlite import SqliteQueues
from noobly.testing import FakeClock, eventually

HOUR = 3600.0


@asynccontextmanager
async def opened(path: Path, clock: FakeClock | None = None, **options):
    driver = SqliteQueues(SqliteConfig(path=str(path), **options), Environment(clock=clock))
    async with AsyncExitStack() as stack:
        await driver.start(stack)
        yield driver


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def driver(tmp_path, clock):
    async with opened(tmp_path / "queues.db", clock) as driver:
        yield driver


def posted(body: object = "", **fields) -> Posted:
    return Posted(id=fresh_id(), body=str(body).encode(), **fields)


def bodies(found) -> list[str]:
    return [one.message.body.decode() for one in found]


async def count(driver: SqliteQueues, table: str) -> int:
    return await driver._database.read(lambda c: c.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def statements() -> list[str]:
    found: list[str] = []
    for name, value in vars(rows).items():
        if name.isupper() and name != "NAMES":
            found += [value] if isinstance(value, str) else value if isinstance(value, tuple) else []
    return found


class TestStatements:
    @pytest.mark.parametrize("statement", statements(), ids=lambda statement: " ".join(statement.split())[:60])
    async def test_an_index_finds_the_rows(self, driver, statement):
        named = {"queue": 1, "now": 1}
        numbered = [number for number in range(1, 10) if f"?{number}" in statement]
        marks = max(numbered, default=statement.count("?"))
        values = named if ":queue" in statement else (1,) * marks
        plan = await driver._database.write(
            lambda c: [row[3] for row in c.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
        )
        assert not [step for step in plan if step.startswith("SCAN ") and not step.startswith("SCAN (")], plan
        assert "USE TEMP B-TREE FOR ORDER BY" not in plan

    async def test_a_claim_takes_as_long_in_a_long_queue_as_in_a_short_one(self, driver, clock):
        async def work() -> int:
            steps = 0

            def step() -> int:
                nonlocal steps
                steps += 1
                return 0

            await driver._database.write(lambda c: c.set_progress_handler(step, 1))
            (found,) = await driver.receive("q", 1, HOUR, 0)
            assert await driver.ack("q", [found.receipt]) == [True]
            await driver._database.write(lambda c: c.set_progress_handler(None, 1))
            return steps

        kinds = ({}, {"group": "g"}, {"delay": HOUR}, {"tenant": "t"}, {"priority": 3})
        await driver.send("q", [posted(**kind) for kind in kinds])
        short = await work()
        await driver.send("q", [posted(**kinds[number % 5]) for number in range(9000)])
        await driver.receive("q", 1000, HOUR, 0)
        assert await work() <= 1.5 * short


class TestOrder:
    async def test_a_group_goes_in_the_order_of_sending_whatever_its_priorities(self, driver):
        await driver.send("q", [posted(number, group="g", priority=number % 3) for number in range(6)])
        for number in range(6):
            (found,) = await driver.receive("q", 10, HOUR, 0)
            assert bodies([found]) == [str(number)]
            await driver.ack("q", [found.receipt])

    async def test_one_behind_others_still_waits_for_its_own_time(self, driver, clock):
        await driver.send("q", [posted(1, group="g"), posted(2, group="g", delay=10.0)])
        (found,) = await driver.receive("q", 10, HOUR, 0)
        await driver.ack("q", [found.receipt])
        assert await driver.receive("q", 10, HOUR, 0) == []
        clock.advance(10)
        assert bodies(await driver.receive("q", 10, HOUR, 0)) == ["2"]

    async def test_more_come_due_at_once_than_one_claim_rouses(self, driver, clock):
        await driver.send("q", [posted(number, delay=1.0) for number in range(2500)])
        clock.advance(1)
        found = [one for _ in range(3) for one in await driver.receive("q", 1000, HOUR, 0)]
        assert sorted(map(int, bodies(found))) == list(range(2500))


class TestReceipts:
    @pytest.mark.parametrize(
        "receipt",
        [
            "x",
            "1",
            ".",
            "1.",
            ".1",
            "1.1.1",
            "-1.1",
            "1.-1",
            " 1.1",
            "1.1 ",
            "²." + "1",
            "1.1\x00",
            "9" * 40 + ".1",
            "0.0",
        ],
    )
    async def test_what_is_none_is_refused(self, driver, receipt):
        await driver.send("q", [posted()])
        await driver.receive("q", 1, HOUR, 0)
        assert await driver.ack("q", [receipt]) == [False]
        assert await driver.nack("q", [Failure(receipt, 0, "")]) == [False]
        assert await driver.extend("q", [receipt], 1) == [False]
        assert await driver.bury("q", "d", Failure(receipt, 0, "")) is False
        assert (await driver.counts("q")).in_flight == 1

    async def test_it_is_good_for_its_queue_alone_and_for_no_later_message(self, driver):
        await driver.send("q", [posted()])
        (found,) = await driver.receive("q", 1, HOUR, 0)
        await driver.send("other", [posted()])
        assert await driver.ack("other", [found.receipt]) == [False]
        assert await driver.ack("q", [found.receipt, found.receipt]) == [True, False]
        await driver.send("q", [posted()])
        await driver.receive("q", 1, HOUR, 0)
        assert await driver.ack("q", [found.receipt]) == [False]


class TestBounds:
    async def test_keys_are_forgotten_after_their_window(self, driver, clock):
        for _ in range(20):
            await driver.send("q", [posted(dedup=fresh_id(), window=10.0) for _ in range(10)])
            clock.advance(11)
        assert await count(driver, "queue_keys") <= 20

    async def test_tenants_are_forgotten_once_they_are_served(self, driver):
        for start in range(0, 300, 100):
            await driver.send("q", [posted(tenant=f"t{start + number % 50}") for number in range(100)])
            for found in await driver.receive("q", 100, HOUR, 0):
                await driver.ack("q", [found.receipt])
        assert await count(driver, "queue_tenants") <= 100
        assert await driver.receive("q", 1, HOUR, 0) == []
        assert await count(driver, "queue_tenants") == 0

    async def test_a_purged_queue_leaves_nothing(self, driver):
        kinds = ({}, {"group": "g"}, {"delay": HOUR}, {"tenant": "t"}, {"dedup": "k", "window": HOUR})
        await driver.send("q", [posted(**kinds[number % 5]) for number in range(2000)])
        kept = (await driver.counts("q")).ready + (await driver.counts("q")).delayed
        assert await driver.purge("q") == kept == 1601
        assert await driver.queues() == []
        for table in ("queue_messages", "queue_keys", "queue_tenants", "queues"):
            await eventually(lambda table=table: _is_empty(driver, table))

    async def test_asking_makes_no_queue(self, driver):
        assert await driver.receive("q", 1, HOUR, 0) == []
        await driver.resume("q")
        assert await driver.purge("q") == 0
        assert await count(driver, "queues") == 0
        await driver.pause("q")
        assert await driver.queues() == []
        await driver.resume("q")
        assert await count(driver, "queues") == 0


async def _is_empty(driver: SqliteQueues, table: str) -> bool:
    return await count(driver, table) == 0


class TestPurging:
    async def test_what_is_under_way_stays_and_its_group_goes_on_after_it(self, driver):
        await driver.send("q", [posted("held", group="g"), posted("gone", group="g"), posted("gone too")])
        held = (await driver.receive("q", 1, HOUR, 0))[0]
        assert await driver.purge("q") == 2
        await driver.send("q", [posted("new", group="g")])
        assert await driver.receive("q", 10, HOUR, 0) == []
        assert await driver.ack("q", [held.receipt]) == [True]
        assert bodies(await driver.receive("q", 10, HOUR, 0)) == ["new"]

    async def test_a_paused_queue_stays_paused(self, driver):
        await driver.send("q", [posted()])
        await driver.pause("q")
        await driver.purge("q")
        assert await driver.queues() == []
        await driver.send("q", [posted()])
        assert (await driver.counts("q")).paused
        assert await driver.receive("q", 1, HOUR, 0) == []

    async def test_what_an_ended_process_has_not_swept_the_next_one_does(self, tmp_path):
        async with opened(tmp_path / "queues.db") as driver:
            await driver.send("q", [posted() for _ in range(1000)])
            await driver._database.write(lambda c: c.execute(rows.ABANDON, (1,)))
        async with opened(tmp_path / "queues.db") as driver:
            await eventually(lambda: _is_empty(driver, "queue_messages"))


class TestWaiting:
    """With receivers that would find a message by themselves only after 2 seconds."""

    async def test_a_message_of_another_process_comes_at_once(self, tmp_path):
        async with opened(tmp_path / "queues.db") as ours, opened(tmp_path / "queues.db") as theirs:
            now = asyncio.get_running_loop().time
            waiting = [asyncio.create_task(theirs.receive("q", 1, HOUR, 2.0)) for _ in range(3)]
            await eventually(lambda: len(theirs._arrivals._waiting.get("q", ())) == 3)
            began = now()
            await ours.send("q", [posted(number) for number in range(3)])
            found = [one for found in await asyncio.gather(*waiting) for one in found]
            assert sorted(bodies(found)) == ["0", "1", "2"]
            assert now() - began < 1.5

    async def test_a_delayed_message_of_another_process_comes_in_time(self, tmp_path):
        async with opened(tmp_path / "queues.db") as ours, opened(tmp_path / "queues.db") as theirs:
            now = asyncio.get_running_loop().time
            waiting = asyncio.create_task(theirs.receive("q", 1, HOUR, 2.0))
            await eventually(lambda: theirs._arrivals._waiting)
            began = now()
            await ours.send("q", [posted("late", delay=0.2)])
            assert bodies(await waiting) == ["late"]
            assert 0.19 < now() - began < 1.5

    async def test_the_next_of_a_group_comes_when_another_process_is_done(self, tmp_path):
        async with opened(tmp_path / "queues.db") as ours, opened(tmp_path / "queues.db") as theirs:
            await ours.send("q", [posted(1, group="g"), posted(2, group="g")])
            (first,) = await ours.receive("q", 1, HOUR, 0)
            waiting = asyncio.create_task(theirs.receive("q", 1, HOUR, 2.0))
            await eventually(lambda: theirs._arrivals._waiting)
            began = asyncio.get_running_loop().time()
            await ours.ack("q", [first.receipt])
            assert bodies(await waiting) == ["2"]
            assert asyncio.get_running_loop().time() - began < 1.5

    async def test_a_look_wakes_nobody_for_a_paused_queue(self, driver, clock):
        await driver.send("q", [posted(), posted(delay=3.0)])

        async def seen() -> Glimpse:
            now = microseconds(clock.time())
            return (await driver._database.read(lambda c: work.look(c, {"q": 5}, now)))["q"]

        assert await seen() == Glimpse(1, 3.0)
        await driver.pause("q")
        assert await seen() == Glimpse(0, None)
        await driver.resume("q")
        assert await seen() == Glimpse(1, 3.0)

    async def test_resumed_by_another_process(self, tmp_path):
        async with opened(tmp_path / "queues.db") as ours, opened(tmp_path / "queues.db") as theirs:
            await ours.send("q", [posted(1)])
            await ours.pause("q")
            waiting = asyncio.create_task(theirs.receive("q", 1, HOUR, 2.0))
            await eventually(lambda: theirs._arrivals._waiting)
            began = asyncio.get_running_loop().time()
            await ours.resume("q")
            assert bodies(await waiting) == ["1"]
            assert asyncio.get_running_loop().time() - began < 1.5


class TestTheFile:
    async def test_one_that_a_newer_release_has_written_is_refused(self, tmp_path):
        newer = Schema(name=rows.SCHEMA.name, migrations=(*rows.SCHEMA.migrations, ("CREATE TABLE later (n)",)))
        async with AsyncExitStack() as stack:
            await Database(tmp_path / "queues.db", schema=newer).start(stack)
        with pytest.raises(ConfigError, match=r"queues\.db has version 2 of the queueing tables"):
            async with open_queues(f"sqlite://{tmp_path}/queues.db"):
                raise AssertionError("it opened")

    @pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), ("power", 2)])
    async def test_durability_acts(self, tmp_path, durability, synchronous):
        async with opened(tmp_path / "queues.db", durability=durability) as driver:
            found = await driver._database.write(lambda c: c.execute("PRAGMA synchronous").fetchone()[0])
        assert found == synchronous
        async with opened(tmp_path / "default.db") as driver:
            assert await driver._database.write(lambda c: c.execute("PRAGMA synchronous").fetchone()[0]) == 2

    async def test_what_is_sent_and_acknowledged_waits_for_the_disk_and_what_is_leased_does_not(self, tmp_path):
        levels: list[int] = []

        def trace(connection: sqlite3.Connection) -> None:
            def note(statement: str) -> None:
                if statement == "COMMIT":
                    levels.append(connection.execute("PRAGMA synchronous").fetchone()[0])

            connection.set_trace_callback(note)

        async with opened(tmp_path / "queues.db") as driver:
            await driver._database.write(trace)
            levels.clear()
            await driver.send("q", [posted()])
            (found,) = await driver.receive("q", 1, HOUR, 0)
            await driver.extend("q", [found.receipt], HOUR)
            await driver.nack("q", [Failure(found.receipt, 0, "")])
            (found,) = await driver.receive("q", 1, HOUR, 0)
            await driver.ack("q", [found.receipt])
            await driver._database.write(lambda c: c.set_trace_callback(None))
        assert levels == [2, 1, 1, 2, 1, 2]

    async def test_busy_timeout_acts(self, tmp_path):
        async with opened(tmp_path / "queues.db", busy_timeout=0.25) as driver:
            found = await driver._database.write(lambda c: c.execute("PRAGMA busy_timeout").fetchone()[0])
        assert found == 250

    async def test_a_clock_that_is_set_moves_leases_by_as_much(self, driver, clock):
        await driver.send("q", [posted()])
        (found,) = await driver.receive("q", 1, 10.0, 0)
        clock.step(-HOUR)
        clock.advance(11)
        assert await driver.receive("q", 1, 10.0, 0) == []
        assert await driver.extend("q", [found.receipt], 10.0) == [True]
        clock.advance(10)
        (again,) = await driver.receive("q", 1, 10.0, 0)
        assert again.deliveries == 2
        clock.step(HOUR)
        assert await driver.ack("q", [again.receipt]) == [False]


def test_rows_are_what_the_table_has():
    connection = sqlite3.connect(":memory:")
    for statement in rows.SCHEMA.migrations[0]:
        connection.execute(statement)
    columns = [column[1] for column in connection.execute("PRAGMA table_info(queue_messages)")]
    connection.close()
    assert tuple(columns) == rows.Row._fields
