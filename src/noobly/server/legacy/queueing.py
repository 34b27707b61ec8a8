"""The queueing routes of nooblyjs-core."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from noobly.app import Noobly
from noobly.core.errors import InvalidArgument
from noobly.queueing import Queues
from noobly.server.legacy.shapes import endpoint, json, json_body, ok
from noobly.server.routes import Access, Endpoint, Open

READ, WRITE, ADMIN = (Access("queueing", permission) for permission in ("read", "write", "admin"))


def endpoints(noobly: Noobly) -> Iterator[Endpoint]:
    """Yield enqueue, dequeue, size, queues, purge and status over the default queues.

    A message that is dequeued is gone, as with the original; ``receive`` of the native API holds it until it is done.
    """
    yield from _changes(noobly.queueing)
    yield from _looks(noobly.queueing)


def _changes(queues: Queues) -> Iterator[Endpoint]:
    async def enqueue(request: Request, texts: tuple[str, ...]) -> Response:
        sent = await json_body(request)
        task = sent.get("task") if isinstance(sent, dict) else None
        if task is None:
            raise InvalidArgument("Missing task")
        await queues.send(texts[0], task)
        return ok()

    async def dequeue(request: Request, texts: tuple[str, ...]) -> Response:
        if request.method == "HEAD":  # Whoever only looks gets no message, so none is taken.
            return json(None)
        return json(await queues.dequeue(texts[0]))

    async def purge(request: Request, texts: tuple[str, ...]) -> Response:
        await queues.purge(texts[0])
        return ok()

    yield endpoint("queueing", "POST", "enqueue", WRITE, enqueue, segments=1)
    yield endpoint("queueing", "GET", "dequeue", WRITE, dequeue, segments=1)
    yield endpoint("queueing", "DELETE", "purge", ADMIN, purge, segments=1)


def _looks(queues: Queues) -> Iterator[Endpoint]:
    async def size(request: Request, texts: tuple[str, ...]) -> Response:
        return json(await queues.size(texts[0]))

    async def listing(request: Request, texts: tuple[str, ...]) -> Response:
        return json(await queues.queues())

    async def status(request: Request, texts: tuple[str, ...]) -> Response:
        return json("queueing api running")

    yield endpoint("queueing", "GET", "size", READ, size, segments=1)
    yield endpoint("queueing", "GET", "queues", READ, listing)
    yield endpoint("queueing", "GET", "status", Open.EVERYBODY, status)
