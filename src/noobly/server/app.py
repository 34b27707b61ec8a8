"""The ASGI application: one table of endpoints, and for each request the same way in and out."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from noobly.app import Noobly
from noobly.core.errors import Internal, InvalidArgument, NooblyError, NotFound
from noobly.core.journal import journal
from noobly.server.auth import Guard, KeyGuard, Sessions, keyring
from noobly.server.correlation import Correlated
from noobly.server.health import Health
from noobly.server.idempotency import Idempotency
from noobly.server.incoming import LIMIT, REQUEST_ID
from noobly.server.legacy import legacy
from noobly.server.metrics import metrics
from noobly.server.native import native
from noobly.server.pages import pages
from noobly.server.problems import problem
from noobly.server.routes import ADMIT, Endpoint, Match, Table
from noobly.server.streaming import Streams

_LOG = journal("noobly.server")


class Application:
    """Answers requests from the endpoints of an open ``Noobly``.

    Args:
        noobly: The application; it must stay open as long as requests come.
        guard: Who may come in.
        extra: Further endpoints.
    """

    def __init__(self, noobly: Noobly, guard: Guard, extra: Iterable[Endpoint] = ()) -> None:
        server = noobly.settings.server
        self.health = Health(noobly)
        self.streams = Streams(
            noobly.environment.clock, heartbeat=server.stream_heartbeat, buffered=server.stream_buffer
        )
        idempotency = Idempotency(noobly.caching, server.idempotency_ttl)
        endpoints = [
            *native(noobly, idempotency, self.streams),
            *legacy(noobly),
            *self.health.endpoints(),
            *metrics(noobly.environment.meter),
            *extra,
        ]
        self.table = Table([*endpoints, *pages(endpoints, noobly)])
        self._guard = guard
        self._meter = noobly.environment.meter
        self._body_limit = server.max_body_bytes
        self._tracer = trace.get_tracer("noobly")
        self._correlated = Correlated(self._http, debug_ring=noobly.logging.options.debug_ring)
        self._tracing = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)

    def drain(self) -> None:
        """Say that the server is ending: readiness fails from now on, and streams end."""
        self.health.draining = True
        self.streams.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event, as ASGI 3 asks."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._correlated(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = perf_counter()
        request = Request(scope, receive)
        identity: str = scope[REQUEST_ID]
        name, response = await self._respond(request, identity)
        response.headers["x-content-type-options"] = "nosniff"
        if scope["method"] == "HEAD":
            response.body = b""
        await response(scope, receive, send)
        self._meter.cell("server", "http", "asgi", name, str(response.status_code)).add(perf_counter() - began)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self.drain()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _respond(self, request: Request, identity: str) -> tuple[str, Response]:
        try:
            match = self.table.find(request.method, _path(request.scope))
        except InvalidArgument as error:
            return "none", problem(error, identity)
        if not isinstance(match, Match):
            return "none", _no_route(request.method, match, identity)
        endpoint = match.endpoint
        try:
            return endpoint.name, await self._answer(request, match)
        except NooblyError as error:
            return endpoint.name, endpoint.render(error, identity)
        except Exception:  # noqa: BLE001 - the last resort: it is logged, and shows nothing of itself
            _LOG.exception("request failed", route=endpoint.name)
            failure = Internal("the server failed; its log says more under this request id")
            return endpoint.name, endpoint.render(failure, identity)

    async def _answer(self, request: Request, match: Match) -> Response:
        self._guard.admit(request, match.endpoint.access)
        request.scope[LIMIT] = match.endpoint.body_limit or self._body_limit
        request.scope[ADMIT] = self._guard.admit
        if not self._tracing:
            return await match.endpoint.handler(request, match.texts)
        with self._tracer.start_as_current_span(match.endpoint.name, kind=SpanKind.SERVER):
            return await match.endpoint.handler(request, match.texts)


def _path(scope: Scope) -> str:
    """Return the path below the mount point, still percent-encoded; without a raw path, encoded slashes are lost."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.partition(b"?")[0].decode("latin-1")
    return path.removeprefix(scope.get("root_path", "")) or "/"


def _no_route(method: str, allowed: frozenset[str], identity: str) -> Response:
    if not allowed:
        return problem(NotFound("there is no such route; /openapi.json lists them"), identity)
    if method == "OPTIONS":
        return Response(status_code=204, headers={"allow": ", ".join(sorted(allowed))})
    refused = InvalidArgument(f"this path takes {', '.join(sorted(allowed))}, not {method}")
    response = problem(refused, identity, status=405)
    response.headers["allow"] = ", ".join(sorted(allowed))
    return response


def build(noobly: Noobly, *, guard: Guard | None = None) -> ASGIApp:
    """Return the ASGI application of an open ``Noobly``, to be served or mounted.

    Args:
        noobly: The application; it must stay open as long as requests come.
        guard: Who may come in; by default callers with an API key, as on the stand-alone server.
    """
    return Application(noobly, guard or KeyGuard(keyring(noobly.settings), Sessions()))
