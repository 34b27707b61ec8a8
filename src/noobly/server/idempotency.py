"""``Idempotency-Key``: a POST that is sent twice with the same key takes effect once (IETF draft of that name).

Answers are kept in the application's default cache. Errors are not, so that the caller may try again. Of an answer that
is too long to keep, it is kept that it was given: its request is refused when it comes again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from noobly.caching import Cache
from noobly.core.errors import Conflict, InvalidArgument, NooblyError, TooLarge
from noobly.core.journal import Journal
from noobly.server.incoming import body

if TYPE_CHECKING:
    from noobly.server.routes import Handler

KEPT_BYTES = 1024 * 1024
"""The longest answer that is kept."""

_LONGEST = 255
_PENDING_SECONDS = 60.0
"""After so long a request counts as never made, whose server was killed meanwhile."""
_RENEWED_SECONDS = 20.0

_LOG = Journal("noobly.server")


class _Kept(msgspec.Struct, frozen=True):
    """A request's fingerprint, and its answer once there is one, unless that was not kept."""

    fingerprint: str
    status: int = 0
    whole: bool = True
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

    def guard(self, handler: Handler, longest: int = KEPT_BYTES) -> Handler:
        """Return a handler that answers a repeated key with the first answer.

        Args:
            handler: What answers the first time.
            longest: Bytes of an answer that is kept, at most; 0 where it is good for once only.
        """

        async def answer(request: Request, texts: tuple[str, ...]) -> Response:
            key = request.headers.get("idempotency-key")
            if key is None:
                return await handler(request, texts)
            place, fingerprint = await _place(key, request)
            if not await self._cache.add(place, _Kept(fingerprint), ttl=_PENDING_SECONDS):
                return await self._replay(place, fingerprint)
            response = await self._first(place, handler(request, texts))
            await self._keep(place, _kept(fingerprint, response, longest))
            return response

        return answer

    async def _first(self, place: str, call: Awaitable[Response]) -> Response:
        try:
            async with self._renewed(place):
                return await call
        except BaseException:
            await self._cache.delete(place)
            raise

    @asynccontextmanager
    async def _renewed(self, place: str) -> AsyncIterator[None]:
        """Let others know that a request is under way, however long it takes."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(_RENEWED_SECONDS)
                with suppress(NooblyError):
                    await self._cache.touch(place, _PENDING_SECONDS)

        renewing = asyncio.create_task(renew(), name="renew an Idempotency-Key")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _keep(self, place: str, kept: _Kept) -> None:
        """Keep an answer; whatever happens here, the request has taken effect and is answered."""
        try:
            try:
                await self._cache.put(place, kept, ttl=self._seconds)
            except TooLarge:
                await self._cache.put(place, _Kept(kept.fingerprint, kept.status, whole=False), ttl=self._seconds)
        except NooblyError as error:
            _LOG.warning("the answer to an Idempotency-Key was not kept", cause=error)

    async def _replay(self, place: str, fingerprint: str) -> Response:
        kept = await self._cache.get(place, type=_Kept)
        if kept is None or not kept.status:
            raise Conflict("a request with this Idempotency-Key is still under way; try again later", retry_after=1)
        if kept.fingerprint != fingerprint:
            raise InvalidArgument("this Idempotency-Key was used with another request")
        if not kept.whole:
            raise Conflict("the request with this Idempotency-Key has taken effect, and its answer was not kept")
        response = Response(kept.body, kept.status, media_type=kept.media_type or None)
        response.headers["idempotency-replayed"] = "true"
        return response


def _kept(fingerprint: str, response: Response, longest: int) -> _Kept:
    body = bytes(response.body)
    if len(body) > longest:
        return _Kept(fingerprint, response.status_code, whole=False)
    return _Kept(fingerprint, response.status_code, media_type=response.media_type or "", body=body)


async def _place(key: str, request: Request) -> tuple[str, str]:
    if not 0 < len(key) <= _LONGEST:
        raise InvalidArgument(f"Idempotency-Key must have 1 to {_LONGEST} characters, not {len(key)}")
    caller = request.scope.get("noobly.principal", "")
    fingerprint = hashlib.sha256(request.scope["query_string"] + b"\0" + await body(request)).hexdigest()
    subject = f"{caller}\0{request.url.path}\0{key}".encode()
    return f"noobly-idempotency:{hashlib.sha256(subject).hexdigest()}", fingerprint
