"""Calling a Noobly server: the caller behind every service's ``remote`` provider."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, ClassVar, NamedTuple

import httpx2
import msgspec
from opentelemetry import propagate

from noobly.clients.sse import Parser, ServerEvent, events
from noobly.core.config import Config, Secret
from noobly.core.correlation import HEADER, correlation_id
from noobly.core.errors import ConfigError, Internal, NooblyError, Unavailable, by_code
from noobly.core.journal import INSIDE
from noobly.core.public import Route
from noobly.core.remote import REMOTE_LIMITS
from noobly.core.scope import Environment
from noobly.core.streams import Skipped
from noobly.core.wire import STREAM, Outgoing

_LONG = 64 * 1024
"""Bytes of a body from which it is compressed in a thread, so that the event loop goes on."""
_SILENCE = 60.0
"""Seconds after which a stream that says nothing counts as broken; servers speak every 30 seconds at least."""


class HttpConfig(Config, frozen=True, kw_only=True):
    """The options of the remote provider.

    Args:
        scheme: ``http`` or ``https``; ``remote`` and ``api`` stand for ``http``.
        host: The server.
        port: Its port; 11000, or 443 for https.
        path: Where the server is mounted below its host.
        at: The name of the instance on the server.
        key: The API key, by reference.
        connect_timeout: Seconds to wait for a connection.
        connections: Connections kept open at most.
        gzip_above: Bytes from which a body is sent compressed; None for never.
    """

    url_parts: ClassVar[Mapping[str, str]] = {"scheme": "scheme", "host": "host", "port": "port", "path": "path"}

    scheme: str = "http"
    host: str = "localhost"
    port: int | None = None
    path: str = ""
    at: str = "default"
    key: Secret | None = None
    connect_timeout: float = 5.0
    connections: int = 100
    gzip_above: int | None = 64 * 1024


class Problem(msgspec.Struct, frozen=True):
    """The parts of a problem document (RFC 9457) that become an error again."""

    code: str = "internal"
    detail: str = ""
    operation: str = ""


class _Described(msgspec.Struct, frozen=True):
    capabilities: list[str] = []


class Received(NamedTuple):
    """A good answer."""

    content: bytes
    content_type: str


class _Client(httpx2.AsyncClient):
    """A client whose requests are the suite's own business."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        inside = INSIDE.set(True)
        try:
            return await super().send(request, **options)
        finally:
            INSIDE.reset(inside)


class HttpCaller:
    """Calls one instance on one server over kept-open connections."""

    Config = HttpConfig
    scheme = "remote"
    in_process = False
    limits = REMOTE_LIMITS

    def __init__(self, config: HttpConfig, environment: Environment) -> None:
        self._config = config
        self._tls = tls = config.scheme == "https"
        port = config.port or (443 if tls else 11000)
        base = f"{'https' if tls else 'http'}://{config.host}:{port}"
        self._base = f"{base}/{config.path.strip('/')}".rstrip("/")
        self._client: httpx2.AsyncClient | None = None

    async def start(self, stack: AsyncExitStack) -> None:
        """Open the client; the first call connects."""
        headers = {"user-agent": "noobly"}
        if self._config.key is not None:
            headers["x-api-key"] = self._config.key.reveal()
        # Time limits of whole calls belong to the deadline layer; here only connecting has one.
        timeout = httpx2.Timeout(None, connect=self._config.connect_timeout)
        limits = httpx2.Limits(
            max_connections=self._config.connections, max_keepalive_connections=self._config.connections
        )
        client = _Client(
            base_url=self._base,
            headers=headers,
            timeout=timeout,
            limits=limits,
            verify=self._tls,  # Certificates that nobody shows need not be read, which takes 20 ms.
            trust_env=False,
        )
        self._client = await stack.enter_async_context(client)

    async def capabilities(self, service: str) -> frozenset[str]:
        """Ask the server what its instance can do; see ``Caller``."""
        try:
            response = await self._started().get(f"/v1/{service}/{self._config.at}")
        except httpx2.TransportError as error:
            raise self.classify(error) or error from error
        if not response.is_success:
            raise _error(response.status_code, response.content, response.headers.get("retry-after"))
        return frozenset(msgspec.json.decode(response.content, type=_Described).capabilities)

    async def call(self, service: str, route: Route, call: Outgoing, accept: str) -> Received:
        """Send one call; see ``Caller``."""
        client = self._started()
        response = await client.send(await self._request(client, service, route, call, accept))
        content = response.content
        if response.is_success:
            return Received(content, response.headers.get("content-type", ""))
        raise _error(response.status_code, content, response.headers.get("retry-after"))

    async def follow(self, service: str, route: Route, call: Outgoing) -> EventSource:
        """Begin a stream; see ``Caller``."""
        client = self._started()
        request = await self._request(client, service, route, call, STREAM)
        # The server is heard of at least every 30 seconds, or it is gone.
        request.extensions["timeout"] = {**request.extensions["timeout"], "read": _SILENCE}
        response = await client.send(request, stream=True)
        if response.is_success:
            return EventSource(response, self)
        try:
            content = await response.aread()
        finally:
            await response.aclose()
        raise _error(response.status_code, content, response.headers.get("retry-after"))

    def _started(self) -> httpx2.AsyncClient:
        if self._client is None:
            raise ConfigError("the remote provider was not started")
        return self._client

    async def _request(
        self, client: httpx2.AsyncClient, service: str, route: Route, call: Outgoing, accept: str
    ) -> httpx2.Request:
        url = f"/v1/{service}/{self._config.at}/{route.path}"
        headers = {"accept": accept}
        if call.content_type:
            headers["content-type"] = call.content_type
        propagate.inject(headers)
        if identity := correlation_id():
            headers[HEADER] = identity
        body = await self._packed(call.body, headers)
        return client.build_request(
            route.verb, f"{url}?{call.query}" if call.query else url, content=body, headers=headers
        )

    async def _packed(self, body: bytes | None, headers: dict[str, str]) -> bytes | None:
        above = self._config.gzip_above
        if body is None or above is None or len(body) <= above:
            return body
        packed = await asyncio.to_thread(_gzip, body) if len(body) > _LONG else _gzip(body)
        if len(packed) >= len(body):
            return body
        headers["content-encoding"] = "gzip"
        return packed

    def classify(self, error: Exception) -> NooblyError | None:
        """Map what httpx raises."""
        if isinstance(error, httpx2.TransportError):
            return Unavailable(f"the server {self._base} cannot be reached: {type(error).__name__}: {error}")
        if isinstance(error, httpx2.InvalidURL):
            return ConfigError(f"the server's address {self._base} is wrong: {error}")
        return None


class EventSource:
    """A stream of server-sent events that was begun; see ``Source``."""

    def __init__(self, response: httpx2.Response, caller: HttpCaller) -> None:
        self._response = response
        self._caller = caller

    async def __aiter__(self) -> AsyncIterator[bytes | Skipped]:
        """Yield items and notices until the server says that there are no more."""
        parser = Parser()
        try:
            async with aclosing(events(self._response.aiter_bytes(), parser)) as found:
                async for event in found:
                    if event.name == "end":
                        return
                    yield _item(event)
        except httpx2.HTTPError as error:
            raise self._caller.classify(error) or Unavailable(f"the stream broke off: {error}") from error
        retry = None if parser.retry is None else parser.retry / 1000
        raise Unavailable("the server ended the stream; follow it again", retry_after=retry)

    async def aclose(self) -> None:
        """Stop reading and give the connection back."""
        await self._response.aclose()


def _item(event: ServerEvent) -> bytes | Skipped:
    if event.name == "skipped":
        return msgspec.json.decode(event.data, type=Skipped)
    if event.name != "error":
        return event.data
    raise _error(500, event.data, None if event.retry is None else str(event.retry // 1000))


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)


def _error(status: int, body: bytes, retry_after: str | None) -> NooblyError:
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except (msgspec.DecodeError, msgspec.ValidationError):
        kind = Unavailable if status in (502, 503, 504) else Internal
        return kind(f"the server answered {status} without a problem document")
    error = by_code(problem.code)(problem.detail)
    error.provider = "remote"
    if retry_after is not None and retry_after.isdigit():
        error.retry_after = float(retry_after)
    return error
