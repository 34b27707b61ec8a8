"""Correlation in plain ASGI: each request gets an id and the caller's trace, for all that it logs, calls and answers.

Not a ``BaseHTTPMiddleware``: that runs the application in another task, where what is bound here would be lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

from opentelemetry import context, propagate
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from noobly.core.correlation import HEADER, Ring, accepted, correlated
from noobly.server.incoming import REQUEST_ID

_HEADER = HEADER.encode()
_STARTS = ("http.response.start", "websocket.accept")
_UNTRACED = nullcontext()
_WANTED = {name.encode(): name for name in ("traceparent", "tracestate", HEADER)}


class Correlated:
    """ASGI middleware: takes ``X-Request-ID`` and ``traceparent`` (W3C Trace Context) in, and answers with the id.

    Put around an application of one's own, it does for that one what the suite's server does for itself; requests that
    were correlated further out keep what they have.

    Args:
        app: The application.
        debug_ring: DEBUG records kept per request and logged if it fails; 0 for none.
    """

    def __init__(self, app: ASGIApp, *, debug_ring: int = 100) -> None:
        self._app = app
        self._debug_ring = debug_ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI 3 asks."""
        if scope["type"] not in ("http", "websocket") or REQUEST_ID in scope:
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        identity = scope[REQUEST_ID] = accepted(headers.get(HEADER, ""))
        ring = Ring(self._debug_ring) if self._debug_ring else None

        def answer(message: Message) -> Awaitable[None]:
            if message["type"] in _STARTS:
                message["headers"] = [*message.get("headers", ()), (_HEADER, identity.encode())]
                if ring is not None and message.get("status", 0) >= 500:
                    ring.release()
            return send(message)

        with correlated(identity, ring=ring), _traced(headers) if "traceparent" in headers else _UNTRACED:
            try:
                await self._app(scope, receive, answer)
            except Exception:
                if ring is not None:
                    ring.release()
                raise


def _headers(scope: Scope) -> Mapping[str, str]:
    """Return the headers that matter here; one that is given twice is as good as none (W3C Trace Context, 3.2.1)."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        text = _WANTED.get(name)
        if text is None:
            continue
        if text == "tracestate" and text in found:
            found[text] += f",{value.decode('latin-1')}"
        else:
            found[text] = "" if text in found else value.decode("latin-1")
    return found


@contextmanager
def _traced(headers: Mapping[str, str]) -> Iterator[None]:
    """Let the caller's trace go on in what the request does, also where this process records no spans itself."""
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)
