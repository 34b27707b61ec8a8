"""The HTTP API inside an application of one's own, which uses the same services directly.

Prints:

    200 {"id":7}
    200 {"status":"ready"}
    401 unauthenticated
    200 {"id":7}
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from noobly import Noobly


async def user(request: Request) -> JSONResponse:
    number = request.path_params["number"]

    async def load() -> dict[str, int]:
        return {"id": number}

    cache = request.app.state.noobly.caching
    return JSONResponse(await cache.get_or_compute(f"user:{number}", load, ttl=60))


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with Noobly.open() as noobly:
        app.state.noobly = noobly
        app.mount("/noobly", noobly.asgi())
        yield


app = Starlette(routes=[Route("/users/{number:int}", user)], lifespan=lifespan)


async def main() -> None:
    key = os.environ["NOOBLY_API_KEYS"] = "a-key-for-this-example"
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://example.test") as client,
    ):
        for path in ("/users/7", "/noobly/health/ready"):
            response = await client.get(path)
            print(response.status_code, response.text)

        entry = "/noobly/v1/caching/default/entry?key=user:7"
        response = await client.get(entry)
        print(response.status_code, response.json()["code"])
        response = await client.get(entry, headers={"x-api-key": key})
        print(response.status_code, response.text)


if __name__ == "__main__":
    asyncio.run(main())
