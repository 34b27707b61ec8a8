"""Answer GET requests from a cache: plain ASGI middleware for Starlette and FastAPI.

Prints:

    miss {"id":7,"title":"First"}
    hit {"id":7,"title":"First"}
    10 requests at once, rendered once
    after a change: miss {"id":7,"title":"Second"}
    with a cookie: none {"id":7,"title":"Second"}
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from noobly import Cache, Computed, open_cache


class Kept(msgspec.Struct):
    """A response as it is stored."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class ResponseCache:
    """Keeps the 200 answers to GET requests that carry no credentials, tagged with their path's first segment.

    Many equal requests at once run the application once. Answers that set a cookie, vary, or forbid it are not kept.
    Each answer is gathered before it is sent, so leave streams out with ``skip``.
    """

    def __init__(self, app: ASGIApp, *, ttl: float, grace: float | None = None, skip: tuple[str, ...] = ()) -> None:
        self.app, self.ttl, self.grace, self.skip = app, ttl, grace, skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._applies(scope):
            await self.app(scope, receive, send)
            return
        cache: Cache = scope["app"].state.cache
        ran = False

        async def answer() -> Computed:
            nonlocal ran
            ran = True
            kept = await _gather(self.app, scope, receive)
            return Computed(value=kept, store=_storable(kept))

        found = await cache.get_or_compute(
            _key(scope), answer, ttl=self.ttl, grace=self.grace, tags=[scope["path"].split("/")[1] or "/"]
        )
        kept = msgspec.convert(found, Kept)  # as computed, or as it came back from the store
        response = Response(kept.body, kept.status)
        response.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept.headers]
        response.headers["x-cache"] = "miss" if ran else "hit"
        await response(scope, receive, send)

    def _applies(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"].startswith(self.skip):
            return False
        return not any(name in (b"authorization", b"cookie", b"range") for name, _ in scope["headers"])


def _key(scope: Scope) -> str:
    target = f"{scope['path']}?{scope['query_string'].decode('latin-1')}"
    return f"response:{hashlib.sha256(target.encode()).hexdigest()}"


async def _gather(app: ASGIApp, scope: Scope, receive: Receive) -> Kept:
    kept = Kept(500, [], b"")

    async def keep(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept.status = message["status"]
            kept.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
        elif message["type"] == "http.response.body":
            kept.body += message.get("body", b"")

    await app(scope, receive, keep)
    return kept


def _storable(kept: Kept) -> bool:
    headers = {name.lower(): value for name, value in kept.headers}
    forbidden = any(word in headers.get("cache-control", "") for word in ("no-store", "private"))
    return kept.status == 200 and not forbidden and not headers.keys() & {"set-cookie", "vary"}


# The application.

TITLES = {7: "First"}
RENDERED: list[int] = []


async def article(request: Request) -> JSONResponse:
    number = request.path_params["number"]
    RENDERED.append(number)
    await asyncio.sleep(0.01)
    return JSONResponse({"id": number, "title": TITLES[number]})


async def rename(request: Request) -> Response:
    TITLES[request.path_params["number"]] = (await request.body()).decode()
    await request.app.state.cache.invalidate(["articles"])
    return Response(status_code=204)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with open_cache("memory://") as app.state.cache:  # or redis://…, shared by all workers
        yield


app = Starlette(
    routes=[
        Route("/articles/{number:int}", article, methods=["GET"]),
        Route("/articles/{number:int}", rename, methods=["PUT"]),
    ],
    middleware=[Middleware(ResponseCache, ttl=60, grace=600)],
    lifespan=lifespan,
)


async def main() -> None:
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://example.test") as client,
    ):

        async def read(**headers: str) -> str:
            response = await client.get("/articles/7", headers=headers)
            return f"{response.headers.get('x-cache', 'none')} {response.text}"

        print(await read())
        print(await read())

        RENDERED.clear()
        await app.state.cache.clear()
        await asyncio.gather(*(read() for _ in range(10)))
        print(f"10 requests at once, rendered {'once' if len(RENDERED) == 1 else len(RENDERED)}")

        await client.put("/articles/7", content="Second")
        print(f"after a change: {await read()}")
        print(f"with a cookie: {await read(cookie='session=1')}")


if __name__ == "__main__":
    asyncio.run(main())
