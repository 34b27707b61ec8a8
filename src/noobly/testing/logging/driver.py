"""The driver suite of logging: what every bare provider must do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, cast

import pytest

from noobly.core.binding import bind
from noobly.core.errors import InvalidArgument
from noobly.core.scope import Environment
from noobly.layers.classify import classify
from noobly.layers.opening import Request, make, split
from noobly.logging.driver import Count, LogDriver, Query
from noobly.logging.options import LogsOptions
from noobly.logging.providers import REGISTRY
from noobly.logging.record import Level
from noobly.testing.clock import FakeClock
from noobly.testing.logging.lines import found, line, message

BEGIN = 1_700_000_000_000_000
"""The time of the suite, in microseconds since the epoch."""
SECOND = 1_000_000


class DriverHarness(Protocol):
    """How the suite reaches one provider."""

    def open_bare(self) -> AbstractAsyncContextManager[LogDriver]:
        """Open the provider without layers, except for the one that maps its client's exceptions."""
        ...


class EmbeddedDriver:
    """A provider inside this process.

    Args:
        url: What to open.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = FakeClock(BEGIN / 1e6)

    @asynccontextmanager
    async def open_bare(self) -> AsyncIterator[LogDriver]:
        """See the protocol."""
        settings = split(Request(url=self.url), LogsOptions)
        async with AsyncExitStack() as stack:
            driver = make(REGISTRY, settings, (), Environment(clock=self.clock), "default")
            start = getattr(driver, "start", None)
            if start is not None:
                await start(stack)
            yield bind(LogDriver, cast(LogDriver, driver), [classify()])


class LogDriverSuite:
    """What a log provider does, seen from right above it."""

    @pytest.fixture
    async def driver(self, harness: DriverHarness) -> AsyncIterator[LogDriver]:
        async with harness.open_bare() as opened:
            yield opened

    async def test_newest_first(self, driver: LogDriver) -> None:
        await driver.append("1", [line(BEGIN, "a"), line(BEGIN + 1, "b")])
        await driver.append("2", [line(BEGIN + 2, "c")])
        assert await found(driver) == ["c", "b", "a"]

    async def test_lines_come_back_as_they_were(self, driver: LogDriver) -> None:
        texts = ["", "plain", "é\u2028\n\r\t\0", "😀" * 100, "x" * 100_000, '"\\']
        lines = [line(BEGIN + n, text, odd={"a": [text]}) for n, text in enumerate(texts)]
        await driver.append("1", lines)
        page = await driver.search(Query(), None, 100)
        assert page.lines == [one.data for one in reversed(lines)]

    async def test_nothing_is_there_at_first(self, driver: LogDriver) -> None:
        assert await found(driver) == []
        assert await driver.counts(Query(), SECOND) == []
        assert await driver.purge(BEGIN + 1) == 0
        await driver.append("1", [])
        await driver.flush()
        await driver.health()
        assert await found(driver) == []

    async def test_a_batch_counts_once(self, driver: LogDriver) -> None:
        lines = [line(BEGIN, "a"), line(BEGIN, "b")]
        await driver.append("1", lines)
        for _ in range(3):
            await driver.append("1", lines)
        await driver.append("2", [line(BEGIN, "c")])
        await driver.append("1", lines)
        assert await found(driver) == ["c", "b", "a"]

    @pytest.mark.parametrize("limit", [1, 2, 7, 100, 10_000])
    async def test_pages_hold_every_line_once(self, driver: LogDriver, limit: int) -> None:
        for batch in range(20):
            lines = [line(BEGIN + batch * 5 + n, f"{batch * 5 + n}") for n in range(5)]
            await driver.append(f"{batch}", lines)
        assert await found(driver, limit=limit) == [f"{n}" for n in range(99, -1, -1)]

    async def test_a_cursor_holds_while_others_write(self, driver: LogDriver) -> None:
        await driver.append("1", [line(BEGIN + n, f"{n}") for n in range(10)])
        page = await driver.search(Query(), None, 3)
        await driver.append("2", [line(BEGIN + n, f"{n}") for n in range(10, 20)])
        assert page.after is not None
        rest = await driver.search(Query(), page.after, 100)
        assert [message(data) for data in rest.lines] == [f"{n}" for n in range(6, -1, -1)]

    @pytest.mark.parametrize("cursor", ["", "x", "AAAA", "kgEC!", "é", "kgH_", "a" * 2000])
    async def test_a_cursor_that_was_made_up_is_refused(self, driver: LogDriver, cursor: str) -> None:
        await driver.append("1", [line(BEGIN, "a")])
        with pytest.raises(InvalidArgument, match="cursor"):
            await driver.search(Query(), cursor, 10)

    async def test_every_condition(self, driver: LogDriver) -> None:
        dotted: dict[str, Any] = {"http.status": 500}
        lines = [
            line(BEGIN, "Straße paid", Level.INFO, logger="shop", order=7, http={"status": 200}),
            line(BEGIN + SECOND, "refused", Level.WARN, order=True, http={"status": "200"}),
            line(BEGIN + 2 * SECOND, "broken", Level.ERROR, logger="", **dotted),
        ]
        await driver.append("1", lines)
        for query, wanted in (
            (Query(since=BEGIN + 1), ["broken", "refused"]),
            (Query(since=BEGIN + SECOND, until=BEGIN + 2 * SECOND), ["refused"]),
            (Query(until=BEGIN), []),
            (Query(severity=Level.WARN), ["broken", "refused"]),
            (Query(severity=Level.WARN, level="warn"), ["refused"]),
            (Query(level="nothing"), []),
            (Query(text="STRASSE"), ["Straße paid"]),
            (Query(text="e"), ["broken", "refused", "Straße paid"]),
            (Query(attributes={"order": 7}), ["Straße paid"]),
            (Query(attributes={"order": True}), ["refused"]),
            (Query(attributes={"http.status": 200}), ["Straße paid"]),
            (Query(attributes={"http.status": 500}), ["broken"]),
            (Query(attributes={"http.status": 200, "logger": "shop"}), ["Straße paid"]),
            (Query(attributes={"http.status": 200, "logger": "bank"}), []),
            (Query(attributes={"nobody": ""}), []),
        ):
            assert await found(driver, query) == wanted, query
            assert sum(count.count for count in await driver.counts(query, SECOND)) == len(wanted)

    async def test_counts_by_level_and_time(self, driver: LogDriver) -> None:
        lines = [line(BEGIN + n * SECOND // 2, "x", Level.WARN if n % 4 == 0 else Level.INFO) for n in range(8)]
        await driver.append("1", lines)
        begin = BEGIN - BEGIN % (2 * SECOND)
        assert await driver.counts(Query(), 2 * SECOND) == [
            Count(begin, "info", 3),
            Count(begin, "warn", 1),
            Count(begin + 2 * SECOND, "info", 3),
            Count(begin + 2 * SECOND, "warn", 1),
        ]
        assert await driver.counts(Query(level="warn"), 10**12) == [Count(BEGIN - BEGIN % 10**12, "warn", 2)]

    async def test_purging_deletes_what_is_older(self, driver: LogDriver) -> None:
        for batch in range(3):
            await driver.append(f"{batch}", [line(BEGIN + batch * 10 + n, f"{batch * 10 + n}") for n in range(10)])
        assert await driver.purge(BEGIN) == 0
        assert await driver.purge(BEGIN + 15) == 15
        assert await found(driver, limit=4) == [f"{n}" for n in range(29, 14, -1)]
        await driver.append("3", [line(BEGIN + 30, "30")])
        assert await driver.purge(BEGIN + 15) == 0
        assert await driver.purge(BEGIN + 31) == 16
        assert await found(driver) == []

    async def test_following_shows_every_line_once_oldest_first(self, driver: LogDriver) -> None:
        await driver.append("0", [line(BEGIN, "before")])
        begun = await driver.follow(None, 10)
        assert begun.lines == []
        assert (await driver.follow(begun.after, 10)).lines == []
        for batch in range(1, 21):
            lines = [line(BEGIN + batch * 5 + n, f"{batch}.{n}", padding="x" * 100) for n in range(5)]
            await driver.append(f"{batch}", lines)
        wanted = [f"{batch}.{n}" for batch in range(1, 21) for n in range(5)]
        for limit in (1, 7, 10_000):
            heard, place = list[str](), begun.after
            while len(heard) < 100:
                page = await driver.follow(place, limit)
                assert 0 < len(page.lines) <= limit
                heard, place = heard + [message(data) for data in page.lines], page.after
            assert heard == wanted
            assert (await driver.follow(place, limit)).lines == []

    async def test_following_goes_on_after_a_purge(self, driver: LogDriver) -> None:
        await driver.append("1", [line(BEGIN + n, f"{n}") for n in range(10)])
        place = (await driver.follow(None, 10)).after
        assert await driver.purge(BEGIN + 5) == 5
        await driver.append("2", [line(BEGIN + 10, "10")])
        assert [message(data) for data in (await driver.follow(place, 10)).lines] == ["10"]

    @pytest.mark.parametrize("place", ["", "x", "AAAA", "kgEC!"])
    async def test_a_place_that_was_made_up_is_refused(self, driver: LogDriver, place: str) -> None:
        with pytest.raises(InvalidArgument, match="cursor"):
            await driver.follow(place, 10)

    async def test_many_at_once(self, driver: LogDriver) -> None:
        batches = [[line(BEGIN + n, f"{batch}.{n}") for n in range(10)] for batch in range(50)]
        await asyncio.gather(*(driver.append(f"{n}", lines) for n, lines in enumerate(batches)))
        messages = await found(driver)
        assert sorted(messages) == sorted(f"{batch}.{n}" for batch in range(50) for n in range(10))
        for batch in range(50):
            own = [text for text in messages if text.startswith(f"{batch}.")]
            assert own == [f"{batch}.{n}" for n in range(9, -1, -1)], "a batch stays together, in its order"

    async def test_it_is_there_again(self, harness: DriverHarness) -> None:
        async with harness.open_bare() as driver:
            await driver.append("1", [line(BEGIN, "a")])
        async with harness.open_bare() as driver:
            # Either it is kept, and then known, or both are gone.
            await driver.append("1", [line(BEGIN, "a")])
            await driver.append("2", [line(BEGIN, "b")])
            assert await found(driver) == ["b", "a"]
