"""Every route times every kind of caller: nothing is reachable that does not say so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from noobly.app import Noobly
from noobly.core.errors import ConfigError
from noobly.server.app import Application
from noobly.server.auth import DevGuard, KeyGuard, Sessions
from noobly.server.keys import Keyring, KeyStore
from noobly.server.routes import Access, Endpoint, Open, Table
from noobly.settings import Settings

ADDRESS = "http://localhost"


class Served:
    def __init__(self, noobly: Noobly, folder: Path) -> None:
        store = KeyStore(folder / "keys.json")
        self.full = store.create(name="full", scopes=["*"]).text.reveal()
        self.reader = store.create(name="reader", scopes=["caching:read"]).text.reveal()
        self.writer = store.create(name="writer", scopes=["queueing:write", "working:write"]).text.reveal()
        self.expired = store.create(name="expired", scopes=["*"], lifetime=1e-6).text.reveal()
        revoked = store.create(name="revoked", scopes=["*"])
        self.revoked = revoked.text.reveal()
        store.revoke(revoked.key.id)
        self.sessions = Sessions()
        self.application = Application(noobly, KeyGuard(Keyring([store]), self.sessions))
        self.application.streams.drain()  # Streams that begin now end at once.

    def client(self, headers: dict[str, str] | None = None) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=self.application)
        return httpx2.AsyncClient(transport=transport, base_url=ADDRESS, headers=headers or {})


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with Noobly.open(settings=Settings()) as noobly:
        yield Served(noobly, tmp_path)


def url(endpoint: Endpoint) -> str:
    return endpoint.path + "/x" * endpoint.segments


async def statuses(served: Served, headers: dict[str, str]) -> dict[tuple[str, str], int]:
    async with served.client(headers) as client:
        return {
            (endpoint.method, endpoint.path): (await client.request(endpoint.method, url(endpoint))).status_code
            for endpoint in served.application.table.endpoints
        }


def needs_key(served: Served) -> set[tuple[str, str]]:
    return {
        (endpoint.method, endpoint.path)
        for endpoint in served.application.table.endpoints
        if isinstance(endpoint.access, Access)
    }


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": "noobly_wrongwrong12_wrong"},
        {"x-api-key": ""},
        {"authorization": "Basic abc"},
        {"authorization": "bearer x"},
        {"cookie": "noobly_session=guess"},
    ],
    ids=["none", "wrong", "empty", "basic", "small bearer", "guessed cookie"],
)
async def test_without_a_good_key_only_open_routes_answer(served: Served, headers: dict[str, str]) -> None:
    found = await statuses(served, headers)
    assert {route for route, status in found.items() if status == 401} == needs_key(served)
    assert len(needs_key(served)) > 20


async def test_expired_and_revoked_keys_are_wrong_keys(served: Served) -> None:
    for key in (served.expired, served.revoked):
        found = await statuses(served, {"x-api-key": key})
        assert {route for route, status in found.items() if status == 401} == needs_key(served)


async def test_a_read_scope_reads_and_no_more(served: Served) -> None:
    found = await statuses(served, {"x-api-key": served.reader})
    for endpoint in served.application.table.endpoints:
        status = found[endpoint.method, endpoint.path]
        allowed = endpoint.access in (Open.EVERYBODY, Access("caching", "read"))
        assert (status == 403) is not allowed, (endpoint.name, status)


@pytest.mark.parametrize(
    "route",
    [
        ("DELETE", "/services/queueing/api/purge/q"),
        ("POST", "/services/working/api/stop"),
        ("POST", "/services/working/api/start"),
    ],
)
async def test_what_is_for_administrators_is_so_in_the_legacy_api(served: Served, route: tuple[str, str]) -> None:
    async with served.client({"x-api-key": served.writer}) as client:
        assert (await client.get("/services/queueing/api/dequeue/q")).status_code == 200
        assert (await client.request(*route)).status_code == 403


async def test_a_full_key_reaches_everything(served: Served) -> None:
    found = await statuses(served, {"x-api-key": served.full})
    assert not {status for status in found.values() if status in (401, 403) or status >= 500}


@pytest.mark.parametrize("form", ["x-api-key", "api-key", "Bearer", "ApiKey"])
async def test_the_four_ways_to_show_a_key(served: Served, form: str) -> None:
    headers = {form: served.full} if "-" in form else {"authorization": f"{form} {served.full}"}
    async with served.client(headers) as client:
        assert (await client.get("/v1/caching/default/stats")).status_code == 200


async def test_a_key_in_the_query_counts_for_nothing(served: Served) -> None:
    async with served.client() as client:
        answer = await client.get("/services/caching/api/list", params={"api_key": served.full})
    assert answer.status_code == 401
    assert answer.json()["code"] == "MISSING_API_KEY"


async def test_a_wrong_legacy_key(served: Served) -> None:
    async with served.client({"x-api-key": "nonsense"}) as client:
        answer = await client.get("/services/caching/api/get/status")
    assert (answer.status_code, answer.json()["code"]) == (401, "INVALID_API_KEY")


class TestLink:
    async def test_it_works_once_and_then_the_cookie_does(self, served: Served) -> None:
        table = Table(
            [Endpoint(method="GET", path="/enter", access=Open.EVERYBODY, handler=served.sessions.enter, name="enter")]
        )
        served.application.table = Table([*served.application.table.endpoints, *table.endpoints])
        link = f"/enter?ticket={served.sessions.ticket}"
        async with served.client() as client:
            entered = await client.get(link)
            assert entered.status_code == 303
            assert "httponly" in entered.headers["set-cookie"].lower()
            assert "samesite=strict" in entered.headers["set-cookie"].lower()
            assert (await client.get("/v1/caching/default/stats")).status_code == 200
            elsewhere = {"sec-fetch-site": "cross-site"}
            assert (await client.get("/v1/caching/default/stats", headers=elsewhere)).status_code == 403
            old_browser = {"origin": "http://evil.example"}
            assert (await client.delete("/v1/caching/default/entry?key=a", headers=old_browser)).status_code == 403
            assert (await client.get(link)).status_code == 401
        async with served.client() as other:
            assert (await other.get(link)).status_code == 401


class TestDev:
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1:11000", "[::1]:11000"])
    async def test_this_machine_comes_in(self, served: Served, host: str) -> None:
        served.application._guard = DevGuard()
        async with served.client({"host": host}) as client:
            assert (await client.get("/v1/caching/default/stats")).status_code == 200

    @pytest.mark.parametrize(
        "headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}]
    )
    async def test_pages_from_elsewhere_do_not(self, served: Served, headers: dict[str, str]) -> None:
        served.application._guard = DevGuard()
        async with served.client(headers) as client:
            assert (await client.get("/v1/caching/default/stats")).status_code == 403


async def test_a_route_without_a_permission_cannot_exist() -> None:
    endpoint = Endpoint(method="GET", path="/x", access=None, handler=Sessions().enter, name="x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="declares no permission"):
        Table([endpoint])


async def test_a_route_cannot_be_declared_twice() -> None:
    endpoint = Endpoint(method="GET", path="/x", access=Open.EVERYBODY, handler=Sessions().enter, name="x")
    with pytest.raises(ConfigError, match="twice"):
        Table([endpoint, endpoint])


async def test_keys_of_the_same_name_are_not_the_same_caller(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.json")
    keys = [store.create(name="worker", scopes=["queueing:write"]).text.reveal() for _ in range(2)]
    async with Noobly.open(settings=Settings()) as noobly:
        application = Application(noobly, KeyGuard(Keyring([store]), Sessions()))
        transport = httpx2.ASGITransport(app=application)
        for number in range(2):
            await noobly.queueing.send("q", number)
        got = []
        async with httpx2.AsyncClient(transport=transport, base_url=ADDRESS) as client:
            for key in keys:
                headers = {"x-api-key": key, "idempotency-key": "one"}
                got.append(
                    (await client.post("/v1/queueing/default/dequeue", json={"queue": "q"}, headers=headers)).json()
                )
        assert got == [0, 1]


async def test_without_a_key_nobody_learns_the_names_of_instances(served: Served) -> None:
    for key, detail in (
        (None, "the server has no caching instance 'nowhere'"),
        (served.reader, "the server has no caching instance 'nowhere'; configured are default"),
    ):
        async with served.client({"x-api-key": key} if key else None) as client:
            assert (await client.get("/v1/caching/nowhere/entry")).json()["detail"] == detail
