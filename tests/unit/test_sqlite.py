"""One SQLite file: commits together, reads beside them, cancellation, other processes, and sudden ends."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from noobly.clients.sqlite import Database, Durability, Schema
from noobly.core.errors import Closed, ConfigError, Conflict, Internal, RateLimited, TooLarge, Unavailable
from noobly.testing import eventually

SCHEMA = Schema(name="tests", migrations=(("CREATE TABLE rows (id INTEGER PRIMARY KEY, who TEXT NOT NULL)",),))
INSERT = "INSERT INTO rows (who) VALUES (?)"


@asynccontextmanager
async def opened(path: Path, **options):
    database = Database(path, schema=options.pop("schema", SCHEMA), **options)
    async with AsyncExitStack() as stack:
        await database.start(stack)
        yield database


@pytest.fixture
async def database(tmp_path):
    async with opened(tmp_path / "rows.db") as database:
        yield database


def insert(who: str):
    return lambda connection: connection.execute(INSERT, (who,)).lastrowid


def everybody(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT who FROM rows ORDER BY id")]


class Held:
    """Work that keeps the writer busy until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, connection: sqlite3.Connection) -> None:
        self.begun.set()
        assert self.go.wait(10)

    async def hold(self, database: Database) -> asyncio.Task[None]:
        task = asyncio.create_task(database.write(self))
        await asyncio.to_thread(self.begun.wait, 10)
        return task


class TestWriting:
    async def test_a_result_comes_back_and_is_seen_by_the_next_read(self, database):
        assert await database.write(insert("ada")) == 1
        assert await database.read(everybody) == ["ada"]

    async def test_what_waits_is_committed_together(self, database):
        commits = []
        await database.write(lambda connection: connection.set_trace_callback(commits.append))
        held = Held()
        first = await held.hold(database)
        rest = [asyncio.create_task(database.write(insert(str(number)))) for number in range(500)]
        await asyncio.sleep(0)
        held.go.set()
        await asyncio.gather(first, *rest)
        await database.write(lambda connection: connection.set_trace_callback(None))
        assert [statement for statement in commits if statement == "COMMIT"] == ["COMMIT"] * 3
        assert await database.read(everybody) == [str(number) for number in range(500)]

    async def test_many_writers_lose_nothing(self, database):
        async def write_some(writer: int) -> None:
            for number in range(20):
                await database.write(insert(f"{writer}-{number}"))

        await asyncio.gather(*(write_some(writer) for writer in range(100)))
        found = await database.read(everybody)
        assert len(found) == len(set(found)) == 2000

    async def test_more_than_go_into_one_transaction_keep_their_order(self, database):
        held = Held()
        first = await held.hold(database)
        rest = [asyncio.create_task(database.write(insert(str(number)))) for number in range(2500)]
        await asyncio.sleep(0)
        held.go.set()
        await asyncio.gather(first, *rest)
        assert await database.read(everybody) == [str(number) for number in range(2500)]

    async def test_work_that_fails_undoes_itself_alone(self, database):
        def fails(connection: sqlite3.Connection) -> None:
            connection.execute(INSERT, ("never",))
            raise ValueError("no")

        held = Held()
        first = await held.hold(database)
        others = [insert("one"), fails, lambda connection: connection.execute(INSERT, (None,)), insert("two")]
        tasks = [asyncio.create_task(database.write(work)) for work in others]
        await asyncio.sleep(0)
        held.go.set()
        outcomes = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes[2:4]] == [ValueError, sqlite3.IntegrityError]
        assert isinstance(database.classify(outcomes[3]), Conflict)
        assert await database.read(everybody) == ["one", "two"]

    async def test_a_bare_next_does_not_hang(self, database):
        with pytest.raises(RuntimeError, match="no next row"):
            await database.write(lambda connection: next(connection.execute("SELECT 1 WHERE 0")))
        await database.write(insert("later"))

    async def test_work_that_ends_the_transaction_fails_and_the_thread_lives_on(self, database):
        with pytest.raises(sqlite3.OperationalError):
            await database.write(lambda connection: connection.execute("ROLLBACK"))
        await database.write(insert("later"))
        assert await database.read(everybody) == ["later"]

    async def test_too_many_waiting_are_refused(self, tmp_path):
        async with opened(tmp_path / "rows.db", waiting=3) as database:
            held = Held()
            tasks = [await held.hold(database), *(asyncio.create_task(database.write(insert("x"))) for _ in range(2))]
            await asyncio.sleep(0)
            with pytest.raises(RateLimited, match="3 writes"):
                await database.write(insert("y"))
            held.go.set()
            await asyncio.gather(*tasks)
            await database.write(insert("z"))
            assert await database.read(everybody) == ["x", "x", "z"]


class TestDurability:
    @pytest.mark.parametrize("durability", Durability)
    async def test_a_transaction_is_as_durable_as_its_strictest_work_asks_for(self, tmp_path, durability):
        def level(connection: sqlite3.Connection) -> int:
            return connection.execute("PRAGMA synchronous").fetchone()[0]

        relaxed, strict = 1, 2 if durability is Durability.POWER else 1
        async with opened(tmp_path / "rows.db", durability=durability) as database:
            assert await database.write_relaxed(level) == relaxed
            assert await database.write(level) == strict
            assert await database.write_relaxed(level) == relaxed
            held = Held()
            first = await held.hold(database)
            works = [asyncio.create_task(call(level)) for call in (database.write_relaxed, database.write)]
            await asyncio.sleep(0)
            held.go.set()
            await first
            assert await asyncio.gather(*works) == [strict, strict]

    async def test_relaxed_work_is_work(self, database):
        assert await database.write_relaxed(insert("ada")) == 1
        with pytest.raises(sqlite3.IntegrityError):
            await database.write_relaxed(lambda connection: connection.execute(INSERT, (None,)))
        assert await database.read(everybody) == ["ada"]


class TestCancellation:
    async def test_before_its_turn_nothing_is_done(self, database):
        held = Held()
        first = await held.hold(database)
        second, third = (asyncio.create_task(database.write(insert(who))) for who in ("second", "third"))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        held.go.set()
        await asyncio.gather(first, third)
        assert await database.read(everybody) == ["third"]

    async def test_after_its_turn_it_is_done_nevertheless(self, database):
        held = Held()

        def work(connection: sqlite3.Connection) -> None:
            held(connection)
            connection.execute(INSERT, ("kept",))

        task = asyncio.create_task(database.write(work))
        await asyncio.to_thread(held.begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.go.set()
        await database.write(insert("next"))
        assert await database.read(everybody) == ["kept", "next"]

    async def test_a_result_that_nobody_waits_for_is_unclaimed(self, database):
        held, unclaimed = Held(), list[str]()

        def work(connection: sqlite3.Connection) -> str:
            held(connection)
            return "found"

        task = asyncio.create_task(database.write_relaxed(work, unclaimed=unclaimed.append))
        await asyncio.to_thread(held.begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.go.set()
        await database.write(insert("next"))
        assert unclaimed == ["found"]

    async def test_a_cancelled_read_leaves_its_connection_for_others(self, tmp_path):
        async with opened(tmp_path / "rows.db", readers=1) as database:
            held = Held()
            task = asyncio.create_task(database.read(held))
            await asyncio.to_thread(held.begun.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            held.go.set()
            assert await database.read(everybody) == []


class TestReading:
    async def test_a_read_sees_one_state_while_others_write(self, database):
        await database.write(insert("before"))
        begun, go = threading.Event(), threading.Event()

        def twice(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
            one = everybody(connection)
            begun.set()
            assert go.wait(10)
            return one, everybody(connection)

        reading = asyncio.create_task(database.read(twice))
        await asyncio.to_thread(begun.wait, 10)
        await database.write(insert("meanwhile"))
        go.set()
        assert await reading == (["before"], ["before"])
        assert await database.read(everybody) == ["before", "meanwhile"]

    async def test_reads_do_not_wait_for_a_write(self, database):
        held = Held()
        writing = await held.hold(database)
        assert await database.read(everybody) == []
        held.go.set()
        await writing

    async def test_a_read_cannot_write(self, database):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await database.read(insert("never"))
        assert await database.read(everybody) == []


class TestOpening:
    async def test_what_was_written_is_there_again(self, tmp_path):
        for durability in Durability:
            async with opened(tmp_path / "sub" / "rows.db", durability=durability) as database:
                await database.write(insert(durability.name))
        async with opened(tmp_path / "sub" / "rows.db") as database:
            assert await database.read(everybody) == ["PROCESS", "POWER"]
        assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == ["rows.db"]

    async def test_it_is_its_owners_alone(self, tmp_path):
        async with opened(tmp_path / "rows.db") as database:
            await database.write(insert("secret"))
            for path in tmp_path.iterdir():
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

    async def test_tables_are_brought_up_to_date(self, tmp_path):
        newer = Schema(name="tests", migrations=(*SCHEMA.migrations, ("ALTER TABLE rows ADD COLUMN age INTEGER",)))
        async with opened(tmp_path / "rows.db") as database:
            await database.write(insert("old"))
        async with opened(tmp_path / "rows.db", schema=newer) as database:
            assert await database.read(lambda c: c.execute("SELECT who, age FROM rows").fetchall()) == [("old", None)]
        with pytest.raises(ConfigError, match=r"rows\.db has version 2 of the tests tables"):
            async with opened(tmp_path / "rows.db"):
                raise AssertionError("an older release opened it")

    async def test_two_services_share_a_file(self, tmp_path):
        other = Schema(name="other", migrations=(("CREATE TABLE things (n INTEGER)",),))
        async with opened(tmp_path / "one.db") as one, opened(tmp_path / "one.db", schema=other) as two:
            await asyncio.gather(
                one.write(insert("a")), two.write(lambda c: c.execute("INSERT INTO things VALUES (1)"))
            )
            assert await two.read(everybody) == ["a"]

    async def test_a_migration_that_fails_leaves_the_file_as_it_was(self, tmp_path):
        broken = Schema(name="tests", migrations=(("CREATE TABLE a (n)", "CREATE TABLE a (n)"),))
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            async with opened(tmp_path / "rows.db", schema=broken):
                raise AssertionError("it opened")
        async with opened(tmp_path / "rows.db"):
            pass

    async def test_what_is_not_a_database_is_refused(self, tmp_path):
        (tmp_path / "rows.db").write_text("not a database, and longer than a header of one hundred bytes " * 10)
        with pytest.raises(Internal, match=r"rows\.db is damaged"):
            async with opened(tmp_path / "rows.db"):
                raise AssertionError("it opened")

    async def test_what_cannot_be_made_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(Unavailable, match="cannot be"):
            async with opened(tmp_path / "file" / "rows.db"):
                raise AssertionError("it opened")
        with pytest.raises(Unavailable, match="cannot be"):
            async with opened(tmp_path):
                raise AssertionError("it opened")

    async def test_functions_are_added_to_every_connection(self, tmp_path):
        def prepare(connection: sqlite3.Connection) -> None:
            connection.create_function("twice", 1, lambda value: 2 * value)

        async with opened(tmp_path / "rows.db", prepare=prepare) as database:
            for call in (database.read, database.write):
                assert await call(lambda c: c.execute("SELECT twice(21)").fetchone()[0]) == 42


class TestClosing:
    async def test_closed_means_closed(self, tmp_path):
        never = Database(tmp_path / "rows.db", schema=SCHEMA)
        async with opened(tmp_path / "rows.db") as database:
            pass
        for one in (never, database):
            for call in (one.read, one.write):
                with pytest.raises(Closed):
                    await call(everybody)

    async def test_what_waits_is_still_written(self, tmp_path):
        held = Held()
        async with opened(tmp_path / "rows.db") as database:
            tasks = [await held.hold(database)]
            tasks += [asyncio.create_task(database.write(insert(str(number)))) for number in range(10)]
            await asyncio.sleep(0)
            held.go.set()
        await asyncio.gather(*tasks)
        async with opened(tmp_path / "rows.db") as database:
            assert len(await database.read(everybody)) == 10

    async def test_its_threads_end(self, tmp_path):
        async with opened(tmp_path / "rows.db") as database:
            await database.read(everybody)
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("tests-")]

    async def test_a_cancelled_start_or_end_closes_what_was_opened(self, tmp_path):
        async def use() -> None:
            async with opened(tmp_path / "rows.db") as database:
                await database.write(insert("x"))

        for turns in range(6):
            task = asyncio.create_task(use())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await eventually(lambda: not [one for one in threading.enumerate() if one.name.startswith("tests-")])


CHILD = textwrap.dedent("""
    import asyncio, sys
    from contextlib import AsyncExitStack
    from noobly.clients.sqlite import Database, Durability, Schema

    SCHEMA = Schema(name="tests", migrations=(("CREATE TABLE rows (id INTEGER PRIMARY KEY, who TEXT NOT NULL)",),))
    path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

    async def main():
        database = Database(path, schema=SCHEMA, durability=Durability.PROCESS, busy_timeout=30)
        async with AsyncExitStack() as stack:
            await database.start(stack)
            async def some(writer):
                for number in range(count):
                    who = f"{name}-{writer}-{number}"
                    await database.write(lambda c: c.execute("INSERT INTO rows (who) VALUES (?)", (who,)))
                    print(who, flush=True)
            await asyncio.gather(*(some(writer) for writer in range(10)))

    asyncio.run(main())
""")


def child(path: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, str(path), name, str(count)], stdout=subprocess.PIPE)


class TestOtherProcesses:
    async def test_two_write_at_once_into_a_file_that_neither_has_made(self, tmp_path):
        children = [child(tmp_path / "rows.db", name, 30) for name in ("one", "two")]
        for one in children:
            await asyncio.to_thread(one.communicate, timeout=30)
            assert one.returncode == 0
        async with opened(tmp_path / "rows.db") as database:
            found = await database.read(everybody)
        assert len(found) == len(set(found)) == 600

    async def test_one_that_holds_the_file_for_too_long(self, tmp_path):
        async with opened(tmp_path / "rows.db", busy_timeout=0.1) as database:
            other = sqlite3.connect(tmp_path / "rows.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite3.OperationalError) as caught:
                await database.write(insert("never"))
            assert isinstance(database.classify(caught.value), Unavailable)
            assert "another process held" in str(database.classify(caught.value))
            other.execute("ROLLBACK")
            other.close()
            await database.write(insert("later"))
            assert await database.read(everybody) == ["later"]

    async def test_kill_9_loses_nothing_that_was_acknowledged(self, tmp_path):
        one = child(tmp_path / "rows.db", "killed", 1_000_000)
        assert one.stdout is not None
        acknowledged = [await asyncio.to_thread(one.stdout.readline) for _ in range(300)]
        one.send_signal(signal.SIGKILL)
        rest = await asyncio.to_thread(one.stdout.read)
        one.wait(10)
        one.stdout.close()
        told = [line.decode().strip() for line in acknowledged + rest.splitlines(keepends=True) if line.endswith(b"\n")]
        async with opened(tmp_path / "rows.db") as database:
            found = await database.read(everybody)
        assert len(told) >= 300
        assert set(told) <= set(found)
        assert len(found) == len(set(found)) <= len(told) + 10


def test_other_errors_are_not_its_business(tmp_path):
    database = Database(tmp_path / "rows.db", schema=SCHEMA)
    assert database.classify(ValueError("x")) is None
    assert database.classify(sqlite3.OperationalError("no code")) is None
    error = sqlite3.DataError("too big")
    error.sqlite_errorcode = sqlite3.SQLITE_TOOBIG
    assert isinstance(database.classify(error), TooLarge)
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    assert isinstance(database.classify(error), Unavailable)
