"""The ASGI application: one table of endpoints, and for each request the same way in and out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import perf_counter

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from noobly.app import Noobly
from noobly.core.errors import Internal, InvalidArgument, NooblyError, NoRoute
from noobly.core.journal import Journal
from noobly.server.attending import Attendance, ending
from noobly.server.auth import Guard, KeyGuard, Sessions, keyring
from noobly.server.correlation import Correlated
from noobly.server.health import Health
from noobly.server.idempotency import Idempotency
from noobly.server.incoming import LIMIT, REQUEST_ID, Incoming
from noobly.server.legacy import PREFIX, legacy
from noobly.server.metrics import metrics
from noobly.server.native import native
from noobly.server.pages import pages
from noobly.server.problems import problem
from noobly.server.routes import ADMIT, Access, Endpoint, Match, Table
from noobly.server.streaming import Streams

_LOG = Journal("noobly.server")
_CLIENT_LEFT = 499
"""What is counted for a request whose client has left; the status that nginx has for it."""

_CUT_SECONDS = 3.0
"""How long requests that are cut off may take to put things in order."""

_NOSNIFF = (b"x-content-type-options", b"nosniff")


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
        self.attendance = Attendance(max(1, server.connections // 2))
        idempotency = Idempotency(noobly.caching, server.idempotency_ttl)
        endpoints = [
            *native(noobly, idempotency, self.streams, self.attendance),
            *legacy(noobly),
            *self.health.endpoints(),
            *metrics(noobly.environment.meter),
            *extra,
        ]
        self.table = Table([*endpoints, *pages(endpoints, noobly)])
        self._instances = {service: frozenset(one.siblings) for service, one in noobly.services.items()}
        self._guard = guard
        self._meter = noobly.environment.meter
        self._body_limit = server.max_body_bytes
        self._tracer = trace.get_tracer("noobly")
        self._correlated = Correlated(self._http, debug_ring=noobly.logging.options.debug_ring)
        self._under_way: set[asyncio.Task[object] | None] = set()
        self._ended = False
        self._tracing = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)

    def drain(self) -> None:
        """Say that the server is ending: readiness fails from now on, and what waits or streams ends soon."""
        self.health.draining = True
        self.streams.drain()
        self.attendance.drain()

    async def end(self) -> None:
        """Cut off the requests that are still under way, and wait for their end, so that stores may be closed."""
        self._ended = True
        under_way = {task for task in self._under_way if task is not None}
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way, timeout=_CUT_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event, as ASGI 3 asks."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            task = asyncio.current_task()
            self._under_way.add(task)
            try:
                await self._correlated(scope, receive, send)
            finally:
                self._under_way.discard(task)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = perf_counter()
        request = Incoming(scope, receive)
        found = self._find(request)
        name = found.endpoint.name if isinstance(found, Match) else "none"
        if not self._tracing:
            await self._exchange(began, name, request, found, send)
            return
        with self._tracer.start_as_current_span(name, kind=SpanKind.SERVER):
            await self._exchange(began, name, request, found, send)

    async def _exchange(self, began: float, name: str, request: Request, found: Match | Response, send: Send) -> None:
        """Answer, and count how long that took; within the request's span, whose trace is kept as an exemplar."""
        response = await self._respond(request, found) if isinstance(found, Match) else found
        response.raw_headers.append(_NOSNIFF)
        if request.method == "HEAD":
            response.body = b""
        await response(request.scope, request.receive, send)
        self._meter.cell("server", "http", "asgi", name, str(response.status_code)).add(perf_counter() - began)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self.drain()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    def _find(self, request: Request) -> Match | Response:
        identity: str = request.scope[REQUEST_ID]
        try:
            path = _path(request.scope)
            found = self.table.find(request.method, path)
        except InvalidArgument as error:
            return problem(error, identity)
        if isinstance(found, Match):
            return found
        if not found:
            return problem(NoRoute(self._missing(request, path)), identity)
        return _wrong_method(request.method, found, identity, legacy_path=path.lower().startswith(PREFIX))

    def _missing(self, request: Request, path: str) -> str:
        """Say what is missing, and what there is instead as far as the caller may know it."""
        service, _, instance = path.removeprefix("/v1/").partition("/")
        known = self._instances.get(service, frozenset())
        name = instance.partition("/")[0]
        if not path.startswith("/v1/") or not known or not name or name in known:
            return "there is no such route; /openapi.json lists them"
        missing = f"the server has no {service} instance {name!r:.100}"
        try:
            self._guard.admit(request, Access(service, "read"))
        except NooblyError:
            return missing
        return f"{missing}; configured are {', '.join(sorted(known))}"

    async def _respond(self, request: Request, match: Match) -> Response:
        endpoint, scope = match.endpoint, request.scope
        try:
            self._guard.admit(request, endpoint.access)
            scope[LIMIT] = endpoint.body_limit or self._body_limit
            scope[ADMIT] = self._guard.admit
            return await endpoint.handler(request, match.texts)
        except NooblyError as error:
            _note(error, error.status)
            return endpoint.render(error, scope[REQUEST_ID])
        except asyncio.CancelledError:
            if not self._ended:
                raise
            return endpoint.render(ending(), scope[REQUEST_ID])
        except ClientDisconnect:  # Nobody is left to answer, and nothing has failed.
            return Response(status_code=_CLIENT_LEFT)
        except Exception as error:  # noqa: BLE001 - the last resort: it is logged, and shows nothing of itself
            _LOG.error("request failed", cause=error, route=endpoint.name)
            failure = Internal("the server failed; its log says more under this request id")
            _note(error, failure.status)
            return endpoint.render(failure, scope[REQUEST_ID])


def _note(error: Exception, status: int) -> None:
    """Put a failure on the request's span; what the caller did wrong does not make the span itself a failed one."""
    span = trace.get_current_span()
    if span.is_recording():
        span.record_exception(error)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR, str(error)))


def _path(scope: Scope) -> str:
    """Return the path below the mount point, still percent-encoded; without a raw path, encoded slashes are lost."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.partition(b"?")[0].decode("latin-1")
    return path.removeprefix(scope.get("root_path", "")) or "/"


def _wrong_method(method: str, allowed: frozenset[str], identity: str, *, legacy_path: bool) -> Response:
    """Refuse what a path does not take; the original answers 404 then, too."""
    methods = ", ".join(sorted(allowed | {"HEAD"} if "GET" in allowed else allowed))
    if method == "OPTIONS":
        return Response(status_code=204, headers={"allow": methods})
    refused = InvalidArgument(f"this path takes {methods}, not {method}")
    response = problem(refused, identity, status=404 if legacy_path else 405)
    response.headers["allow"] = methods
    return response


def build(noobly: Noobly, *, guard: Guard | None = None) -> ASGIApp:
    """Return the ASGI application of an open ``Noobly``, to be served or mounted.

    Args:
        noobly: The application; it must stay open as long as requests come.
        guard: Who may come in; by default callers with an API key, as on the stand-alone server.
    """
    return Application(noobly, guard or KeyGuard(keyring(noobly.settings), Sessions()))
