"""The servers that ``http.py`` compares, each a program: ``_http_app.py KIND SERVER PORT``.

``bare`` is the least that Starlette answers a cache's get and put with: a dictionary of parsed JSON behind two routes.
``noobly`` is the application that ``noobly serve`` runs, with an API key or with ``--dev``. Both run on the same server
and event loop, in a process prepared as ``noobly serve`` prepares its own.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import msgspec
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from noobly.app import Noobly
from noobly.server.app import Application
from noobly.server.auth import DevGuard, Guard, KeyGuard, Sessions
from noobly.server.keys import Keyring, StaticKeys
from noobly.server.process import dedicate
from noobly.settings import Settings

BASE = "/services/caching/api"


def bare() -> ASGIApp:
    values: dict[str, object] = {}

    async def get(request: Request) -> Response:
        value = values.get(request.path_params["key"])
        return Response(msgspec.json.encode(value), media_type="application/json")

    async def put(request: Request) -> Response:
        values[request.path_params["key"]] = msgspec.json.decode(await request.body())
        return Response("OK", media_type="text/html")

    return Starlette(
        routes=[
            Route(f"{BASE}/get/{{key}}", get, methods=["GET"]),
            Route(f"{BASE}/put/{{key}}", put, methods=["POST"]),
        ]
    )


async def serve(kind: str, server: str, port: int) -> None:
    if kind == "bare":
        await listen(bare(), server, port)
        return
    guard: Guard = DevGuard()
    if kind == "key":
        guard = KeyGuard(Keyring([StaticKeys.from_environment()]), Sessions())
    async with Noobly.open(settings=Settings()) as noobly:
        await listen(Application(noobly, guard), server, port)


async def listen(app: ASGIApp, server: str, port: int) -> None:
    if server == "uvicorn":
        from uvicorn import Config, Server

        await Server(Config(app, port=port, log_level="warning", access_log=False, lifespan="off")).serve()
        return
    from granian.constants import Interfaces
    from granian.server.embed import Server as Granian

    granian = Granian(app, port=port, interface=Interfaces.ASGI, websockets=False, log_enabled=False)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, granian.stop)
    await granian.serve()


if __name__ == "__main__":
    _, chosen, on, at, loop = sys.argv
    dedicate()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(serve(chosen, on, int(at)))
