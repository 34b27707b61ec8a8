"""The OpenAPI document: valid, complete, and true of what the server answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from noobly.app import Noobly
from noobly.caching import Cache
from noobly.core import errors
from noobly.core.public import routes
from noobly.server.app import Application
from noobly.server.auth import DevGuard
from noobly.server.openapi import document
from noobly.server.pages import PAGES
from noobly.server.routes import Access, Endpoint
from noobly.services import SERVICES
from noobly.settings import Instance, Settings

Document = dict[str, dict]

SETTINGS = Settings(services={"caching": {"default": Instance(url="memory://"), "sessions": Instance(url="memory://")}})
DEFAULT = "/v1/caching/default"


@pytest_asyncio.fixture
async def application() -> AsyncIterator[Application]:
    async with Noobly.open(settings=SETTINGS) as noobly:
        yield Application(noobly, DevGuard())


@pytest_asyncio.fixture
async def client(application: Application) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=application)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as opened:
        yield opened


@pytest_asyncio.fixture
async def described(client: httpx2.AsyncClient) -> Document:
    answer = await client.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    return answer.json()


def operations(described: Document) -> dict[tuple[str, str], dict]:
    return {
        (method.upper(), path): operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }


def path(endpoint: Endpoint) -> str:
    names = ["text"] if endpoint.segments == 1 else [f"text{place + 1}" for place in range(endpoint.segments)]
    return endpoint.path + "".join(f"/{{{name}}}" for name in names)


def check(described: Document, answer: httpx2.Response, operation: dict) -> None:
    """Check an answer against the schema of its status and media type."""
    response = operation["responses"].get(str(answer.status_code)) or operation["responses"]["default"]
    if "$ref" in response:
        response = described["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schema = response["content"][answer.headers["content-type"].partition(";")[0]]["schema"]
    Draft202012Validator({**described, **schema}).validate(answer.json())


def test_it_is_valid(described: Document) -> None:
    validate(described)


def test_it_has_every_endpoint_but_static_files_and_nothing_else(application: Application, described: Document) -> None:
    served = {(one.method, path(one)) for one in application.table.endpoints if not one.name.startswith(f"{PAGES}.")}
    assert set(operations(described)) == served


def test_ids_are_unique(described: Document) -> None:
    ids = [one["operationId"] for one in operations(described).values()]
    assert len(set(ids)) == len(ids)
    assert {"caching_get", "caching_get__sessions", "caching_describe", "health_live"} <= set(ids)


def test_each_operation_names_its_scope(application: Application, described: Document) -> None:
    found = operations(described)
    for one in application.table.endpoints:
        if one.name.startswith(f"{PAGES}."):
            continue
        operation = found[one.method, path(one)]
        if isinstance(one.access, Access):
            assert operation["x-noobly-scope"] == f"{one.access.service}:{one.access.permission}"
            assert "security" not in operation
        else:
            assert operation["security"] == []


def test_arguments_are_as_declared(described: Document) -> None:
    found = operations(described)
    for route in routes(Cache):
        operation = found[route.verb, f"{DEFAULT}/{route.path}"]
        carried = {one["name"]: one.get("required", False) for one in operation.get("parameters", []) if "name" in one}
        if route.verb == "POST" and route.params:
            reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            schema = described["components"]["schemas"][reference.rpartition("/")[2]]
            carried |= {name: name in schema["required"] for name in schema["properties"]}
        if route.body is not None:
            carried[route.body] = operation["requestBody"]["required"]
        assert carried == {param.name: param.required for param in route.params}, route.name


def test_words_and_defaults_come_from_the_declaration(described: Document) -> None:
    put = described["paths"][f"{DEFAULT}/entry"]["put"]
    assert put["summary"] == "Store an entry, replacing what was there."
    parameters = {one["name"]: one for one in put["parameters"]}
    assert parameters["ttl"]["schema"] == {"type": "number"}
    assert parameters["ttl"]["description"] == "Seconds it stays fresh; the cache's `ttl` by default."
    assert parameters["tags"]["schema"] == {"type": "array", "items": {"type": "string"}, "default": []}
    keys = {one["name"]: one["schema"] for one in described["paths"][f"{DEFAULT}/keys"]["get"]["parameters"]}
    assert keys["limit"] == {"type": "integer", "default": 1000}
    abandon = described["paths"][f"{DEFAULT}/abandon"]["post"]
    assert abandon["summary"].endswith("so many seconds.")
    assert abandon["description"] == "Return whether it still stood."


def test_python_calls_name_the_instance(described: Document) -> None:
    call = described["paths"]["/v1/caching/sessions/entry"]["put"]["x-noobly-call"]
    expected = {"method": 'noobly.caching["sessions"].put', "positional": ["key", "value"], "body": "value"}
    assert call == expected


def test_media_types(described: Document) -> None:
    entry = described["paths"][f"{DEFAULT}/entry"]
    every = {"application/json", "application/msgpack", "application/octet-stream"}
    assert set(entry["put"]["requestBody"]["content"]) == every
    assert set(entry["get"]["responses"]["200"]["content"]) == every
    assert set(described["paths"][f"{DEFAULT}/exists"]["get"]["responses"]["200"]["content"]) == every - {
        "application/octet-stream"
    }
    assert "content" not in entry["put"]["responses"]["204"]


def test_only_posts_that_may_not_be_repeated_take_an_idempotency_key(described: Document) -> None:
    found = operations(described)
    reference = {"$ref": "#/components/parameters/IdempotencyKey"}
    for route in routes(Cache):
        taken = reference in found[route.verb, f"{DEFAULT}/{route.path}"].get("parameters", [])
        assert taken is not route.idempotent, route.name


def test_every_error_has_its_response(described: Document) -> None:
    responses = described["components"]["responses"]
    tree = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.NooblyError)]
    for one in tree:
        exact = responses[f"Problem{one.status}"]["content"]["application/problem+json"]["schema"]["allOf"][1]
        assert one.code in exact["properties"]["code"]["enum"]
    assert "404" in described["paths"][f"{DEFAULT}/entry"]["get"]["responses"]
    assert "409" in described["paths"][f"{DEFAULT}/increment"]["post"]["responses"]
    assert "413" in described["paths"][f"{DEFAULT}/entry"]["put"]["responses"]


def test_legacy_routes_are_deprecated(described: Document) -> None:
    for (_, where), operation in operations(described).items():
        assert operation.get("deprecated", False) is where.startswith("/services/")
    assert described["paths"]["/services/caching/api/put/{text}"]["post"]["parameters"][0]["in"] == "path"


async def test_the_order_is_always_the_same(application: Application, client: httpx2.AsyncClient) -> None:
    endpoints = [one for one in application.table.endpoints if not one.name.startswith(f"{PAGES}.")]
    paths = list((await client.get("/openapi.json")).json()["paths"])
    starts = [f"/v1/{service}/default" for service in SERVICES]
    assert [path for path in paths if path in ("/v1", *starts)] == ["/v1", *starts]
    async with Noobly.open(settings=SETTINGS) as another:
        assert document(endpoints, another) == (await client.get("/openapi.json")).content


@pytest.mark.parametrize(
    ("method", "where", "sent"),
    [
        ("GET", "/v1", {}),
        ("GET", DEFAULT, {}),
        ("GET", "/health", {}),
        ("GET", "/health/live", {}),
        ("GET", "/health/ready", {}),
        ("GET", "/openapi.json", {}),
        ("GET", f"{DEFAULT}/entry", {"params": {"key": "k"}}),
        ("GET", f"{DEFAULT}/entry", {"params": {"key": "absent"}}),
        ("GET", f"{DEFAULT}/entry", {}),
        ("GET", f"{DEFAULT}/lookup", {"params": {"key": "k"}}),
        ("GET", f"{DEFAULT}/lookup", {"params": {"key": "absent"}}),
        ("GET", f"{DEFAULT}/exists", {"params": {"key": "k"}}),
        ("GET", f"{DEFAULT}/keys", {}),
        ("GET", f"{DEFAULT}/stats", {}),
        ("POST", f"{DEFAULT}/increment", {"json": {"key": "n"}}),
        ("POST", f"{DEFAULT}/increment", {"json": {"key": "k"}}),
        ("POST", f"{DEFAULT}/get-many", {"json": {"keys": ["k"]}}),
        ("POST", f"{DEFAULT}/claim", {"json": {"key": "c"}}),
        ("DELETE", f"{DEFAULT}/entry", {"params": {"key": "k"}}),
    ],
)
async def test_answers_are_as_described(
    client: httpx2.AsyncClient, described: Document, method: str, where: str, sent: dict[str, dict]
) -> None:
    await client.put(f"{DEFAULT}/entry", params={"key": "k", "tags": ["t"]}, json={"name": "Ada"})
    answer = await client.request(method, where, **sent)
    assert answer.status_code < 500
    check(described, answer, operations(described)[method, where])


async def test_the_index_lists_what_runs(client: httpx2.AsyncClient) -> None:
    listed = {row["service"]: row["instances"] for row in (await client.get("/v1")).json()}
    assert list(listed) == list(SERVICES)
    assert listed["caching"] == [
        {"instance": "default", "provider": "memory", "path": "/v1/caching/default"},
        {"instance": "sessions", "provider": "memory", "path": "/v1/caching/sessions"},
    ]
