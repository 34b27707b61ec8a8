"""Calls that wait, over real granian, whose clients leave before there is anything."""

from __future__ import annotations

import asyncio

from noobly.app import Noobly
from noobly.core.events import OperationFinished
from noobly.queueing import open_queues
from noobly.server.app import build
from noobly.server.auth import DevGuard
from noobly.settings import Settings
from noobly.testing import eventually

from ..serving import serving


async def test_a_receiver_that_has_left_gets_no_message() -> None:
    async with Noobly.open(settings=Settings()) as noobly, serving(build(noobly, guard=DevGuard())) as base:
        finished: list[OperationFinished] = []
        noobly.environment.bus.subscribe(OperationFinished, finished.append, service="queueing")
        for number in range(5):
            waiting = asyncio.create_task(_receive(base))
            await eventually(lambda: noobly.queueing._driver.provider._waiting)
            waiting.cancel()
            await asyncio.wait([waiting])
            await eventually(lambda: not noobly.queueing._driver.provider._waiting)
            await noobly.queueing.send("q", number)
            (delivery,) = await noobly.queueing.receive("q")
            assert (delivery.value, delivery.deliveries) == (number, 1)
            await noobly.queueing.ack("q", delivery.receipt)
        assert {one.outcome for one in finished if one.operation == "receive"} <= {"ok", "cancelled"}


async def _receive(base: str) -> None:
    async with open_queues(base) as there:
        await there.receive("q", wait=60)


async def test_one_that_stays_gets_it() -> None:
    async with (
        Noobly.open(settings=Settings()) as noobly,
        serving(build(noobly, guard=DevGuard())) as base,
        open_queues(base) as there,
    ):
        waiting = asyncio.create_task(there.receive("q", wait=60))
        await eventually(lambda: noobly.queueing._driver.provider._waiting)
        await noobly.queueing.send("q", 7)
        assert [one.value for one in await asyncio.wait_for(waiting, 20)] == [7]
        assert await there.receive("q", wait=0.01) == []
