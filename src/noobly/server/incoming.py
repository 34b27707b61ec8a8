"""Reading requests: bodies within their limit, request ids, and where a browser's request comes from."""

from __future__ import annotations

import asyncio
import zlib

from starlette.requests import Request

from noobly.core.errors import InvalidArgument, TooLarge

_LONG = 64 * 1024
"""Bytes of a packed body from which it is unpacked in a thread, so that the event loop goes on."""
LIMIT = "noobly.body_limit"
BODY = "noobly.body"
REQUEST_ID = "noobly.request_id"


async def body(request: Request) -> bytes:
    """Return the request's body, read once.

    Raises:
        TooLarge: It is over the limit, as it was sent or unpacked; what is over is not read.
        InvalidArgument: Its declared length is not a number, or it is not packed as it says.
    """
    if BODY in request.scope:
        read: bytes = request.scope[BODY]
        return read
    limit: int = request.scope[LIMIT]
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit():
        raise InvalidArgument("content-length is not a number")
    if int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes; the limit is {limit}")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLarge(f"the body has over {limit} bytes, which is the limit")
        parts.append(part)
    request.scope[BODY] = found = await _unpacked(b"".join(parts), request.headers.get("content-encoding", ""), limit)
    return found


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
