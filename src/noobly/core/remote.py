"""``remote(Type)``: a portable type whose public methods call a server, with all its sugar and types.

The sugar of a portable type is written only in terms of its public methods, so the generated class inherits it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Protocol, TypeVar, cast

from noobly.core.binding import Layer, wrap
from noobly.core.checks import Limits
from noobly.core.config import Config
from noobly.core.errors import Closed, NooblyError, NoRoute, NotFound
from noobly.core.lifecycle import Portable
from noobly.core.operation import Call, Driver, Operation
from noobly.core.public import Route, routes
from noobly.core.scope import Scope
from noobly.core.streams import Skipped
from noobly.core.wire import JSON, MSGPACK, Outgoing, decode_result, outgoing

P = TypeVar("P", bound=Portable)


class Answer(Protocol):
    """A server's good answer."""

    @property
    def content(self) -> bytes:
        """The body."""
        ...

    @property
    def content_type(self) -> str:
        """The body's type."""
        ...


class Source(Protocol):
    """A stream that a server has begun to send."""

    def __aiter__(self) -> AsyncIterator[bytes | Skipped]:
        """Iterate over its items as JSON, and over the notices of what was skipped."""
        ...

    async def aclose(self) -> None:
        """Stop reading and give the connection back."""
        ...


class Caller(Driver, Protocol):
    """Sends calls to a server; the only driver a remote instance has."""

    async def capabilities(self, service: str) -> frozenset[str]:
        """Return the names of what the server's instance can do beyond the core.

        Raises:
            Unavailable: The server cannot be reached.
        """
        ...

    async def call(self, service: str, route: Route, call: Outgoing, accept: str) -> Answer:
        """Send one call and return its answer.

        Raises:
            NooblyError: What the server answered, as the class it was raised as there.
            Unavailable: The server cannot be reached.
        """
        ...

    async def follow(self, service: str, route: Route, call: Outgoing) -> Source:
        """Ask for a stream and return it once it begins; the errors are those of ``call``, also while it is read."""
        ...


class Remote:
    """The bound calls of one remote instance, by the names of the public methods."""

    def __init__(self, portable: type[Portable], caller: Caller, layers: Sequence[Layer]) -> None:
        self.routes = {route.name: route for route in routes(portable)}
        self._calls = {name: _bound(portable.service, route, caller, layers) for name, route in self.routes.items()}

    async def invoke(self, route: Route, arguments: dict[str, object]) -> object:
        """Call a public method of the server's instance."""
        missing = arguments.pop(route.absent, None) if route.absent else None
        wanted = arguments.pop("type", route.returns)
        # A typed value is read from JSON, so that it converts exactly as it would beside the store.
        accept = MSGPACK if wanted in (object, route.returns) else JSON
        try:
            answer = await self._calls[route.name](outgoing(route, arguments), accept)
        except NotFound as error:
            if route.absent is None or isinstance(error, NoRoute):
                raise
            return missing
        except NooblyError as error:
            if route.fails_open is None or not error.temporary:
                raise
            return missing if route.absent else route.fails_open()
        received = cast(Answer, answer)
        return decode_result(route, received.content, received.content_type, wanted)

    async def follow(self, route: Route, arguments: dict[str, object]) -> AsyncGenerator[object]:
        """Read a stream of the server's instance."""
        source = cast(Source, await self._calls[route.name](outgoing(route, arguments)))
        try:
            async for item in source:
                yield item if isinstance(item, Skipped) else decode_result(route, item, JSON, route.returns)
        finally:
            await source.aclose()

    def seal(self, message: str) -> None:
        """Make every call raise Closed from now on."""

        async def closed(*_: object) -> object:
            raise Closed(message)

        self._calls = dict.fromkeys(self._calls, closed)


def _bound(service: str, route: Route, caller: Caller, layers: Sequence[Layer]) -> Call:
    async def call(prepared: Outgoing, accept: str) -> object:
        return await caller.call(service, route, prepared, accept)

    async def follow(prepared: Outgoing) -> object:
        return await caller.follow(service, route, prepared)

    declared = Operation(
        service=service, name=route.name, idempotent=route.idempotent, waits=route.waits, lasts=route.lasts
    )
    return wrap(declared, caller, follow if route.streams else call, layers)


class _RemoteInit(Protocol):
    _remote: Remote


def remote(portable: type[P]) -> Callable[[Remote, Scope, Config], P]:
    """Return a maker of instances of a portable type that live on a server.

    Args:
        portable: The type; it must have ``_begin(scope, options)`` and ``_end()`` for what its sugar needs.

    Returns:
        A subclass of it, to be called with the bound calls, the scope and the type's options.
    """

    def init(self: P, calls: Remote, scope: Scope, options: Config) -> None:
        cast(_RemoteInit, self)._remote = calls
        self._begin(scope, options)

    async def close(self: P) -> None:
        await self._end()

    members: dict[str, object] = {"__init__": init, "close": close, "__doc__": portable.__doc__}
    members |= {route.name: _method(portable, route) for route in routes(portable)}
    return cast("Callable[[Remote, Scope, Config], P]", type(f"Remote{portable.__name__}", (portable,), members))


def _method(portable: type[P], route: Route) -> Callable[..., object]:
    original = getattr(portable, route.name)
    signature = inspect.signature(original)

    def carried(*args: object, **kwargs: object) -> dict[str, object]:
        bound = signature.bind(*args, **kwargs)
        if route.absent is not None:
            bound.arguments.setdefault(route.absent, signature.parameters[route.absent].default)
        arguments = dict(bound.arguments)
        del arguments["self"]
        return arguments

    @functools.wraps(original)
    async def method(self: P, *args: object, **kwargs: object) -> object:
        return await cast(_RemoteInit, self)._remote.invoke(route, carried(self, *args, **kwargs))

    @functools.wraps(original)
    def stream(self: P, *args: object, **kwargs: object) -> AsyncIterator[object]:
        return cast(_RemoteInit, self)._remote.follow(route, carried(self, *args, **kwargs))

    return stream if route.streams else method


REMOTE_LIMITS = Limits()
"""A remote instance takes what its server takes; the server refuses what is too large."""
