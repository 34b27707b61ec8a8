"""Reading requests: bodies within their limit, request ids, and where a browser's request comes from."""

from __future__ import annotations

import asyncio
import zlib
from typing import TypeVar, overload

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope

from noobly.core.errors import InvalidArgument, TooLarge

_LONG = 64 * 1024
"""Bytes of a packed body from which it is unpacked in a thread, so that the event loop goes on."""
LIMIT = "noobly.body_limit"
BODY = "noobly.body"
REQUEST_ID = "noobly.request_id"

T = TypeVar("T")


class IndexedHeaders(Headers):
    """The headers of a request, looked up by name instead of one after the other.

    Args:
        scope: The request's ASGI scope.
    """

    def __init__(self, scope: Scope) -> None:
        super().__init__(raw=scope["headers"])
        # Reversed, for of a header that is given twice the first one counts, as in Starlette.
        self._values = dict(reversed(self._list))

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, default: str, /) -> str: ...
    @overload
    def get(self, key: str, default: T, /) -> str | T: ...
    def get(self, key: str, default: T | None = None, /) -> str | T | None:
        """Return a header's value."""
        value = self._values.get(key.lower().encode("latin-1"))
        return default if value is None else value.decode("latin-1")


class Incoming(Request):
    """A request whose headers are indexed."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self._indexed = IndexedHeaders(scope)

    @property
    def headers(self) -> Headers:
        """The headers."""
        return self._indexed


async def body(request: Request) -> bytes:
    """Return the request's body, read once.

    Raises:
        TooLarge: It is over the limit, as it was sent or unpacked; what is over is not read.
        InvalidArgument: Its declared length is not a number, or it is not packed as it says.
    """
    scope = request.scope
    found: bytes | None = scope.get(BODY)
    if found is not None:
        return found
    limit: int = scope[LIMIT]
    found = await _sent(request.receive, _declared(request, limit), limit)
    coding = request.headers.get("content-encoding")
    if coding is not None:
        found = await _unpacked(found, coding, limit)
    scope[BODY] = found
    return found


def _declared(request: Request, limit: int) -> int | None:
    """Return how many bytes a request says it has, None where it does not say."""
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument("content-length is not a number")
    if int(text) > limit:
        raise TooLarge(f"the body has {text} bytes; the limit is {limit}")
    return int(text)


async def _sent(receive: Receive, declared: int | None, limit: int) -> bytes:
    """Return the body as it was sent.

    A declared length is the message's end (RFC 9112, 6.3), so that nothing is asked for after it: granian tells the end
    in a message of its own, and each costs three changes of thread.
    """
    parts: list[bytes] = []
    size, more = 0, declared != 0
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise TooLarge(f"the body has over {limit} bytes, which is the limit")
        parts.append(part)
        more = message.get("more_body", False) and size != declared
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _unpacked(sent: bytes, encoding: str, limit: int) -> bytes:
    """Return a body without its content coding (RFC 9110, 8.4.1): gzip, or none."""
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return sent
    if coding not in ("gzip", "x-gzip"):
        raise InvalidArgument(f"the body is sent as {encoding!r}; this server reads gzip, or none")
    if len(sent) < _LONG:
        return _gunzip(sent, limit)
    return await asyncio.to_thread(_gunzip, sent, limit)


def _gunzip(sent: bytes, limit: int) -> bytes:
    unpacking = zlib.decompressobj(wbits=31)
    try:
        found = unpacking.decompress(sent, limit + 1)
    except zlib.error as error:
        raise InvalidArgument(f"the body is not gzip: {error}") from error
    if len(found) > limit:
        raise TooLarge(f"the body has over {limit} bytes when it is unpacked, which is the limit")
    if not unpacking.eof or unpacking.unused_data:
        raise InvalidArgument("the body is not one whole gzip stream")
    return found


def same_origin(request: Request) -> bool:
    """Return whether a request comes from one of the server's own pages, or not from a browser's page at all.

    Browsers say so in ``Sec-Fetch-Site`` (Fetch Metadata) and, older ones, in ``Origin``.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2] == request.headers.get("host", "")
