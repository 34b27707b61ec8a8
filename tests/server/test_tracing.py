"""Spans of requests: their names, what failures leave on them, and the exemplars that lead from a metric to a trace."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from noobly.app import Noobly
from noobly.server.app import Application
from noobly.server.auth import DevGuard
from noobly.server.routes import Endpoint, Open
from noobly.settings import Settings

OPENMETRICS = {"accept": "application/openmetrics-text;version=1.0.0"}
EXEMPLAR = re.compile(r'_bucket\{.*service="server".* # \{span_id="(\w+)",trace_id="(\w+)"\}')


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
async def client(spans: InMemorySpanExporter) -> AsyncIterator[httpx2.AsyncClient]:
    async def broken(request: object, texts: tuple[str, ...]) -> object:
        raise ZeroDivisionError("oh no")

    endpoint = Endpoint(method="GET", path="/broken", access=Open.EVERYBODY, handler=broken, name="broken")  # type: ignore[arg-type]
    async with Noobly.open(settings=Settings()) as noobly:
        transport = httpx2.ASGITransport(app=Application(noobly, DevGuard(), [endpoint]))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as opened:
            yield opened


async def test_a_request_is_the_exemplar_of_its_duration(
    spans: InMemorySpanExporter, client: httpx2.AsyncClient
) -> None:
    await client.get("/services/caching/api/get/k")
    (span,) = [one for one in spans.get_finished_spans() if one.name == "legacy.caching.get"]
    text = (await client.get("/metrics", headers=OPENMETRICS)).text
    (line,) = [line for line in text.splitlines() if 'operation="legacy.caching.get"' in line and " # {" in line]
    found = EXEMPLAR.search(line)
    assert found is not None
    assert span.context is not None
    assert found.groups() == (f"{span.context.span_id:016x}", f"{span.context.trace_id:032x}")


async def test_operations_are_within_their_request(spans: InMemorySpanExporter, client: httpx2.AsyncClient) -> None:
    await client.get("/services/caching/api/get/k")
    operation, request = spans.get_finished_spans()[-2:]
    assert (operation.name, request.name) == ("caching.get", "legacy.caching.get")
    assert operation.parent == request.context


@pytest.mark.parametrize(
    ("path", "name", "status", "events"),
    [
        ("/v1/caching/default/entry?key=nobody", "caching.get", StatusCode.UNSET, ["exception"]),
        ("/broken", "broken", StatusCode.ERROR, ["exception"]),
        ("/nowhere", "none", StatusCode.UNSET, []),
        ("/health/live", "health.live", StatusCode.UNSET, []),
    ],
)
async def test_failures_are_on_the_span(
    spans: InMemorySpanExporter, client: httpx2.AsyncClient, path: str, name: str, status: StatusCode, events: list[str]
) -> None:
    await client.get(path)
    span = spans.get_finished_spans()[-1]
    assert (span.name, span.status.status_code, [one.name for one in span.events]) == (name, status, events)
