"""A real server inside the test's own event loop, so that its code is measured like any other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx2
from granian.constants import Interfaces
from granian.server.embed import Server

from noobly.app import Noobly
from noobly.core.scope import Environment
from noobly.server.app import build
from noobly.server.auth import KeyGuard, Sessions
from noobly.server.keys import Keyring, StaticKeys
from noobly.settings import Instance, Settings
from noobly.testing import free_port


def here() -> dict[str, str]:
    """Return the environment of commands that run the same code as the tests, and know nothing else of theirs."""
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}


@asynccontextmanager
async def serving(application: object) -> AsyncIterator[str]:
    """Serve an ASGI application on a free port of the loopback; yield its address."""
    port = free_port()
    server = Server(application, port=port, interface=Interfaces.ASGI, websockets=False, log_enabled=False)
    running = asyncio.create_task(server.serve())
    base = f"http://127.0.0.1:{port}"
    try:
        await _answering(base)
        yield base
    finally:
        server.stop()
        await running


@asynccontextmanager
async def served(
    service: str, url: str, key: str, *, environment: Environment | None = None, **options: object
) -> AsyncIterator[tuple[Noobly, str]]:
    """Open one instance of a service and serve it behind an API key; yield what holds it, and the address."""
    settings = Settings(services={service: {"default": Instance(url=url, options=options)}})
    guard = KeyGuard(Keyring([StaticKeys(key)]), Sessions())
    async with (
        Noobly.open(settings=settings, environment=environment) as noobly,
        serving(build(noobly, guard=guard)) as address,
    ):
        yield noobly, address


async def _answering(base: str) -> None:
    # Reading certificates, which nobody shows here, would take as long as all the rest.
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client, asyncio.timeout(10):
        while True:
            try:
                await client.get(f"{base}/health/live")
            except httpx2.TransportError:
                await asyncio.sleep(0.02)
                continue
            return


async def half_a_request(port: int, key: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Begin to put ``1234`` into a cache and stop in the middle, once the server waits for the rest."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"PUT /v1/caching/default/entry?key={key} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n"
    writer.write(f"{head}expect: 100-continue\r\n\r\n".encode())
    async with asyncio.timeout(20):
        # The server says so as soon as the application asks for the body.
        assert b"100 Continue" in await reader.readline()
        assert await reader.readline() == b"\r\n"
    writer.write(b"12")
    await writer.drain()
    return reader, writer


async def refused(port: int) -> None:
    """Wait until nobody listens on a port."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            await asyncio.sleep(0.02)
