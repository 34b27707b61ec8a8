"""``/metrics`` over HTTP, and a real Prometheus that scrapes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx2
import pytest
from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from noobly.app import Noobly
from noobly.measuring.instruments import Instruments
from noobly.server.app import Application
from noobly.server.auth import DevGuard
from noobly.settings import Settings
from noobly.testing import OwnedServer, eventually, private_or_skip

from ..serving import serving
from .test_serve import serve


@pytest.fixture
async def noobly() -> AsyncIterator[Noobly]:
    async with Noobly.open(settings=Settings()) as opened:
        yield opened


@pytest.fixture
async def base(noobly: Noobly) -> AsyncIterator[str]:
    async with serving(Application(noobly, DevGuard())) as base:
        yield base


async def get(base: str, query: str = "", headers: Mapping[str, str] | None = None) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=base, trust_env=False) as client:
        return await client.get(f"/metrics{query}", headers={"accept-encoding": "identity", **(headers or {})})


async def test_formats_and_compression(base: str) -> None:
    text = await get(base)
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert text.headers["vary"] == "accept, accept-encoding"
    assert "content-encoding" not in text.headers
    packed = await get(base, headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.text == text.text
    openmetrics = await get(base, headers={"accept": "application/openmetrics-text;version=1.0.0"})
    assert openmetrics.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert openmetrics.text.endswith("\n# EOF\n")


async def test_names_are_chosen_in_the_query(base: str) -> None:
    text = (await get(base, "?name[]=process_open_fds&name[]=python_info")).text
    kinds = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert sorted(kinds) == ["process_open_fds", "python_info"]


async def test_what_comes_by_itself(noobly: Noobly, base: str) -> None:
    await noobly.caching.get("nobody")
    text = (await get(base)).text
    operation = 'operation="get",outcome="ok",provider="memory",service="caching"'
    assert f'noobly_operation_duration_seconds_count{{instance="default",{operation}}} 1.0' in text
    assert 'noobly_provider_instances{provider="memory",service="caching"} 1.0' in text
    assert 'noobly_provider_operations_total{provider="memory",service="caching"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    assert "python_gc_collections_total" in text


async def instant(client: httpx2.AsyncClient, query: str) -> list[float]:
    answer = (await client.get("/api/v1/query", params={"query": query})).json()
    assert answer["status"] == "success"
    return [float(row["value"][1]) for row in answer["data"]["result"]]


async def answered(client: httpx2.AsyncClient, query: str, wanted: list[float]) -> None:
    """Wait until Prometheus, which scrapes once a second, answers so."""
    found: list[float] = []
    for _ in range(150):
        found = await instant(client, query)
        if found == wanted:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{query} is {found}, not {wanted}")


def told(prometheus: OwnedServer, base: str) -> None:
    targets = [{"targets": [base.removeprefix("http://")]}]
    folder = Path(f"/proc/{prometheus.pid}/cwd").readlink()
    (folder / "targets.new").write_text(json.dumps(targets))
    (folder / "targets.new").replace(folder / "targets.json")


@pytest.fixture
async def prometheus() -> AsyncIterator[OwnedServer]:
    with private_or_skip("prometheus") as server:
        yield server


@pytest.mark.servers
async def test_a_real_prometheus_scrapes_it_and_answers(noobly: Noobly, base: str, prometheus: OwnedServer) -> None:
    instruments = Instruments(noobly.environment.meter)
    orders = instruments.counter("shop_orders_total", "Orders.", labels=["kind"])
    took = instruments.histogram("shop_took_seconds", "Took.", buckets=[0.1, 1, 10])
    orders.inc(3, kind='book\n\\"ü')
    orders.inc(4, kind="film")
    for seconds in (0.05, 0.5, 0.5, 5):
        took.observe(seconds)
    span = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(span)))
    took.observe(0.7)
    context.detach(token)
    told(prometheus, base)
    async with httpx2.AsyncClient(base_url=prometheus.url, trust_env=False) as client:
        await answered(client, "up", [1])
        await answered(client, "sum(shop_orders_total)", [7])
        await answered(client, 'shop_orders_total{kind="book\\n\\\\\\"ü"}', [3])
        await answered(client, "shop_took_seconds_bucket{le='1.0'} / ignoring(le) shop_took_seconds_count", [0.8])
        await answered(client, "histogram_quantile(0.5, shop_took_seconds_bucket)", [0.55])
        query = {"query": "shop_took_seconds_bucket", "start": "2020-01-01T00:00:00Z", "end": "2099-01-01T00:00:00Z"}
        found = (await client.get("/api/v1/query_exemplars", params=query)).json()["data"]
        assert found[0]["exemplars"][0]["labels"] == {"span_id": f"{0xDEF:016x}", "trace_id": f"{0xABC:032x}"}
        orders.inc(10, kind="film")
        await answered(client, 'shop_orders_total{kind="film"}', [14])
        health = (await client.get("/api/v1/targets")).json()["data"]["activeTargets"][0]
        assert (health["health"], health["lastError"]) == ("up", "")


async def test_the_server_pushes_where_it_is_told_to(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from ..otlp import collecting

    with collecting() as collector:
        environ = {"NOOBLY_SERVER__OTLP_URL": collector.url, "NOOBLY_SERVER__OTLP_INTERVAL": "0.1"}
        async with serve(tmp_path, "--dev", environ=environ) as server:
            await eventually(lambda: len(collector.requests) >= 2, 20)
            assert await server.stop() == 0
        resource = {
            one.key: one.value.string_value for one in collector.requests[-1].resource_metrics[0].resource.attributes
        }
        assert (resource["service.name"], bool(resource["service.instance.id"])) == ("noobly", True)
        assert "noobly_event_loop_lag_seconds" in collector.last()
