"""Correlation over HTTP: ids and traces come in, stand on every line, and go out again."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from noobly.app import Noobly
from noobly.caching import open_cache
from noobly.core.correlation import bind, carried, correlated, correlation_id
from noobly.logging import open_logs
from noobly.server.app import build
from noobly.server.auth import DevGuard
from noobly.server.correlation import Correlated
from noobly.settings import Settings

from ..serving import serving

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest_asyncio.fixture
async def noobly() -> AsyncIterator[Noobly]:
    async with Noobly.open(settings=Settings()) as opened:
        yield opened


@pytest_asyncio.fixture
async def client(noobly: Noobly) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an application that logs, with the suite's own mounted in it."""

    async def work(request: Request) -> Response:
        noobly.logging.debug("detail")
        await run_in_threadpool(noobly.logging.info, "worked")
        return PlainTextResponse(correlation_id(), int(request.query_params.get("status", "200")))

    async def broken(request: Request) -> Response:
        noobly.logging.debug("detail")
        raise RuntimeError("broken")

    suite = build(noobly, guard=DevGuard())
    app = Starlette(routes=[Route("/work", work), Route("/broken", broken), Mount("/noobly", suite)])
    transport = httpx2.ASGITransport(app=Correlated(app), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as opened:
        yield opened


class TestComingIn:
    async def test_an_id_is_kept_on_lines_and_on_the_answer(self, noobly: Noobly, client: httpx2.AsyncClient) -> None:
        answer = await client.get("/work", headers={"x-request-id": "r-1", "traceparent": PARENT})
        assert (answer.text, answer.headers.get_list("x-request-id")) == ("r-1", ["r-1"])
        (record,) = (await noobly.logging.search("worked")).records
        assert (record.correlation_id, record.trace_id, record.span_id) == ("r-1", TRACE, "b7ad6b7169203331")
        assert correlation_id() == ""

    @pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", "ä"])
    async def test_a_bad_one_is_replaced(self, client: httpx2.AsyncClient, given: str) -> None:
        answer = await client.get("/work", headers={b"x-request-id": given.encode()})
        assert len(answer.headers["x-request-id"]) == 32

    async def test_two_of_them_are_none(self, client: httpx2.AsyncClient) -> None:
        answer = await client.get("/work", headers=[("x-request-id", "a"), ("x-request-id", "b")])
        assert answer.headers["x-request-id"] not in ("a", "b")

    @pytest.mark.parametrize(
        "parent", ["00-" + "0" * 32 + "-b7ad6b7169203331-01", "nonsense", f"ff-{TRACE}-b7ad6b7169203331-01"]
    )
    async def test_a_bad_trace_is_none(self, noobly: Noobly, client: httpx2.AsyncClient, parent: str) -> None:
        await client.get("/work", headers={"traceparent": parent})
        assert (await noobly.logging.search("worked")).records[0].trace_id == ""

    async def test_what_is_mounted_keeps_the_outer_id(self, client: httpx2.AsyncClient) -> None:
        answer = await client.get("/noobly/health/live", headers={"x-request-id": "outer"})
        assert answer.headers.get_list("x-request-id") == ["outer"]
        answer = await client.get("/noobly/v1/caching/default/nothing", headers={"x-request-id": "outer"})
        assert answer.json()["request_id"] == "outer"


class TestDebugRing:
    @pytest.mark.parametrize(
        ("path", "kept"), [("/work", 0), ("/work?status=404", 0), ("/work?status=503", 1), ("/broken", 1)]
    )
    async def test_details_of_failed_requests_only(
        self, noobly: Noobly, client: httpx2.AsyncClient, path: str, kept: int
    ) -> None:
        await client.get(path, headers={"x-request-id": "r-1"})
        found = (await noobly.logging.search("detail")).records
        assert [record.correlation_id for record in found] == ["r-1"] * kept


class TestGoingOut:
    async def test_calls_of_the_suite_carry_the_id(self, noobly: Noobly) -> None:
        seen: list[str] = []

        async def app(scope, receive, send):  # type: ignore[no-untyped-def]  # ASGI
            if scope.get("path", "").startswith("/v1"):
                seen.append(dict(scope["headers"]).get(b"x-request-id", b"").decode())
            await build(noobly, guard=DevGuard())(scope, receive, send)

        async with serving(app) as base, open_cache(base) as cache:
            with correlated("r-1"):
                await cache.put("key", 1)
            await cache.get("key")
        assert seen == ["r-1", ""]

    async def test_of_requests_only_those_of_the_program_itself_become_records(
        self, noobly: Noobly, request: pytest.FixtureRequest
    ) -> None:
        log = logging.getLogger("httpx2")
        request.addfinalizer(lambda: log.setLevel(logging.NOTSET))
        log.setLevel(logging.INFO)
        async with (
            serving(build(noobly, guard=DevGuard())) as base,
            open_logs(capture=True) as logs,
            open_cache(base) as cache,
            httpx2.AsyncClient(trust_env=False) as client,
        ):
            await cache.get("key")
            await client.get(f"{base}/health/live")
            found = [record.message async for record in logs.search_all(attributes={"logger": "httpx2"})]
        assert len(found) == 1
        assert "/health/live" in found[0]


class TestThreads:
    async def test_to_thread_has_it_and_an_executor_by_carried(self) -> None:
        with correlated("r-1"), bind(user="ada"), ThreadPoolExecutor(1) as executor:
            loop = asyncio.get_running_loop()
            assert await asyncio.to_thread(correlation_id) == "r-1"
            assert await loop.run_in_executor(executor, correlation_id) == ""
            call = carried(correlation_id)
            assert await loop.run_in_executor(executor, call) == "r-1"
            assert [call(), call()] == ["r-1", "r-1"]
        assert contextvars.copy_context().run(correlation_id) == ""

    def test_an_id_that_is_not_plain_is_replaced_here_too(self) -> None:
        with correlated("a\nb") as context:
            assert len(context.correlation_id) == 32
