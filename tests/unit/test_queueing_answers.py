"""Answers are bounded in bytes, on the providers that need no server; Redis is tried among the tests with servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from noobly.queueing import Outbound, Queues, open_queues

LARGE = b"x" * 1024 * 1024
COUNT = 36


@pytest.fixture(params=["memory", "sqlite"])
async def queues(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Queues]:
    """Open queues with one that holds more than one answer does, and a small message behind the others."""
    url = "memory://" if request.param == "memory" else f"sqlite://{tmp_path}/queues.db"
    async with open_queues(url, max_deliveries=1) as queues:
        await queues.send_many("q", [Outbound(message=LARGE)] * COUNT)
        await queues.send("q", "last")
        yield queues


async def test_a_receiver_gets_some_at_a_time(queues: Queues) -> None:
    sizes: list[int] = []
    while found := await queues.receive("q", max=1000):
        sizes.append(len(found))
        assert all(await queues.ack_many("q", [one.receipt for one in found]))
    assert sizes == [16, 16, 5]


async def test_so_does_who_looks(queues: Queues) -> None:
    assert len(await queues.peek("q", max=1000)) == 16
    assert [one.value for one in await queues.peek("q", max=1000, skip=COUNT)] == ["last"]


async def test_each_of_many_receivers_gets_one(queues: Queues) -> None:
    found = await asyncio.gather(*(queues.receive("q") for _ in range(COUNT + 1)))
    assert [len(one) for one in found] == [1] * (COUNT + 1)
    assert found[-1][0].value == "last"
