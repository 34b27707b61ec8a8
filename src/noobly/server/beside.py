"""``/metrics`` and ``/health/live`` of a program that serves nothing else, such as a worker, in its own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from granian.constants import Interfaces
from granian.server.embed import Server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from noobly.core.meter import Meter
from noobly.server.health import live
from noobly.server.metrics import metrics
from noobly.server.routes import Endpoint
from noobly.server.serve import Stoppable, hold

_LAST = 1.0
"""Seconds that an answer under way has at the end."""


@asynccontextmanager
async def beside(meter: Meter, host: str, port: int) -> AsyncIterator[str]:
    """Answer to everybody who reaches the address while the body runs; yields the address, as a URL.

    Args:
        meter: The metrics.
        host: The address to listen on.
        port: The port; 0 for any that is free.

    Raises:
        Unavailable: The address is in use, or is not this machine's.
    """
    routes = [_route(one) for one in (*metrics(meter), live())]
    with hold(host, port) as held:
        port = held.getsockname()[1]
        server = Server(
            Starlette(routes=routes),
            address=host,
            port=port,
            interface=Interfaces.ASGINL,
            websockets=False,
            log_enabled=False,
        )
        serving = asyncio.create_task(server.serve(), name="metrics")
        try:
            yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        finally:
            if not serving.done():
                cast(Stoppable, server).stop()
            await asyncio.wait([serving], timeout=_LAST)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def _route(endpoint: Endpoint) -> Route:
    async def answer(request: Request) -> Response:
        return await endpoint.handler(request, ())

    return Route(endpoint.path, answer)
