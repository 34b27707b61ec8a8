"""The native API as any HTTP client sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx2
import msgspec
import pytest
import pytest_asyncio
from opentelemetry import trace
from starlette.requests import Request
from starlette.responses import Response

from noobly.app import Noobly
from noobly.caching import open_cache
from noobly.core.errors import Conflict, Internal, NoRoute, TooLarge
from noobly.core.scope import Environment
from noobly.queueing import open_queues
from noobly.server import idempotency
from noobly.server.app import Application
from noobly.server.auth import DevGuard
from noobly.server.idempotency import Idempotency
from noobly.server.incoming import LIMIT
from noobly.settings import Instance, Server, Settings
from noobly.testing import FakeClock

from ..serving import serving

ENTRY = "/v1/caching/default/entry"
SETTINGS = Settings(
    server=Server(max_body_bytes=10_000),
    services={"caching": {"default": Instance(url="memory://"), "sessions": Instance(url="memory://")}},
)


@pytest_asyncio.fixture
async def noobly() -> AsyncIterator[Noobly]:
    async with Noobly.open(settings=SETTINGS) as opened:
        yield opened


@pytest_asyncio.fixture
async def client(noobly: Noobly) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=Application(noobly, DevGuard()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as opened:
        yield opened


class TestValues:
    @pytest.mark.parametrize("value", [None, True, 0, 1.5, "", "text", [], [1, [2]], {}, {"a": {"b": None}}])
    async def test_json_goes_in_and_comes_out(self, client: httpx2.AsyncClient, value: object) -> None:
        headers = {"content-type": "application/json"}
        put = await client.put(ENTRY, params={"key": "k"}, content=json.dumps(value), headers=headers)
        assert put.status_code == 204
        got = await client.get(ENTRY, params={"key": "k"})
        assert (got.status_code, got.headers["content-type"]) == (200, "application/json")
        assert got.json() == value

    async def test_raw_bytes_stay_raw(self, client: httpx2.AsyncClient, noobly: Noobly) -> None:
        data = bytes(range(256))
        await client.put(ENTRY, params={"key": "k"}, content=data, headers={"content-type": "image/png"})
        got = await client.get(ENTRY, params={"key": "k"})
        assert (got.content, got.headers["content-type"]) == (data, "application/octet-stream")
        assert await noobly.caching.get("k") == data

    async def test_msgpack_both_ways(self, client: httpx2.AsyncClient) -> None:
        body = msgspec.msgpack.encode({"a": 1})
        kind = {"content-type": "application/msgpack", "accept": "application/msgpack"}
        await client.put(ENTRY, params={"key": "k"}, content=body, headers=kind)
        got = await client.get(ENTRY, params={"key": "k"}, headers=kind)
        assert (got.content, got.headers["content-type"]) == (body, "application/msgpack")

    async def test_a_missing_entry_is_404_and_a_stored_null_is_not(self, client: httpx2.AsyncClient) -> None:
        missing = await client.get(ENTRY, params={"key": "k"})
        assert missing.status_code == 404
        assert missing.headers["content-type"] == "application/problem+json"
        assert missing.json()["code"] == "not_found"
        await client.put(ENTRY, params={"key": "k"}, content=b"null", headers={"content-type": "application/json"})
        assert (await client.get(ENTRY, params={"key": "k"})).content == b"null"

    @pytest.mark.parametrize("key", ["a/b", "..", "a b", "ü", "a\nb", "a%2Fb", "?&#", "trail/", "\x00", "x" * 1024])
    async def test_awkward_keys(self, client: httpx2.AsyncClient, noobly: Noobly, key: str) -> None:
        await client.put(ENTRY, params={"key": key}, json=1)
        assert await noobly.caching.get(key) == 1
        assert (await client.get(ENTRY, params={"key": key})).json() == 1

    async def test_options_travel(self, client: httpx2.AsyncClient, noobly: Noobly) -> None:
        await client.put(ENTRY, params={"key": "k", "ttl": "60", "tags": ["a", "b"]}, json=1)
        entry = await noobly.caching.lookup("k")
        assert entry is not None
        assert entry.tags == ["a", "b"]
        answer = await client.post("/v1/caching/default/invalidate", json={"tags": ["b"]})
        assert answer.status_code == 204
        assert await noobly.caching.get("k") is None

    async def test_instances_are_apart(self, client: httpx2.AsyncClient, noobly: Noobly) -> None:
        await client.put("/v1/caching/sessions/entry", params={"key": "k"}, json=1)
        assert await noobly.caching["sessions"].get("k") == 1
        assert await noobly.caching.get("k") is None

    async def test_an_instance_describes_itself(self, client: httpx2.AsyncClient) -> None:
        described = (await client.get("/v1/caching/sessions")).json()
        assert (described["service"], described["provider"]) == ("caching", "memory")
        assert {"name", "method", "path", "permission"} <= described["operations"][0].keys()


class TestErrors:
    async def test_a_problem_document(self, client: httpx2.AsyncClient) -> None:
        answer = await client.put(ENTRY, params={"key": ""}, json=1, headers={"x-request-id": "abc-1"})
        assert answer.headers["x-request-id"] == "abc-1"
        problem = answer.json()
        assert (problem["status"], problem["code"], problem["request_id"]) == (400, "invalid_argument", "abc-1")
        assert "key must have 1 to 1024 characters" in problem["detail"]

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ({"key": "k", "ttl": "-1"}, "ttl must be more than 0"),
            ({"key": "k", "ttl": "soon"}, "ttl"),
            ({"key": "k", "ttl": "nan"}, "ttl must be more than 0"),
            ({"key": "k", "tll": "1"}, "no argument 'tll'"),
            ({"k" * 300: "1"}, f"no argument '{'k' * 100}'"),
            ({}, "needs key"),
            ({"key": ["a", "b"]}, "given 2 times"),
        ],
    )
    async def test_bad_arguments(self, client: httpx2.AsyncClient, query: dict[str, str], message: str) -> None:
        answer = await client.put(ENTRY, params=query, json=1)
        assert answer.status_code == 400
        assert message in answer.json()["detail"]

    @pytest.mark.parametrize("query", ["key=%ff%fe", "key=k&ttl=%C3%28"])
    async def test_a_query_that_is_not_utf_8(self, client: httpx2.AsyncClient, query: str) -> None:
        answer = await client.put(f"{ENTRY}?{query}", json=1)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
        assert "not percent-encoded UTF-8" in answer.json()["detail"]

    @pytest.mark.parametrize(
        ("path", "body", "message"),
        [
            ("working/default/add", {"jobs": [{"task": "t", "dely": 60}]}, "`dely` - at `$[0]`; did you mean delay?"),
            (
                "working/default/add",
                {"jobs": [{"task": "t", "after": [{"task": "t", "retrys": 1}]}]},
                "`retrys` - at `$[0].after[0]`; did you mean retries?",
            ),
            (
                "queueing/default/send-many",
                {"queue": "q", "messages": [{"message": 1, "prio": 1}]},
                "unknown field `prio` - at `$[0]`",
            ),
            ("measuring/default/add-many", {"samples": [{"name": "m", "value": 1, "z" * 300: 1}]}, f"`{'z' * 100}`"),
            ("logging/default/records", {"records": [{"message": "m", "levle": "info"}]}, "did you mean level?"),
            ("working/default/claim", {"queue": "q", "worker": "w", "bounds": {"runing": 1}}, "did you mean running?"),
        ],
    )
    async def test_unknown_fields_are_refused_at_every_depth(
        self, client: httpx2.AsyncClient, path: str, body: dict[str, object], message: str
    ) -> None:
        answer = await client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 400
        assert message in answer.json()["detail"]

    async def test_an_empty_queue_says_so(self, client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/queueing/default/dequeue", json={"queue": "orders"})
        assert answer.json()["detail"] == "dequeue: there is nothing under the queue 'orders'"

    @pytest.mark.parametrize(
        ("operation", "body"),
        [
            ("report", {"id": "x", "lines": ["line"] * 1001}),
            ("beat", {"queue": "q", "holds": [{"id": "x", "token": "t"}] * 1001}),
            ("settle", {"queue": "q", "attempts": [{"id": "x", "token": "t", "verdict": "failed"}] * 1001}),
        ],
    )
    async def test_so_many_at_once_and_no_more(self, operation: str, body: dict[str, object]) -> None:
        async with Noobly.open(settings=Settings()) as noobly:
            transport = httpx2.ASGITransport(app=Application(noobly, DevGuard()))
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                answer = await client.post(f"/v1/working/default/{operation}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert "1000 is the most" in answer.json()["detail"]

    async def test_bad_bodies(self, client: httpx2.AsyncClient) -> None:
        json_type = {"content-type": "application/json"}
        bad = await client.put(ENTRY, params={"key": "k"}, content=b"{bad", headers=json_type)
        assert bad.status_code == 400
        not_an_object = await client.post("/v1/caching/default/touch", json=[1])
        assert not_an_object.status_code == 400
        wrong_type = await client.post("/v1/caching/default/touch", json={"key": 5})
        assert wrong_type.status_code == 400

    async def test_too_large_a_body(self, client: httpx2.AsyncClient) -> None:
        answer = await client.put(ENTRY, params={"key": "k"}, content=b"x" * 10_001)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")

        async def parts() -> AsyncIterator[bytes]:
            for _ in range(11):
                yield b"x" * 1000

        assert (await client.put(ENTRY, params={"key": "k"}, content=parts())).status_code == 413

    async def test_unknown_routes_and_methods(self, client: httpx2.AsyncClient) -> None:
        nowhere = await client.get("/v1/caching/nowhere/entry")
        assert (nowhere.status_code, nowhere.json()["code"]) == (404, "no_route")
        expected = "the server has no caching instance 'nowhere'; configured are default, sessions"
        assert nowhere.json()["detail"] == expected
        for path in ("/v1/nothing", "/v1/caching/default/nothing", "/v1/caching", "/nothing"):
            assert (await client.get(path)).json()["detail"].startswith("there is no such route")
        wrong = await client.post(ENTRY)
        assert (wrong.status_code, wrong.headers["allow"], wrong.json()["status"]) == (
            405,
            "DELETE, GET, HEAD, PUT",
            405,
        )
        options = await client.options(ENTRY)
        assert (options.status_code, options.headers["allow"]) == (204, "DELETE, GET, HEAD, PUT")

    async def test_head_answers_like_get_without_a_body(self, client: httpx2.AsyncClient, noobly: Noobly) -> None:
        await noobly.caching.put("k", {"a": 1})
        head = await client.head(ENTRY, params={"key": "k"})
        assert (head.status_code, head.content) == (200, b"")

    async def test_a_defect_shows_nothing_of_itself(
        self, client: httpx2.AsyncClient, noobly: Noobly, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(*_: object) -> None:
            raise Internal("a secret path") from ValueError("/etc/secret")

        async def surprising(*_: object) -> None:
            raise KeyError("secret")

        application = Application(noobly, DevGuard())
        monkeypatch.setattr(application._guard, "admit", lambda *_: (_ for _ in ()).throw(KeyError("secret")))
        transport = httpx2.ASGITransport(app=application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as other:
            answer = await other.get("/health")
        assert answer.status_code == 500
        assert "secret" not in answer.text


def _post(key: str) -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "headers": [], LIMIT: 100}
    scope["headers"] = [(b"idempotency-key", key.encode())]
    return Request(scope, receive)


class TestIdempotencyKey:
    INCREMENT = "/v1/caching/default/increment"

    async def test_the_same_key_takes_effect_once(self, client: httpx2.AsyncClient, noobly: Noobly) -> None:
        headers = {"idempotency-key": "one"}
        first = await client.post(self.INCREMENT, json={"key": "n"}, headers=headers)
        second = await client.post(self.INCREMENT, json={"key": "n"}, headers=headers)
        assert (first.json(), second.json()) == (1, 1)
        assert second.headers["idempotency-replayed"] == "true"
        assert await noobly.caching.get("n") == 1
        third = await client.post(self.INCREMENT, json={"key": "n"}, headers={"idempotency-key": "two"})
        assert third.json() == 2

    async def test_the_same_key_with_another_body_is_refused(self, client: httpx2.AsyncClient) -> None:
        headers = {"idempotency-key": "one"}
        await client.post(self.INCREMENT, json={"key": "n"}, headers=headers)
        other = await client.post(self.INCREMENT, json={"key": "m"}, headers=headers)
        assert other.status_code == 400
        assert "another request" in other.json()["detail"]

    async def test_two_at_once_are_told_apart(self, client: httpx2.AsyncClient, noobly: Noobly) -> None:
        headers = {"idempotency-key": "one"}
        posts = (client.post(self.INCREMENT, json={"key": "n"}, headers=headers) for _ in range(20))
        answers = await asyncio.gather(*posts)
        assert await noobly.caching.get("n") == 1
        assert {answer.status_code for answer in answers} <= {200, 409}

    async def test_a_failed_request_may_be_sent_again(self, client: httpx2.AsyncClient) -> None:
        headers = {"idempotency-key": "one"}
        bad = await client.post(self.INCREMENT, json={"key": ""}, headers=headers)
        good = await client.post(self.INCREMENT, json={"key": "n"}, headers=headers)
        assert (bad.status_code, good.json()) == (400, 1)

    async def test_answers_are_kept_as_long_as_the_setting_says(self) -> None:
        clock = FakeClock()
        settings = Settings(server=Server(idempotency_ttl=10))
        async with Noobly.open(settings=settings, environment=Environment(clock=clock)) as noobly:
            transport = httpx2.ASGITransport(app=Application(noobly, DevGuard()))
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                headers, seen = {"idempotency-key": "one"}, []
                for _ in range(3):
                    seen.append((await client.post(self.INCREMENT, json={"key": "n"}, headers=headers)).json())
                    clock.advance(6)
        assert seen == [1, 1, 2]

    async def test_a_request_that_takes_long_is_under_way_all_the_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(idempotency, "_RENEWED_SECONDS", 0.01)
        clock = FakeClock()
        async with Noobly.open(settings=Settings(), environment=Environment(clock=clock)) as noobly:
            moved, renewed, touch = asyncio.Event(), asyncio.Event(), noobly.caching.touch

            async def slow(request: Request, _: tuple[str, ...]) -> Response:
                await moved.wait()
                return Response(b"done")

            async def touched(key: str, ttl: float) -> bool:
                renewed.set()
                return await touch(key, ttl)

            monkeypatch.setattr(noobly.caching, "touch", touched)
            guarded = Idempotency(noobly.caching, 60).guard(slow)
            first = asyncio.create_task(guarded(_post("one"), ()))
            for _ in range(3):
                renewed.clear()
                clock.advance(40)
                await asyncio.wait_for(renewed.wait(), 5)
            with pytest.raises(Conflict, match="under way"):
                await guarded(_post("one"), ())
            moved.set()
            assert (await first).body == b"done"

    async def test_an_answer_that_is_too_long_to_keep_is_given_once(self, noobly: Noobly) -> None:
        async def long(request: Request, _: tuple[str, ...]) -> Response:
            return Response(b"1234")

        guarded = Idempotency(noobly.caching, 60).guard(long, 3)
        assert (await guarded(_post("one"), ())).body == b"1234"
        with pytest.raises(Conflict, match="was not kept"):
            await guarded(_post("one"), ())

    async def test_a_cache_that_takes_no_answers_does_not_fail_the_request(
        self,
        client: httpx2.AsyncClient,
        noobly: Noobly,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async def full(*_: object, **__: object) -> None:
            raise TooLarge("the value is too large")

        monkeypatch.setattr(noobly.caching, "put", full)
        answer = await client.post(self.INCREMENT, json={"key": "n"}, headers={"idempotency-key": "one"})
        assert (answer.status_code, answer.json()) == (200, 1)
        assert "was not kept" in caplog.text

    async def test_what_can_be_taken_back_is_not_handed_out_again(
        self, client: httpx2.AsyncClient, noobly: Noobly
    ) -> None:
        headers, body = {"idempotency-key": "one"}, {"queue": "q"}
        await noobly.queueing.send("q", 1)
        assert len((await client.post("/v1/queueing/default/receive", json=body, headers=headers)).json()) == 1
        assert (await client.post("/v1/queueing/default/receive", json=body, headers=headers)).status_code == 409

    async def test_an_over_long_key(self, client: httpx2.AsyncClient) -> None:
        answer = await client.post(self.INCREMENT, json={"key": "n"}, headers={"idempotency-key": "x" * 256})
        assert answer.status_code == 400


class TestHealth:
    async def test_live_and_ready(self, client: httpx2.AsyncClient) -> None:
        assert (await client.get("/health/live")).json() == {"status": "live"}
        assert (await client.get("/health/ready")).json() == {"status": "ready"}
        details = (await client.get("/health")).json()
        assert all(row["state"] == "ok" for row in details)
        assert [row["instance"] for row in details if row["service"] == "caching"] == ["default", "sessions"]

    async def test_draining_is_not_ready(self, noobly: Noobly) -> None:
        application = Application(noobly, DevGuard())
        application.health.draining = True
        transport = httpx2.ASGITransport(app=application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/health/ready")).status_code == 503
            assert (await client.get("/health/live")).status_code == 200


class TestMetrics:
    async def test_text_and_openmetrics(self, client: httpx2.AsyncClient) -> None:
        await client.put(ENTRY, params={"key": "user:1"}, json=1)
        await client.get(ENTRY, params={"key": "user:1"})
        await client.get(ENTRY, params={"key": "user:2"})
        text = await client.get("/metrics")
        assert text.headers["content-type"].startswith("text/plain")
        assert 'noobly_cache_reads_total{instance="default",namespace="user",result="hit"} 1.0' in text.text
        assert 'noobly_cache_reads_total{instance="default",namespace="user",result="miss"} 1.0' in text.text
        assert 'operation="caching.get",outcome="404",provider="asgi"' in text.text
        openmetrics = await client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
        assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
        assert openmetrics.text.endswith("# EOF\n")


class TestTracing:
    async def test_a_callers_trace_goes_on(self, noobly: Noobly, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[str] = []
        original = noobly.caching.get

        async def spied(*args: object, **kwargs: object) -> object:
            seen.append(format(trace.get_current_span().get_span_context().trace_id, "032x"))
            return await original(*args, **kwargs)  # type: ignore[call-overload]

        monkeypatch.setattr(noobly.caching, "get", spied)
        transport = httpx2.ASGITransport(app=Application(noobly, DevGuard()))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            trace_id = "0af7651916cd43dd8448eb211c80319c"
            await client.get(ENTRY, params={"key": "k"}, headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})
        assert seen == [trace_id]


async def test_a_remote_cache_sends_the_trace_on(noobly: Noobly) -> None:
    from ..serving import serving

    received: list[str] = []
    application = Application(noobly, DevGuard())

    async def spy(scope: dict[str, object], receive: object, send: object) -> None:
        headers = dict(scope.get("headers", ()))  # type: ignore[call-overload]
        received.append(headers.get(b"traceparent", b"").decode())
        await application(scope, receive, send)  # type: ignore[arg-type]

    parent = trace.NonRecordingSpan(
        trace.SpanContext(
            0xAF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, is_remote=False, trace_flags=trace.TraceFlags(1)
        )
    )
    async with serving(spy) as base, open_cache(base) as cache:
        received.clear()
        with trace.use_span(parent):
            await cache.put("k", 1)
    assert received == ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]


class TestLegacy:
    BASE = "/services/caching/api"

    async def test_case_and_slash_do_not_matter(self, client: httpx2.AsyncClient) -> None:
        assert (await client.get("/Services/Caching/API/Status/")).json() == "caching api running"

    async def test_no_body_stores_an_empty_object(self, client: httpx2.AsyncClient) -> None:
        put = await client.post(f"{self.BASE}/put/k")
        assert (put.status_code, put.text) == (200, "OK")
        assert put.headers["content-type"] == "text/html; charset=utf-8"
        assert (await client.get(f"{self.BASE}/get/k")).json() == {}

    async def test_another_content_type_counts_as_no_body(self, client: httpx2.AsyncClient) -> None:
        await client.post(f"{self.BASE}/put/k", content=b"a=1", headers={"content-type": "text/plain"})
        assert (await client.get(f"{self.BASE}/get/k")).json() == {}

    @pytest.mark.parametrize("body", ["1", '"x"', "{bad"])
    async def test_only_objects_and_arrays(self, client: httpx2.AsyncClient, body: str) -> None:
        put = await client.post(f"{self.BASE}/put/k", content=body, headers={"content-type": "application/json"})
        assert put.status_code == 400

    async def test_too_large_a_body(self, client: httpx2.AsyncClient) -> None:
        put = await client.post(f"{self.BASE}/put/k", json={"a": "x" * 200_000})
        assert put.status_code == 413

    async def test_segments_are_not_merged(self, client: httpx2.AsyncClient) -> None:
        assert (await client.get(f"{self.BASE}/get/a/b")).status_code == 404
        assert (await client.put(f"{self.BASE}/put/a")).status_code == 404
        assert (await client.get(f"{self.BASE}/get/%ff")).status_code == 400

    async def test_inherited_names_are_only_keys(self, client: httpx2.AsyncClient) -> None:
        for key in ("constructor", "__proto__", "status"):
            assert (await client.get(f"{self.BASE}/get/{key}")).json() is None

    async def test_list_tells_the_keys_used_last(self, client: httpx2.AsyncClient) -> None:
        for number in range(101):
            await client.post(f"{self.BASE}/put/k{number}", json={})
        await client.get(f"{self.BASE}/get/k50")
        listed = (await client.get(f"{self.BASE}/list")).json()
        assert (listed["success"], listed["total"], len(listed["data"])) == (True, 100, 100)
        assert listed["data"][0]["key"] == "k50"
        assert listed["data"][0]["hits"] == 2
        assert listed["data"][0]["lastHit"].endswith("Z")
        assert json.dumps(listed["data"]).count('"k0"') == 0


async def test_a_remote_instance_that_is_not_there_is_not_an_empty_one(noobly: Noobly) -> None:
    async with (
        serving(Application(noobly, DevGuard())) as base,
        open_cache(base, at="nope") as cache,
        open_queues(base, at="nope") as queues,
        open_cache(base, at="sessions") as there,
    ):
        assert await there.get("k", "nothing") == "nothing"
        with pytest.raises(NoRoute, match="no caching instance 'nope'; configured are default, sessions"):
            await cache.get("k")
        with pytest.raises(NoRoute, match="no queueing instance 'nope'"):
            await queues.dequeue("q")
