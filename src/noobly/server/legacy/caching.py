"""The caching routes of nooblyjs-core."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from noobly.app import Noobly
from noobly.caching.events import Hit, Miss, Stored
from noobly.core.scope import Environment
from noobly.server.legacy.shapes import endpoint, iso, json, json_body, ok
from noobly.server.routes import Access, Endpoint, Open

READ, WRITE = Access("caching", "read"), Access("caching", "write")
LISTED = 100


class Used(msgspec.Struct, frozen=True, rename="camel"):
    """One row of ``list``: how often a key was put or got, and when last."""

    key: str
    hits: int
    last_hit: str = ""


class Listing(msgspec.Struct, frozen=True):
    """The answer of ``list``."""

    success: bool
    data: list[Used]
    total: int


class RecentKeys:
    """The keys used last, which is what the original lists; deleted ones stay."""

    def __init__(self, environment: Environment, instance: str) -> None:
        self._keys: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._now = environment.clock.time
        where = {"service": "caching", "instance": instance}
        environment.bus.subscribe(Hit, self._use, **where)
        environment.bus.subscribe(Miss, self._use, **where)
        environment.bus.subscribe(Stored, self._use, **where)

    def _use(self, event: Hit | Miss | Stored) -> None:
        uses = self._keys.pop(event.key, (0, 0.0))[0]
        self._keys[event.key] = (uses + 1, self._now())
        if len(self._keys) > LISTED:
            self._keys.popitem(last=False)

    def listing(self) -> Listing:
        """Return the keys, the last used one first."""
        rows = [Used(key, uses, iso(at)) for key, (uses, at) in reversed(self._keys.items())]
        return Listing(success=True, data=rows, total=len(rows))


def endpoints(noobly: Noobly) -> Iterator[Endpoint]:
    """Yield put, get, delete, list and status over the default cache."""
    cache, recent = noobly.caching, RecentKeys(noobly.environment, "default")

    async def put(request: Request, texts: tuple[str, ...]) -> Response:
        await cache.put(texts[0], await json_body(request))
        return ok()

    async def get(request: Request, texts: tuple[str, ...]) -> Response:
        return json(await cache.get(texts[0]))

    async def delete(request: Request, texts: tuple[str, ...]) -> Response:
        await cache.delete(texts[0])
        return ok()

    async def listing(request: Request, texts: tuple[str, ...]) -> Response:
        return json(recent.listing())

    async def status(request: Request, texts: tuple[str, ...]) -> Response:
        return json("caching api running")

    yield endpoint("caching", "POST", "put", WRITE, put, segments=1)
    yield endpoint("caching", "GET", "get", READ, get, segments=1)
    yield endpoint("caching", "DELETE", "delete", WRITE, delete, segments=1)
    yield endpoint("caching", "GET", "list", READ, listing)
    yield endpoint("caching", "GET", "status", Open.EVERYBODY, status)
