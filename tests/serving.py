"""A real server inside the test's own event loop, so that its code is measured like any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from granian.constants import Interfaces
from granian.server.embed import Server

from noobly.testing import free_port


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


async def _answering(base: str) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client, asyncio.timeout(10):
        while True:
            try:
                await client.get(f"{base}/health/live")
            except httpx2.TransportError:
                await asyncio.sleep(0.02)
                continue
            return
