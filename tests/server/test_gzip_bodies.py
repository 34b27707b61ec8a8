"""Compressed request bodies: read within the limit, refused where they are not what they say, sent where it pays."""

from __future__ import annotations

import gzip
import os
from collections.abc import AsyncIterator

import httpx2
import pytest

from noobly.app import Noobly
from noobly.caching import open_cache
from noobly.server.app import Application
from noobly.server.auth import DevGuard
from noobly.settings import Server, Settings

from ..serving import serving

ENTRY = "/v1/caching/default/entry?key=k"
LIMIT = 200_000


@pytest.fixture
async def noobly() -> AsyncIterator[Noobly]:
    async with Noobly.open(settings=Settings(server=Server(max_body_bytes=LIMIT))) as opened:
        yield opened


@pytest.fixture
async def client(noobly: Noobly) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=Application(noobly, DevGuard()))
    headers = {"content-type": "application/octet-stream"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as opened:
        yield opened


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
@pytest.mark.parametrize("data", [b"", b"x" * LIMIT, os.urandom(LIMIT - 1000)], ids=["empty", "long", "incompressible"])
async def test_a_compressed_body(client: httpx2.AsyncClient, noobly: Noobly, coding: str, data: bytes) -> None:
    sent = await client.put(ENTRY, content=gzip.compress(data), headers={"content-encoding": coding})
    assert sent.status_code == 204
    assert await noobly.caching.get("k") == data


async def test_a_body_that_grows_too_large_is_refused(client: httpx2.AsyncClient) -> None:
    for size in (LIMIT + 1, 100_000_000):
        sent = await client.put(ENTRY, content=gzip.compress(bytes(size)), headers={"content-encoding": "gzip"})
        assert (sent.status_code, sent.json()["code"]) == (413, "too_large")


BAD = {"not": b"no gzip", "cut": gzip.compress(b"x")[:-3], "more": gzip.compress(b"x") + b"more", "none": b""}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
async def test_a_body_that_is_not_what_it_says(client: httpx2.AsyncClient, body: bytes) -> None:
    sent = await client.put(ENTRY, content=body, headers={"content-encoding": "gzip"})
    assert sent.status_code == 400
    assert "gzip" in sent.json()["detail"]


async def test_a_coding_that_nobody_knows(client: httpx2.AsyncClient) -> None:
    sent = await client.put(ENTRY, content=b"x", headers={"content-encoding": "br"})
    assert sent.status_code == 400
    assert "this server reads gzip" in sent.json()["detail"]


async def test_the_client_compresses_what_is_long(noobly: Noobly) -> None:
    seen: list[str] = []
    application = Application(noobly, DevGuard())

    async def watched(scope: dict[str, object], receive: object, send: object) -> None:
        seen.append(dict(scope.get("headers", [])).get(b"content-encoding", b"").decode())  # type: ignore[call-overload]
        await application(scope, receive, send)  # type: ignore[arg-type]

    async with serving(watched) as base, open_cache(base, gzip_above=1000) as cache:
        short, noise = b"x" * 500, os.urandom(5000)
        for value, coding in ((b"x" * 1000, "gzip"), (b"x" * 150_000, "gzip"), (short, ""), (noise, "")):
            await cache.put("k", value)
            assert seen[-1] == coding
            assert await cache.get("k") == value
