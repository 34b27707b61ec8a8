"""The native API ``/v1/{service}/{instance}/…``, derived from the public methods of the portable types."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from types import NoneType

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from noobly.app import Noobly
from noobly.core.errors import Internal, NotFound
from noobly.core.lifecycle import Portable
from noobly.core.public import Route, routes
from noobly.core.wire import JSON, STREAM, encode_result, incoming, query_of
from noobly.server.answers import Answer
from noobly.server.attending import Attendance
from noobly.server.idempotency import KEPT_BYTES, Idempotency
from noobly.server.incoming import REQUEST_ID, body
from noobly.server.routes import ADMIT, Access, Endpoint, Handler
from noobly.server.streaming import Streams

_ABSENT = object()


class Operation(msgspec.Struct, frozen=True):
    """One public operation in the description of an instance."""

    name: str
    method: str
    path: str
    permission: str


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance is and can do."""

    service: str
    instance: str
    provider: str
    capabilities: list[str]
    operations: list[Operation]


class InstanceEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An instance in the list of services; its description is at ``path``."""

    instance: str
    provider: str
    path: str


class ServiceEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A service in the list of services."""

    service: str
    instances: list[InstanceEntry]


def native(noobly: Noobly, idempotency: Idempotency, streams: Streams, attendance: Attendance) -> Iterator[Endpoint]:
    """Yield the list of services, and the endpoints of all instances of all services."""
    listed = msgspec.json.encode(_services(noobly))
    access = Access("server", "read")
    yield Endpoint(method="GET", path="/v1", access=access, handler=_fixed(listed), name="services")
    for service, default in noobly.services.items():
        for instance, portable in default.siblings.items():
            base = f"/v1/{service}/{instance}"
            yield Endpoint(
                method="GET",
                path=base,
                access=Access(service, "read"),
                handler=_describer(service, instance, portable),
                name=f"{service}.describe",
            )
            for route in routes(type(portable)):
                access = Access(service, route.permission)
                handler = (
                    _streamer(portable, route, streams, access)
                    if route.streams
                    else _handler(portable, route, idempotency, attendance)
                )
                yield Endpoint(
                    method=route.verb,
                    path=f"{base}/{route.path}",
                    access=access,
                    handler=handler,
                    name=f"{service}.{route.name}",
                )


def _handler(portable: Portable, route: Route, idempotency: Idempotency, attendance: Attendance) -> Handler:
    method: Callable[..., Awaitable[object]] = getattr(portable, route.name)
    subject = route.params[0].name if route.params else ""
    undo: Callable[[object], Awaitable[None]] = getattr(portable, route.undo) if route.undo else _nothing

    async def answer(request: Request, _: tuple[str, ...]) -> Response:
        arguments = await _arguments(route, request)
        if route.absent is not None:
            arguments[route.absent] = _ABSENT
        call = functools.partial(method, **arguments)
        result = await (attendance.attend(call, request.receive, undo) if route.waits or route.lasts else call())
        if result is _ABSENT:
            raise NotFound(f"{route.name}: there is nothing under the {subject} {arguments.get(subject)!r}")
        if route.returns is NoneType:
            return Response(status_code=204)
        try:
            return Answer(*await _written(result, request.headers.get("accept", "")))
        except Internal:
            await undo(result)
            raise

    # What can be taken back is good for once only.
    return answer if route.idempotent else idempotency.guard(answer, 0 if route.undo else KEPT_BYTES)


async def _written(result: object, accept: str) -> tuple[bytes, str]:
    try:
        return encode_result(result, accept)
    except Internal:
        # Nested values take the stack; a thread has one of its own, with room for all that could be stored.
        return await asyncio.to_thread(encode_result, result, accept)


async def _nothing(_: object) -> None:
    """Take nothing back."""


def _streamer(portable: Portable, route: Route, streams: Streams, access: Access) -> Handler:
    method: Callable[..., AsyncGenerator[object]] = getattr(portable, route.name)

    async def answer(request: Request, _: tuple[str, ...]) -> Response:
        arguments = await _arguments(route, request)
        if request.method == "HEAD":
            return Response(media_type=STREAM)
        admit = functools.partial(request.scope[ADMIT], request, access)
        return await streams.begin(method(**arguments), admit, request.scope[REQUEST_ID])

    return answer


async def _arguments(route: Route, request: Request) -> dict[str, object]:
    sent = await body(request) if route.body is not None or route.verb == "POST" else b""
    return incoming(route, query_of(request.scope["query_string"]), sent, request.headers.get("content-type", ""))


def _describer(service: str, instance: str, portable: Portable) -> Handler:
    operations = [
        Operation(route.name, route.verb, f"/v1/{service}/{instance}/{route.path}", f"{service}:{route.permission}")
        for route in routes(type(portable))
    ]
    described = msgspec.json.encode(
        Description(
            service=service,
            instance=instance,
            provider=portable.scope.provider,
            capabilities=sorted(portable.capabilities),
            operations=operations,
        )
    )
    return _fixed(described)


def _services(noobly: Noobly) -> list[ServiceEntry]:
    return [
        ServiceEntry(
            service=service,
            instances=[
                InstanceEntry(instance=name, provider=portable.scope.provider, path=f"/v1/{service}/{name}")
                for name, portable in default.siblings.items()
            ],
        )
        for service, default in noobly.services.items()
    ]


def _fixed(content: bytes) -> Handler:
    async def answer(request: Request, _: tuple[str, ...]) -> Response:
        return Answer(content, JSON)

    return answer
