"""``/health/live`` and ``/health/ready``: is the process there, and can it serve."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from noobly.app import Noobly
from noobly.layers.health import Health as Report
from noobly.layers.health import State
from noobly.server.routes import Access, Endpoint, Open

CACHED_SECONDS = 1.0


def live() -> Endpoint:
    """Return the endpoint that answers as long as the process lives."""
    return Endpoint(method="GET", path="/health/live", access=Open.EVERYBODY, handler=_live, name="health.live")


async def _live(request: Request, texts: tuple[str, ...]) -> Response:
    return Response(b'{"status":"live"}', media_type="application/json")


class Health:
    """Asks all instances how they are, at most once a second, and knows when the server is draining."""

    def __init__(self, noobly: Noobly) -> None:
        self._noobly = noobly
        self._clock = noobly.environment.clock
        self._asked = -CACHED_SECONDS
        self._report: tuple[Report, ...] = ()
        self._asking = asyncio.Lock()
        self.draining = False

    async def _ask(self) -> None:
        async with self._asking:
            if self._clock.monotonic() - self._asked < CACHED_SECONDS:
                return
            self._report = await self._noobly.health()
            self._asked = self._clock.monotonic()

    def endpoints(self) -> Iterator[Endpoint]:
        """Yield live and ready for everybody, and the details for callers with ``server:read``."""
        yield live()
        yield Endpoint(
            method="GET", path="/health/ready", access=Open.EVERYBODY, handler=self._readiness, name="health.ready"
        )
        yield Endpoint(
            method="GET", path="/health", access=Access("server", "read"), handler=self._details, name="health.details"
        )

    async def _readiness(self, request: Request, texts: tuple[str, ...]) -> Response:
        if self.draining:
            return Response(b'{"status":"draining"}', 503, media_type="application/json")
        await self._ask()
        if all(report.state is not State.DOWN for report in self._report):
            return Response(b'{"status":"ready"}', media_type="application/json")
        return Response(b'{"status":"not ready"}', 503, media_type="application/json")

    async def _details(self, request: Request, texts: tuple[str, ...]) -> Response:
        await self._ask()
        return Response(msgspec.json.encode(self._report), media_type="application/json")
