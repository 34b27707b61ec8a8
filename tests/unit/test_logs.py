"""The portable type: log calls, levels, and what the public methods refuse; stores are the conformance suite's."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from noobly.core.correlation import bind, correlated
from noobly.core.errors import InvalidArgument, Unavailable
from noobly.core.events import Event
from noobly.core.streams import Skipped
from noobly.logging import Entry, ExceptionInfo, Logs, Record, open_logs
from noobly.logging.driver import Line
from noobly.logging.events import LevelChanged, Purged, Searched
from noobly.testing import eventually

NOW = "2026-11-23T04:45:45.000001Z"


async def messages(logs: Logs) -> list[str]:
    return [record.message async for record in logs.search_all()]


def rotations(folder: Path) -> int:
    return len(list(folder.glob("app.log.2*")))


class TestCalls:
    async def test_each_level(self) -> None:
        async with open_logs(level="trace", service="shop") as logs:
            for level in ("trace", "debug", "info", "warn", "error", "fatal"):
                getattr(logs, level)("m", level=level)
            found = [record async for record in logs.search_all()]
            assert [record.level for record in reversed(found)] == ["trace", "debug", "info", "warn", "error", "fatal"]
            assert all(record.attributes == {"level": record.level} and record.service == "shop" for record in found)

    async def test_nothing_that_is_passed_raises(self) -> None:
        async with open_logs() as logs:
            logs.info(ValueError("odd"))  # type: ignore[arg-type]  # callers do such things
            logs.info("\ud800", value="\ud800", message="m", self=1)
            logs.exception("nothing is being handled")
            assert await messages(logs) == ["nothing is being handled", "\\ud800", "ValueError: odd"]

    async def test_an_exception_is_handed_over(self) -> None:
        async with open_logs() as logs:
            logs.exception("failed", error=LookupError("password=x"), order=1)
            (record,) = (await logs.search()).records
            assert record.exception == ExceptionInfo(
                "LookupError", "password=[redacted]", "LookupError: password=[redacted]\n"
            )

    async def test_bound_and_named_loggers(self) -> None:
        async with open_logs() as logs:
            log = logs.named("app.db").bind(a=1, b=1).bind(b=2)
            with bind(c=3, b=0):
                log.info("m")
            (record,) = (await logs.search()).records
            assert (record.logger, record.attributes) == ("app.db", {"a": 1, "b": 2, "c": 3})

    async def test_context_follows_tasks_and_threads(self) -> None:
        async with open_logs() as logs:
            with correlated("r-1"), bind(user="ada"):
                await asyncio.gather(asyncio.create_task(asyncio.to_thread(logs.info, "m")))
            (record,) = (await logs.search()).records
            assert (record.correlation_id, record.attributes) == ("r-1", {"user": "ada"})


class TestLevels:
    async def test_they_change_at_once_and_along_names(self) -> None:
        async with open_logs() as logs:
            seen: list[Event] = []
            logs.scope.environment.bus.subscribe(LevelChanged, seen.append)
            log = logs.named("noobly.tests.a.b")
            await logs.set_level("debug", logger="noobly.tests.a")
            try:
                assert await logs.level("noobly.tests.a.b") == "debug"
                assert await logs.level() == "info"
                assert logging.getLogger("noobly.tests.a").level == logging.DEBUG
                log.debug("yes")
                logs.debug("no")
                await logs.set_level("error", logger="noobly.tests.a.b")
                log.info("no")
                assert await messages(logs) == ["yes"]
                assert seen[0] == LevelChanged("logging", "default", "debug", "noobly.tests.a")
            finally:
                logging.getLogger("noobly.tests.a").setLevel(logging.NOTSET)
                logging.getLogger("noobly.tests.a.b").setLevel(logging.NOTSET)

    async def test_an_unknown_one(self) -> None:
        async with open_logs() as logs:
            with pytest.raises(InvalidArgument, match="no level 'loud'"):
                await logs.set_level("loud")  # type: ignore[arg-type]  # that is refused
            with pytest.raises(InvalidArgument, match="no level 'loud'"):
                await logs.search(level="loud")


class TestStoring:
    async def test_write_keeps_what_was_made_elsewhere(self) -> None:
        async with open_logs() as logs:
            entry = Entry(
                message="clicked", level="warn", timestamp="2026-11-23T05:45:45.000001+01:00", logger="web",
                correlation_id="r-1", attributes={"token": "x", "n": 1},
            )  # fmt: skip
            assert await logs.write([entry, Entry(message="no", level="debug")]) == 1
            (record,) = (await logs.search()).records
            assert record == Record(
                timestamp=NOW, level="warn", severity_number=13, message="clicked", logger="web",
                correlation_id="r-1", attributes={"token": "[redacted]", "n": 1},
            )  # fmt: skip

    async def test_write_takes_all_or_none(self) -> None:
        async with open_logs() as logs:
            with pytest.raises(InvalidArgument, match="RFC 3339"):
                await logs.write([Entry(message="a"), Entry(message="b", timestamp="yesterday")])
            assert await messages(logs) == []
            with pytest.raises(InvalidArgument, match="too many"):
                await logs.write([Entry(message="a")] * 10_001)

    async def test_append_checks_and_redacts_what_comes_in(self) -> None:
        async with open_logs() as logs:
            line = msgspec.json.encode(
                Record(timestamp=NOW, level="loud", severity_number=14, message=f"Bearer {'x' * 9}")
            )
            for _ in range(2):
                await logs.append("b-1", [Line(0, 0, line)])
            (record,) = (await logs.search()).records
            assert (record.message, record.level, record.severity_number) == ("Bearer [redacted]", "warn", 14)
            with pytest.raises(InvalidArgument, match="not a record"):
                await logs.append("b-2", [Line(0, 0, b"{}")])


class TestReading:
    async def test_own_records_are_found_at_once_and_reading_is_told(self) -> None:
        async with open_logs(linger=3600.0) as logs:
            seen: list[Event] = []
            logs.scope.environment.bus.subscribe(Searched, seen.append)
            logs.info("here")
            assert len((await logs.search("HERE")).records) == 1
            assert [count.count for count in await logs.counts(bucket=60)] == [1]
            assert seen == [Searched("logging", "default", 1)]

    async def test_times_need_a_zone(self) -> None:
        async with open_logs() as logs:
            with pytest.raises(InvalidArgument, match="no time zone"):
                await logs.search(since=datetime(2026, 1, 1))  # noqa: DTZ001 - that is what is refused

    async def test_purge(self) -> None:
        async with open_logs() as logs:
            seen: list[Event] = []
            logs.scope.environment.bus.subscribe(Purged, seen.append)
            await logs.write([Entry(message="old", timestamp=NOW)])
            logs.info("new")
            await logs.drain()
            assert await logs.purge(datetime(2026, 11, 23, 4, 45, 46, tzinfo=UTC)) == 1
            assert seen == [Purged("logging", "default", 1)]


class TestTail:
    async def test_all_who_share_a_file_are_heard_once_through_rotations(self, tmp_path: Path) -> None:
        url = f"file://{tmp_path}/app.log?max_bytes=1024"
        async with open_logs(url, linger=0.001) as one, open_logs(url, linger=0.001) as other:
            async with aclosing(one.tail("number")) as records:
                first = asyncio.create_task(anext(records))
                await eventually(lambda: one._tails.readers == 1)
                for number in range(60):
                    (one if number % 3 else other).info(f"number {number}", padding="x" * 50)
                    await asyncio.gather(one.drain(), other.drain())
                heard = [await first, *[await anext(records) for _ in range(59)]]
            assert [record.message for record in heard if isinstance(record, Record)] == [
                f"number {number}" for number in range(60)
            ]
            assert rotations(tmp_path) > 3

    async def test_it_ends_with_its_instance(self) -> None:
        async with open_logs() as logs, aclosing(logs.tail()) as records:
            ended = asyncio.create_task(anext(records, None))
            await eventually(lambda: logs._tails.readers == 1)
            await logs.close()
            assert await ended is None

    async def test_one_who_is_overtaken_is_told(self) -> None:
        async with open_logs("memory://?max_records=10") as logs, aclosing(logs.tail()) as records:
            first = asyncio.create_task(anext(records))
            await eventually(lambda: logs._tails.readers == 1)
            logs.info("0")
            assert isinstance(await first, Record)
            await logs.write([Entry(message=f"{number}") for number in range(1, 26)])
            assert await anext(records) == Skipped(15)
            assert [one.message for one in [await anext(records) for _ in range(10)] if isinstance(one, Record)] == [
                f"{number}" for number in range(16, 26)
            ]

    async def test_a_store_that_fails_for_a_while_ends_nothing(self, tmp_path: Path) -> None:
        path, away = tmp_path / "app.log", tmp_path / "away.log"
        async with open_logs(f"file://{path}", spill="", retries=0) as logs, aclosing(logs.tail()) as records:
            first = asyncio.create_task(anext(records))
            await eventually(lambda: logs._tails.readers == 1)
            path.rename(away)
            path.mkdir()
            with pytest.raises(Unavailable):
                await logs.search()
            path.rmdir()
            away.rename(path)
            logs.info("there again")
            found = await first
            assert isinstance(found, Record)
            assert found.message == "there again"

    async def test_what_reading_logs_itself_wakes_nobody(self) -> None:
        async with open_logs(level="debug", capture=True, linger=0.001) as logs, aclosing(logs.tail()) as records:
            logging.getLogger("noobly.operation").setLevel(logging.DEBUG)
            first = asyncio.create_task(anext(records))
            await eventually(lambda: logs._tails.readers == 1)
            logs.info("one")
            found = await first
            assert isinstance(found, Record)
            assert found.message == "one"
            follows = [record async for record in logs.search_all("logging.follow")]
            logging.getLogger("noobly.operation").setLevel(logging.NOTSET)
            assert follows == []
