"""``noobly serve``: the application under granian, until SIGTERM has drained it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol, cast

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from noobly.app import Noobly
from noobly.core.errors import ConfigError, Unavailable
from noobly.core.journal import Journal
from noobly.core.scope import Environment
from noobly.measuring.push import Push, push
from noobly.server.app import Application
from noobly.server.auth import DevGuard, Guard, KeyGuard, Sessions, keyring
from noobly.server.process import dedicate, places
from noobly.server.routes import Endpoint, Open
from noobly.settings import Settings

_LOG = Journal("noobly.server")
_LAST_SECONDS = 1.0
"""How long the answers to requests that were cut off may take to leave."""
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Stoppable(Protocol):
    """The part of granian's server that it has no types for."""

    def stop(self) -> None:
        """Take no more connections, and finish the requests under way."""
        ...


class Door(NamedTuple):
    """Who may come in, the endpoints that this takes, and what to tell the operator."""

    guard: Guard
    extra: Iterable[Endpoint]
    words: str


def run(settings: Settings, *, dev: bool) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests under way; in this process alone.

    Args:
        settings: What to serve and where.
        dev: No authentication, on loopback only.

    Raises:
        ConfigError: The server would be open to others without a key.
        Unavailable: The address cannot be listened on.
    """
    held, settings = claim(settings)
    dedicate()
    with held, asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(settings, door(settings, dev=dev)))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the loop of uvloop where its extra is installed: requests take it about a quarter less time."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def claim(settings: Settings) -> tuple[socket.socket, Settings]:
    """Return a socket that keeps the port for this program, and the settings with the port it is; see ``hold``."""
    held = hold(settings.server.host, settings.server.port)
    number = held.getsockname()[1]
    return held, settings if number == settings.server.port else settings.with_server(port=number)


def hold(host: str, port: int) -> socket.socket:
    """Return a socket that keeps a port for this program.

    Servers share ports (SO_REUSEPORT), so that without this a second one would take half of the first one's requests.

    Raises:
        Unavailable: The address is in use, or is not this machine's.
    """
    held: socket.socket | None = None
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(where)
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(where)
    except OSError as error:
        if held is not None:
            held.close()
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return held


async def serve(
    settings: Settings,
    door: Door,
    *,
    environment: Environment | None = None,
    stopping: asyncio.Event | None = None,
) -> None:
    """Serve until a signal, or until ``stopping`` is set; then finish the requests under way.

    Args:
        settings: What to serve and where.
        door: Who may come in.
        environment: Clock, events and metrics; made anew by default.
        stopping: What ends it besides SIGTERM and SIGINT.
    """
    guard, extra, words = door
    settings = settings.with_server(connections=places(settings.server.connections))
    async with Noobly.open(settings=settings, environment=environment) as noobly, _pushed(noobly):
        application = Application(noobly, guard, extra)
        server = _granian(application, settings)
        sys.stdout.write(words)
        sys.stdout.flush()
        await _until_stopped(server, application, settings.server.shutdown_grace, stopping or asyncio.Event())


def _granian(application: Application, settings: Settings) -> Server:
    """Return granian with places for all connections; by itself it has 128, which idle ones take too.

    It speaks HTTP/1.1 alone, for of a connection that says nothing it could not tell yet whether it is one of HTTP/2,
    and would keep it for ever.
    """
    server = settings.server
    return Server(
        application,
        address=server.host,
        port=server.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=server.connections,
        backpressure=server.connections,
        http1_settings=HTTP1Settings(header_read_timeout=round(server.idle_timeout * 1000)),
        log_enabled=False,
    )


@asynccontextmanager
async def _pushed(noobly: Noobly) -> AsyncIterator[None]:
    server, meter = noobly.settings.server, noobly.environment.meter
    if not server.otlp_url:
        yield
        return
    resource = {"service.name": "noobly", "service.instance.id": f"{socket.gethostname()}:{os.getpid()}"}
    async with push(meter, Push(url=server.otlp_url, interval=server.otlp_interval, resource=resource)):
        yield


async def _until_stopped(server: Server, application: Application, grace: float, stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    serving = asyncio.create_task(server.serve())
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    application.drain()
    if not serving.done():
        cast(Stoppable, server).stop()
    waiting.cancel()
    done, _ = await asyncio.wait({serving}, timeout=grace)
    if not done:
        _LOG.warning("requests were cut off", grace=grace)
        await application.end()
        await asyncio.wait({serving}, timeout=_LAST_SECONDS)
    serving.cancel()
    await asyncio.gather(serving, waiting, return_exceptions=True)


def door(settings: Settings, *, dev: bool) -> Door:
    """Return who may come in.

    Raises:
        ConfigError: The server would be open to others without a key.
    """
    server = settings.server
    local = server.host in _LOOPBACK
    host = f"[{server.host}]" if ":" in server.host else server.host
    base = f"http://{host}:{server.port}"
    if dev:
        if not local:
            raise ConfigError(f"--dev switches authentication off, so it serves only loopback, not {server.host}")
        return Door(DevGuard(), (), f"Noobly serves {base}/ without authentication (--dev), on this machine only.\n")
    keys, sessions = keyring(settings), Sessions()
    if not keys.empty():
        return Door(KeyGuard(keys, sessions), (), f"Noobly serves {base}/ to holders of an API key.\n")
    if not local:
        raise ConfigError(
            f"{server.host} is reachable by others, and there is no API key; create one with `noobly keys create` "
            "or set NOOBLY_API_KEYS"
        )
    enter = Endpoint(method="GET", path="/enter", access=Open.EVERYBODY, handler=sessions.enter, name="enter")
    link = f"{base}/enter?ticket={sessions.ticket}"
    words = f"Noobly serves {base}/ on this machine only, for it has no API keys.\nOpen once: {link}\n"
    return Door(KeyGuard(keys, sessions), (enter,), words)
