"""Taking over the lists of nooblyjs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from noobly.clients.redis import RedisConnection
from noobly.core.errors import Conflict, InvalidArgument, Unavailable
from noobly.queueing import Queues, open_queues
from noobly.queueing.migrating import migrate

from .redis_server import bounded_servers, connected


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[RedisConnection]:
    with bounded_servers(tmp_path) as start:
        async with connected(start()) as connection:
            yield connection


@pytest.fixture
async def queues() -> AsyncIterator[Queues]:
    async with open_queues("memory://") as queues:
        yield queues


class TestMigrating:
    async def push(self, control: RedisConnection, *texts: str | bytes) -> None:
        for text in texts:
            await control.execute("LPUSH", "old", text)

    async def values(self, queues: Queues) -> list[object]:
        return [one.value for one in await queues.receive("new", max=1000)]

    async def test_a_list_of_nooblyjs_moves_oldest_first(self, queues: Queues, control: RedisConnection) -> None:
        await self.push(control, '{"a": 1}', '"text"', "no json", "5", "5", b"\xff")
        assert await migrate(control, "old", queues, "new", batch=2) == 6
        assert await self.values(queues) == [{"a": 1}, "text", "no json", 5, 5, b"\xff"]
        assert await control.execute("EXISTS", "old", "old:migrating") == 0
        assert await migrate(control, "old", queues, "new") == 0

    async def test_what_is_no_utf_8_holds_nothing_up(self, queues: Queues, control: RedisConnection) -> None:
        await self.push(control, b'"\xff"', "1")
        assert await migrate(control, "old", queues, "new") == 2
        assert await self.values(queues) == [b'"\xff"', 1]

    async def test_what_is_too_large_stays_behind(
        self, control: RedisConnection, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with open_queues("memory://", message_bytes=10) as queues:
            await self.push(control, "1", '"much too long"', "2")
            assert await migrate(control, "old", queues, "new") == 2
            assert await self.values(queues) == [1, 2]
        assert await control.execute("LRANGE", "old:refused", 0, -1) == [b'"much too long"']
        assert await control.execute("EXISTS", "old", "old:migrating") == 0
        assert "'old:refused'" in caplog.text

    async def test_it_goes_on_where_it_was_interrupted(self, queues: Queues, control: RedisConnection) -> None:
        await self.push(control, "1", "2", "3", "4")
        for _ in range(2):
            await control.execute("LMOVE", "old", "old:migrating", "RIGHT", "LEFT")
        assert await migrate(control, "old", queues, "new", batch=1) == 4
        assert await self.values(queues) == [1, 2, 3, 4]

    async def test_what_cannot_be_sent_stays(self, queues: Queues, control: RedisConnection) -> None:
        await self.push(control, "1", "2")

        class Broken:
            async def send_many(self, *_: object) -> list[object]:
                raise Unavailable("the queue is down")

        with pytest.raises(Unavailable):
            await migrate(control, "old", cast("Queues", Broken()), "new")
        assert await migrate(control, "old", queues, "new") == 2
        assert await self.values(queues) == [1, 2]

    async def test_refused(self, queues: Queues, control: RedisConnection) -> None:
        with pytest.raises(InvalidArgument, match="batch"):
            await migrate(control, "old", queues, "new", batch=0)
        await control.execute("SET", "old", "no list")
        with pytest.raises(Conflict):
            await migrate(control, "old", queues, "new")
