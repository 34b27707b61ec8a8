"""Streams over real granian: items, notices, errors, slow readers, readers that leave, and a server that ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx2
import pytest
from starlette.requests import Request

from noobly.core.errors import Conflict, Internal, InvalidArgument, PermissionDenied, Unavailable
from noobly.core.streams import Skipped
from noobly.server.app import Application
from noobly.server.auth import DevGuard
from noobly.server.routes import Access, Open
from noobly.testing import eventually

from ..serving import serving
from .ticks import Tick, Ticks, client_of, opened

PATH = "/v1/ticking/default"


class Guard(DevGuard):
    revoked = False

    def admit(self, request: Request, access: Access | Open) -> None:
        if self.revoked:
            raise PermissionDenied("the key was revoked")
        super().admit(request, access)


class Served:
    def __init__(self, ticks: Ticks, application: Application, guard: Guard, base: str) -> None:
        self.ticks = ticks
        self.guard = guard
        self.application = application
        self.base = base

    async def readers(self, number: int) -> None:
        await eventually(lambda: self.ticks.feed.readers == number)


@asynccontextmanager
async def served(**server: float) -> AsyncIterator[Served]:
    ticks, guard = Ticks(), Guard()
    async with asyncio.timeout(20), opened(ticks, **server) as noobly:
        application = Application(noobly, guard)
        async with serving(application) as base:
            try:
                yield Served(ticks, application, guard, base)
            finally:
                application.drain()  # A test that fails leaves its readers, for whom the server would wait.


async def test_items_come_as_they_happen() -> None:
    async with served() as server, client_of(server.base) as client:
        async with aclosing(client.follow(2, note="é\n")) as ticks:
            first = asyncio.create_task(anext(ticks))
            await server.readers(1)
            for tick in (Tick(1, "é\n"), Tick(2, "other"), Tick(2, "é\n")):
                server.ticks.feed.publish(tick)
            assert await first == Tick(2, "é\n")
            server.ticks.feed.publish(Tick(3, "é\n"))
            assert await anext(ticks) == Tick(3, "é\n")
        await server.readers(0)
        assert server.ticks.closed == 1
        await eventually(lambda: server.application.streams.readers == 0)


async def test_a_stream_that_ends_ends() -> None:
    async with served() as server, client_of(server.base) as client:
        assert [tick async for tick in client.count(5)] == [Tick(number) for number in range(5)]
        assert [tick async for tick in client.count(0)] == []
        follow = client.follow()
        waiting = asyncio.create_task(anext(follow))
        await server.readers(1)
        server.ticks.feed.publish(Tick(1))
        server.ticks.feed.close()
        assert await waiting == Tick(1)
        with pytest.raises(StopAsyncIteration):
            await anext(follow)


async def test_bad_arguments_are_an_answer_and_no_stream() -> None:
    async with served() as server, httpx2.AsyncClient(base_url=server.base, trust_env=False) as http:
        for query in ("least=-1", "least=x", "lest=1"):
            answer = await http.get(f"{PATH}/ticks?{query}")
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
        async with client_of(server.base) as client:
            with pytest.raises(InvalidArgument, match="negative"):
                await anext(client.follow(-1))
        assert server.application.streams.readers == server.ticks.feed.readers == 0


async def test_errors_on_the_way_are_raised_as_their_class() -> None:
    async with served() as server, client_of(server.base) as client:
        counting = client.count(20)
        assert [await anext(counting) for _ in range(13)] == [Tick(number) for number in range(13)]
        with pytest.raises(Conflict, match="bad luck"):
            await anext(counting)
        with pytest.raises(Internal) as failure:
            assert [tick async for tick in client.defect()] == []
        assert "secret" not in str(failure.value)


async def test_what_goes_over_the_wire() -> None:
    async with served() as server, httpx2.AsyncClient(base_url=server.base, trust_env=False) as http:
        answer = await http.post(f"{PATH}/count", json={"upto": 2})
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert "content-length" not in answer.headers
        assert answer.headers["x-request-id"]
        wanted = ': \n\ndata: {"number":0,"note":""}\n\ndata: {"number":1,"note":""}\n\nevent: end\ndata: {}\n\n'
        assert answer.text == wanted
        head = await http.head(f"{PATH}/ticks")
        assert (head.status_code, head.text) == (200, "")
        failed = (await http.post(f"{PATH}/count", json={"upto": 14}, headers={"x-request-id": "r-1"})).text
        problem = json.loads(failed.rpartition("event: error\ndata: ")[2])
        assert (problem["code"], problem["request_id"]) == ("conflict", "r-1")


async def test_silence_is_broken_by_comments() -> None:
    async with (
        served(stream_heartbeat=0.05) as server,
        httpx2.AsyncClient(base_url=server.base, trust_env=False) as http,
        http.stream("GET", f"{PATH}/ticks") as answer,
    ):
        pieces = answer.aiter_raw()
        heard = b""
        while heard.count(b": \n\n") < 3:
            heard += await anext(pieces)
        assert heard.replace(b": \n\n", b"") == b""


async def test_a_key_that_may_read_no_longer_ends_its_stream() -> None:
    async with served(stream_heartbeat=0.05) as server, client_of(server.base) as client:
        waiting = asyncio.create_task(anext(client.follow()))
        await server.readers(1)
        server.guard.revoked = True
        with pytest.raises(PermissionDenied, match="revoked"):
            await waiting
        await server.readers(0)


async def test_a_slow_reader_is_told_what_it_missed() -> None:
    async with served(stream_buffer=10) as server, client_of(server.base) as client:
        async with aclosing(client.follow()) as ticks:
            first = asyncio.create_task(anext(ticks))
            await server.readers(1)
            # Published in one turn of the event loop, in which nobody can read.
            for number in range(1, 1501):
                server.ticks.feed.publish(Tick(number))
            heard = [await first]
            server_says = Tick(2000)
            await asyncio.sleep(0)
            while not heard or heard[-1] != server_says:
                if sum(item.count if isinstance(item, Skipped) else 1 for item in heard) == 1500:
                    server.ticks.feed.publish(server_says)
                heard.append(await anext(ticks))
        counted = sum(item.count if isinstance(item, Skipped) else 1 for item in heard)
        assert counted == 1501
        assert any(isinstance(item, Skipped) for item in heard)
        numbers = [item.number for item in heard if isinstance(item, Tick)]
        assert numbers == sorted(numbers)


async def test_a_reader_that_leaves_frees_everything() -> None:
    async with served() as server:
        _, port = server.base.removeprefix("http://").split(":")
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
            writer.write(f"GET {PATH}/ticks HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            await reader.readuntil(b": \n\n")
            writer.transport.abort()
        await server.readers(0)
        await eventually(lambda: server.application.streams.readers == 0)
        assert server.ticks.closed == 20
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "noobly-stream"]


async def test_a_cancelled_reader_frees_everything() -> None:
    async with served() as server, client_of(server.base) as client:
        waiting = asyncio.create_task(anext(client.follow()))
        await server.readers(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await server.readers(0)


async def test_a_server_that_ends_says_when_to_come_again() -> None:
    async with served() as server, client_of(server.base) as client:
        waiting = asyncio.create_task(anext(client.follow()))
        await server.readers(1)
        server.application.drain()
        with pytest.raises(Unavailable, match="shutting down") as end:
            await waiting
        assert end.value.retry_after == 2.0
        await server.readers(0)
        with pytest.raises(Unavailable, match="shutting down"):
            await anext(client.follow())


async def test_a_connection_that_breaks_is_unavailable() -> None:
    async with client_of("http://127.0.0.1:9") as client:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await anext(client.follow())
