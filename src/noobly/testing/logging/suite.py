"""What logs do on every provider, beside their store and through a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pytest

from noobly.core.correlation import bind
from noobly.core.errors import Closed, InvalidArgument
from noobly.core.streams import Skipped
from noobly.logging import Entry, Logs, Record, open_logs
from noobly.testing.clock import eventually
from noobly.testing.logging.lines import line

_AGES = datetime(2000, 1, 1, tzinfo=UTC)
_LONG_AGO = 1_700_000_000_000_000


class Harness(Protocol):
    """How the suite reaches one provider; what it opens is empty at first."""

    def open(self, **options: object) -> AbstractAsyncContextManager[Logs]:
        """Open logs with these options."""
        ...

    async def readers(self, logs: Logs) -> int:
        """Return how many follow these logs where they are stored."""
        ...


class Embedded:
    """A provider inside this process.

    Args:
        url: What to open.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[Logs]:
        """See the protocol."""
        async with open_logs(self.url, **{"spill": "", **options}) as logs:
            yield logs

    async def readers(self, logs: Logs) -> int:
        """See the protocol."""
        return logs._tails.readers


class LogsSuite:
    """What users see of a provider."""

    @pytest.fixture
    async def logs(self, harness: Harness) -> AsyncIterator[Logs]:
        async with harness.open() as opened:
            yield opened

    async def test_what_is_logged_is_found(self, logs: Logs) -> None:
        with bind(user="ada"):
            logs.named("shop").info("paid", order=7, price=1.5, odd="é\u2028\n", none=None)
        logs.debug("below the level")
        logs.warn("refused")
        page = await _search(logs)
        assert [(one.level, one.message) for one in page] == [("warn", "refused"), ("info", "paid")]
        paid = page[1]
        assert paid.attributes == {"user": "ada", "order": 7, "price": 1.5, "odd": "é\u2028\n", "none": None}
        assert paid.logger.endswith("shop")
        assert paid.severity_number == 9
        moment = datetime.fromisoformat(paid.timestamp)
        assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)

    async def test_secrets_are_not_stored(self, logs: Logs) -> None:
        logs.info("login", nested={"password": "hunter2"}, other={"api_key": "hunter2"})
        await logs.write([Entry(message="from outside", attributes={"password": "hunter2"})])
        page = await _search(logs)
        assert len(page) == 2
        assert "hunter2" not in str(page)

    async def test_searching_and_counting(self, logs: Logs) -> None:
        now = datetime.now(UTC)
        for number in range(10):
            logs.info(f"number {number}", number=number)
        logs.error("Broken")
        assert [one.message for one in await _search(logs, "BROKEN")] == ["Broken"]
        assert [one.message for one in await _search(logs, attributes={"number": 3})] == ["number 3"]
        assert [one.message for one in await _search(logs, at_least="warn")] == ["Broken"]
        assert len(await _search(logs, level="info")) == 10
        assert len(await _search(logs, since=now - timedelta(minutes=1))) == 11
        assert await _search(logs, until=_AGES) == []
        counts = await logs.counts(bucket=timedelta(days=1), since=now - timedelta(minutes=1))
        assert {name: sum(one.count for one in counts if one.level == name) for name in ("info", "error")} == {
            "info": 10,
            "error": 1,
        }

    async def test_pages(self, logs: Logs) -> None:
        for number in range(25):
            logs.info(f"{number}")
        assert await logs.flush()
        page = await logs.search(limit=10)
        assert [one.message for one in page.records] == [f"{number}" for number in range(24, 14, -1)]
        assert [one.message async for one in logs.search_all()] == [f"{number}" for number in range(24, -1, -1)]
        with pytest.raises(InvalidArgument, match="cursor"):
            await logs.search(after="made up")

    async def test_wrong_questions_are_refused(self, logs: Logs) -> None:
        for limit in (0, 10_001):
            with pytest.raises(InvalidArgument):
                await logs.search(limit=limit)
        for call in (logs.search(level="loud"), logs.search(at_least="loud"), logs.counts(bucket=0)):
            with pytest.raises(InvalidArgument):
                await call
        for stream in (logs.tail(level="loud"), logs.tail(attributes=["nothing"])):
            with pytest.raises(InvalidArgument):
                await anext(stream)

    async def test_purging(self, logs: Logs) -> None:
        logs.info("old")
        assert await logs.flush()
        assert await logs.purge(_AGES) == 0
        assert await logs.purge(datetime.now(UTC) + timedelta(seconds=1)) == 1
        assert await _search(logs) == []

    async def test_a_batch_is_stored_once(self, logs: Logs) -> None:
        lines = [line(_LONG_AGO, "once")]
        for _ in range(3):
            await logs.append("batch", lines)
        assert [one.message for one in await _search(logs)] == ["once"]

    async def test_following(self, logs: Logs, harness: Harness) -> None:
        async with aclosing(logs.tail("a", at_least="warn", attributes=["order=7"])) as records:
            first = asyncio.create_task(anext(records))
            await _followed(logs, harness, 1)
            logs.warn("a", order=8)
            logs.info("a", order=7)
            logs.warn("b", order=7)
            logs.warn("A bad thing", order=7)
            logs.error("another", order=7)
            heard = [await first, await anext(records)]
        assert [one.message for one in heard if isinstance(one, Record)] == ["A bad thing", "another"]
        await _followed(logs, harness, 0)

    async def test_one_who_follows_and_reads_slowly_is_told(self, logs: Logs, harness: Harness) -> None:
        async with aclosing(logs.tail()) as records:
            first = asyncio.create_task(anext(records))
            await _followed(logs, harness, 1)
            await logs.write([Entry(message=f"{number}") for number in range(5000)])
            heard = [await first]
            while _heard(heard) < 5000:
                heard.append(await anext(records))
        assert _heard(heard) == 5000
        numbers = [int(one.message) for one in heard if isinstance(one, Record)]
        assert numbers == sorted(numbers)

    async def test_after_the_end(self, harness: Harness) -> None:
        async with harness.open() as logs:
            logs.info("before")
        logs.info("after")
        for call in (logs.search(), logs.append("1", [line(_LONG_AGO, "late")])):
            with pytest.raises(Closed):
                await call


def _heard(items: list[Record | Skipped]) -> int:
    return sum(item.count if isinstance(item, Skipped) else 1 for item in items)


async def _search(logs: Logs, text: str = "", **conditions: Any) -> list[Record]:
    assert await logs.flush()
    return [one async for one in logs.search_all(text, **conditions)]


async def _followed(logs: Logs, harness: Harness, number: int) -> None:
    async def reached() -> bool:
        return await harness.readers(logs) == number

    await eventually(reached, 10)
