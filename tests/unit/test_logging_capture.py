"""What the standard library's ``logging`` and structlog are given becomes records, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import structlog

from noobly.app import Noobly
from noobly.core.correlation import Ring, correlated
from noobly.core.journal import Journal
from noobly.logging import Logs, Record, open_logs
from noobly.logging.capture import Handler
from noobly.settings import Settings


@pytest_asyncio.fixture
async def logs() -> AsyncIterator[Logs]:
    async with open_logs(level="debug", capture=True, linger=0.001) as opened:
        yield opened


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    log = logging.getLogger("tests.captured")
    log.setLevel(logging.DEBUG)
    yield log
    log.setLevel(logging.NOTSET)


async def last(logs: Logs) -> Record:
    return (await logs.search(attributes={"logger": "tests.captured"})).records[0]


class TestStdlib:
    async def test_message_level_name_and_extra(self, logs: Logs, log: logging.Logger) -> None:
        log.warning("paid %d of %s", 7, "ada", extra={"order": 1, "password": "x"})
        record = await last(logs)
        assert (record.message, record.level, record.logger) == ("paid 7 of ada", "warn", "tests.captured")
        assert record.attributes == {"order": 1, "password": "[redacted]"}

    @pytest.mark.parametrize(
        ("number", "level"),
        [
            (1, "trace"),
            (5, "trace"),
            (10, "debug"),
            (15, "debug"),
            (25, "info"),
            (30, "warn"),
            (40, "error"),
            (99, "fatal"),
        ],
    )
    async def test_levels(self, logs: Logs, log: logging.Logger, number: int, level: str) -> None:
        await logs.set_level("trace")
        log.setLevel(1)
        log.log(number, "x")
        assert (await last(logs)).level == level

    async def test_exceptions_with_causes_and_groups_and_no_locals(self, logs: Logs, log: logging.Logger) -> None:
        hidden = "s3cr3t-local"
        try:
            try:
                raise KeyError("inner")
            except KeyError as error:
                raise ExceptionGroup("several", [ValueError("one"), TypeError(f"two {len(hidden)}")]) from error
        except ExceptionGroup:
            log.exception("failed", stack_info=True)
        record = await last(logs)
        assert record.exception is not None
        assert record.exception.type == "ExceptionGroup"
        for part in ("KeyError", "ValueError: one", "TypeError: two 12", "direct cause"):
            assert part in record.exception.stacktrace
        assert hidden not in record.exception.stacktrace
        assert "test_exceptions_with_causes" in record.attributes["stack"]

    async def test_what_does_not_fit_is_still_recorded(self, logs: Logs, log: logging.Logger) -> None:
        # Not by a log call: the handler of the tests raises what others print.
        Handler(logs._pipeline).handle(log.makeRecord(log.name, logging.INFO, "", 1, "%d and %d", (1,), None))
        assert (await last(logs)).message == "%d and %d (1,)"
        log.info({"not": "text"})
        assert (await last(logs)).message == "{'not': 'text'}"

    async def test_the_suites_own_lines_keep_their_fields(self, logs: Logs) -> None:
        Journal("noobly.tests").warning("cut off", grace=3, service="caching", instance="a")
        (record,) = (await logs.search("cut off")).records
        assert (record.service, record.instance, record.attributes) == ("caching", "a", {"grace": 3})

    async def test_the_suites_own_lines_know_their_place_and_cause(self, caplog: pytest.LogCaptureFixture) -> None:
        cause = ValueError("no")
        Journal("noobly.tests").error("failed", cause=cause, route="r")
        (record,) = caplog.records
        assert (record.pathname, record.getMessage()) == (__file__, "failed route='r'")
        assert record.exc_info is not None
        assert record.exc_info[1] is cause

    async def test_a_store_that_logs_is_no_endless_loop(
        self, logs: Logs, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = logs._store

        async def chatty(batch: str, lines: object) -> None:
            log.error("storing")
            await asyncio.to_thread(log.error, "storing in a thread")
            await store(batch, lines)  # type: ignore[arg-type]  # it is passed on

        monkeypatch.setattr(logs._pipeline.delivery, "_store", chatty)
        logs.info("one")
        await logs.drain()
        assert [record.message async for record in logs.search_all()] == ["one"]


class TestDebugRing:
    @pytest_asyncio.fixture
    async def logs(self) -> AsyncIterator[Logs]:
        async with open_logs(capture=True, linger=0.001) as opened:
            yield opened

    async def test_debug_records_wait_for_their_request_to_fail(self, logs: Logs, log: logging.Logger) -> None:
        ring = Ring(10)
        with correlated("r-1", ring=ring):
            log.debug("step %d", 1, extra={"token": "x", "order": 7})
            log.log(5, "smaller still")
            log.info("done")
        log.debug("in no request")
        assert [record.message for record in (await logs.search()).records] == ["done"]
        ring.release()
        held = (await logs.search()).records[0]
        assert (held.message, held.level, held.logger) == ("step 1", "debug", "tests.captured")
        assert (held.correlation_id, held.attributes) == ("r-1", {"token": "[redacted]", "order": 7})
        assert len((await logs.search()).records) == 2

    async def test_those_of_structlog_too(self, logs: Logs) -> None:
        log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr), processors=[logs.structlog()])
        ring = Ring(10)
        with correlated("r-1", ring=ring):
            log.debug("step", order=7)
        assert (await logs.search()).records == []
        ring.release()
        (held,) = (await logs.search()).records
        assert (held.message, held.level, held.attributes) == ("step", "debug", {"order": 7})


class TestLeavingOthersAlone:
    async def test_root_is_as_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        root = logging.getLogger()
        monkeypatch.setattr(root, "handlers", [])
        root.setLevel(logging.WARNING)
        async with open_logs(capture=True) as logs:
            assert root.level == logging.INFO
            logging.getLogger("x").info("kept")
            assert [record.message for record in (await logs.search()).records] == ["kept"]
        assert (root.handlers, root.level) == ([], logging.WARNING)

    async def test_warnings_still_reach_standard_error_where_nobody_configured_logging(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        async with open_logs(capture=True):
            logging.getLogger("x").warning("look out")
            logging.getLogger("x").info("never mind")
        assert capsys.readouterr().err == "look out\n"

    async def test_a_configured_level_stays(self) -> None:
        root = logging.getLogger()
        before = root.level
        async with open_logs(capture=True, level="trace"):
            assert root.level == before  # The handler of the tests is there already.

    async def test_one_alone_captures_nothing_and_an_application_does(self, log: logging.Logger) -> None:
        async with open_logs() as logs:
            log.info("x")
            assert (await logs.search()).records == []
        async with Noobly.open(settings=Settings()) as noobly:
            log.info("x")
            assert (await last(noobly.logging)).message == "x"


class TestStructlog:
    async def test_everything_arrives(self, logs: Logs) -> None:
        log = structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr),
            processors=[structlog.contextvars.merge_contextvars, logs.structlog()],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )
        with structlog.contextvars.bound_contextvars(user="ada"):
            log.bind(order=1).warning("paid", token="x")
        try:
            raise ValueError("bad")
        except ValueError:
            log.exception("failed")
        failed, paid = (await logs.search()).records
        assert (paid.message, paid.level) == ("paid", "warn")
        assert paid.attributes == {"user": "ada", "order": 1, "token": "[redacted]"}
        assert failed.level == "error"
        assert failed.exception is not None
        assert failed.exception.message == "bad"
