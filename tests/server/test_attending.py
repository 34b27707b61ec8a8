"""Calls that wait, over real granian: their clients leave, the server ends, there are too many of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from starlette.requests import ClientDisconnect

from noobly.app import Noobly
from noobly.core.errors import Internal, RateLimited
from noobly.core.events import OperationFinished
from noobly.core.wire import encode_result
from noobly.queueing import open_queues
from noobly.server import attending, native
from noobly.server.app import Application, build
from noobly.server.attending import Attendance
from noobly.server.auth import DevGuard
from noobly.settings import Instance, Server, Settings
from noobly.testing import eventually

from ..serving import serving

QUICK = Settings(
    server=Server(connections=4),
    services={
        service: {"default": Instance(url="memory://", options={"timeout": 0.5})} for service in ("queueing", "working")
    },
)
"""Calls wait in slices of a fifth of a second."""


@asynccontextmanager
async def quick() -> AsyncIterator[tuple[Noobly, Application, httpx2.AsyncClient]]:
    async with Noobly.open(settings=QUICK) as noobly:
        application = Application(noobly, DevGuard())
        async with (
            serving(application) as base,
            httpx2.AsyncClient(base_url=base, trust_env=False, timeout=30) as client,
        ):
            yield noobly, application, client


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


async def test_when_the_server_ends_calls_that_wait_return_what_there_is() -> None:
    async with quick() as (noobly, application, client):
        job = await noobly.working.enqueue("task", delay=100)
        receiving = asyncio.create_task(client.post("/v1/queueing/default/receive", json={"queue": "q", "wait": 20}))
        ended = asyncio.create_task(client.post("/v1/working/default/wait", json={"id": job.id, "within": 20}))
        await eventually(lambda: application.attendance.waiting == 2)
        began = asyncio.get_running_loop().time()
        application.drain()
        received, waited = await asyncio.gather(receiving, ended)
        assert asyncio.get_running_loop().time() - began < 5
        assert (received.status_code, received.json()) == (200, [])
        assert (waited.status_code, waited.json()["state"]) == (200, "delayed")


async def test_when_the_server_ends_calls_that_take_long_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attending, "LAST_SECONDS", 0.1)
    async with quick() as (noobly, application, client):
        for number in range(3):
            await noobly.queueing.send("q", number)
        body = {"queue": "q", "to": "other", "rate": 0.01}
        moving = asyncio.create_task(client.post("/v1/queueing/default/move", json=body))
        await eventually(lambda: _moved(noobly))
        application.drain()
        answer = await moving
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert [one.value for one in await noobly.queueing.receive("q", max=3)] == [1, 2]


async def _moved(noobly: Noobly) -> bool:
    return await noobly.queueing.size("other") == 1


async def test_a_mover_that_has_left_moves_nothing_more() -> None:
    async with quick() as (noobly, application, client):
        for number in range(3):
            await noobly.queueing.send("q", number)
        body = {"queue": "q", "to": "other", "rate": 0.01}
        moving = asyncio.create_task(client.post("/v1/queueing/default/move", json=body))
        await eventually(lambda: _moved(noobly))
        moving.cancel()
        await asyncio.wait([moving])
        await eventually(lambda: not application.attendance.waiting)


async def test_so_many_calls_wait_and_no_more() -> None:
    async with quick() as (_, application, client):
        url, body = "/v1/queueing/default/receive", {"queue": "q", "wait": 20}
        waiting = [asyncio.create_task(client.post(url, json=body)) for _ in range(2)]
        await eventually(lambda: application.attendance.waiting == 2)
        refused = await client.post(url, json=body)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert (await client.get("/v1")).status_code == 200
        application.drain()
        assert [one.status_code for one in await asyncio.gather(*waiting)] == [200, 200]


@pytest.mark.parametrize("late", [False, True])
async def test_what_a_client_left_behind_is_taken_back(late: bool) -> None:
    undone: list[int] = []

    async def call() -> int:
        if late:  # Its result is there before the cancellation comes, as with a store that has answered already.
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return 7
        return 7

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def undo(result: int) -> None:
        undone.append(result)

    with pytest.raises(ClientDisconnect):
        await Attendance(1).attend(call, receive, undo)
    assert undone == [7]


async def test_where_it_cannot_be_taken_back_the_client_has_still_left(caplog: pytest.LogCaptureFixture) -> None:
    async def call() -> int:
        return 7

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def undo(result: int) -> None:
        raise RateLimited("too many")

    with pytest.raises(ClientDisconnect):
        await Attendance(1).attend(call, receive, undo)
    assert "could not be taken back" in caplog.text


async def test_what_reached_nobody_is_there_for_others_at_once() -> None:
    async with quick() as (noobly, _, _):
        await noobly.queueing.send("q", 1)
        await noobly.queueing.unreceived(await noobly.queueing.receive("q"))
        (delivery,) = await noobly.queueing.receive("q")
        assert delivery.value == 1
        await noobly.queueing.ack("q", delivery.receipt)
        await noobly.queueing.unreceived([delivery])  # It is done, and stays so.
        assert await noobly.queueing.receive("q") == []
        await noobly.working.enqueue("task")
        await noobly.working.unclaimed(await noobly.working.claim("default", "one"))
        (held,) = await noobly.working.claim("default", "other")
        assert held.job.attempts == 1
        await noobly.working.unclaimed([])


async def test_a_deeply_nested_answer_is_written_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def deep(result: object, accept: str) -> tuple[bytes, str]:
        if threading.current_thread() is threading.main_thread():
            raise Internal("the answer cannot be written: RecursionError")
        return encode_result(result, accept)

    async with quick() as (noobly, _, client):
        await noobly.queueing.send("q", 1)
        monkeypatch.setattr(native, "encode_result", deep)
        answer = await client.post("/v1/queueing/default/receive", json={"queue": "q"})
        assert [one["value"] for one in answer.json()] == [1]


async def test_messages_whose_answer_cannot_be_written_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(result: object, accept: str) -> tuple[bytes, str]:
        raise Internal("the answer cannot be written: RecursionError")

    async with quick() as (noobly, _, client):
        await noobly.queueing.send("q", 1)
        monkeypatch.setattr(native, "encode_result", fails)
        answer = await client.post("/v1/queueing/default/receive", json={"queue": "q"})
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert [one.value for one in await noobly.queueing.receive("q")] == [1]


async def test_a_client_waits_for_what_takes_long_by_its_arguments() -> None:
    async with quick() as (noobly, _, client), open_queues(str(client.base_url), timeout=0.1) as there:
        for number in range(4):
            await noobly.queueing.send("q", number)
        moved = await there.move("q", "other", rate=10)
        assert moved.moved == 4
