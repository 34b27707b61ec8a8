"""``Idempotency-Key``: a POST that is sent twice with the same key takes effect once (IETF draft of that name).

Answers are kept in the application's default cache. Errors are not, so that the caller may try again.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from noobly.caching import Cache
from noobly.core.errors import Conflict, InvalidArgument
from noobly.server.incoming import body

if TYPE_CHECKING:
    from noobly.server.routes import Handler

_LONGEST = 255
_PENDING_SECONDS = 60.0


class _Kept(msgspec.Struct, frozen=True):
    """A request's fingerprint, and its answer once there is one."""

    fingerprint: str
    status: int = 0
    media_type: str = ""
    body: bytes = b""


class Idempotency:
    """Remembers the answers of requests that carry a key.

    Args:
        cache: Where they are kept.
        seconds: How long.
    """

    def __init__(self, cache: Cache, seconds: float) -> None:
        self._cache = cache
        self._seconds = seconds

    def guard(self, handler: Handler) -> Handler:
        """Return a handler that answers a repeated key with the first answer."""

        async def answer(request: Request, texts: tuple[str, ...]) -> Response:
            key = request.headers.get("idempotency-key")
            if key is None:
                return await handler(request, texts)
            return await self._once(key, handler, request, texts)

        return answer

    async def _once(self, key: str, handler: Handler, request: Request, texts: tuple[str, ...]) -> Response:
        if not 0 < len(key) <= _LONGEST:
            raise InvalidArgument(f"Idempotency-Key must have 1 to {_LONGEST} characters, not {len(key)}")
        place, fingerprint = await _place(key, request)
        if not await self._cache.add(place, _Kept(fingerprint), ttl=_PENDING_SECONDS):
            return await self._replay(place, fingerprint)
        try:
            response = await handler(request, texts)
        except BaseException:
            await self._cache.delete(place)
            raise
        kept = _Kept(fingerprint, response.status_code, response.media_type or "", bytes(response.body))
        await self._cache.put(place, kept, ttl=self._seconds)
        return response

    async def _replay(self, place: str, fingerprint: str) -> Response:
        kept = await self._cache.get(place, type=_Kept)
        if kept is None or not kept.status:
            raise Conflict("a request with this Idempotency-Key is still under way; try again later", retry_after=1)
        if kept.fingerprint != fingerprint:
            raise InvalidArgument("this Idempotency-Key was used with another request")
        response = Response(kept.body, kept.status, media_type=kept.media_type or None)
        response.headers["idempotency-replayed"] = "true"
        return response


async def _place(key: str, request: Request) -> tuple[str, str]:
    caller = request.scope.get("noobly.principal", "")
    fingerprint = hashlib.sha256(request.scope["query_string"] + b"\0" + await body(request)).hexdigest()
    subject = f"{caller}\0{request.url.path}\0{key}".encode()
    return f"noobly-idempotency:{hashlib.sha256(subject).hexdigest()}", fingerprint
