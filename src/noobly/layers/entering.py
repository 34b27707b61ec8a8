"""From a request to a living instance: the same way for every service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Generic, TypeVar, cast

import msgspec

from noobly.core.config import Config
from noobly.core.lifecycle import Portable
from noobly.core.operation import Driver
from noobly.core.registry import Registry
from noobly.core.scope import Environment
from noobly.layers.health import Live
from noobly.layers.opening import Request, Split, is_remote, open_driver, open_remote, split

D = TypeVar("D", bound=Driver)
P = TypeVar("P", bound=Portable)
O = TypeVar("O", bound=Config)  # noqa: E741 - the options of a service


class Shape(msgspec.Struct, Generic[D, P, O], frozen=True, kw_only=True):
    """What a service is made of.

    Args:
        registry: Its providers.
        protocol: Its driver protocol, which has ``health``.
        portable: What users hold; it is made of a bound driver, a scope and options.
        options: The type of its options.
        probe: One cheap question to an instance on another server, for its health.
    """

    registry: Registry
    protocol: type[D]
    portable: type[P]
    options: type[O]
    probe: Callable[[P], Awaitable[object]]


Enter = Callable[[AsyncExitStack, Request, Environment], Awaitable[Live[P]]]


@asynccontextmanager
async def alone(enter: Enter[P], request: Request, environment: Environment | None) -> AsyncIterator[P]:
    """Open an instance for the body of an ``async with``, outside of any application.

    Args:
        enter: How its service opens one.
        request: What to open.
        environment: Clock, events and metrics; made anew for None.
    """
    async with AsyncExitStack() as stack:
        live = await enter(stack, request, environment or Environment())
        yield live.portable


async def enter(
    stack: AsyncExitStack,
    shape: Shape[D, P, O],
    request: Request,
    environment: Environment,
    *,
    prepare: Callable[[P], None] | None = None,
) -> Live[P]:
    """Open an instance whose end is registered on a stack.

    Args:
        stack: Where its end is registered.
        shape: The service.
        request: What to open.
        environment: Clock, events and metrics.
        prepare: Called with the instance before it starts.

    Raises:
        ConfigError: A setting is unknown or wrong.
        MissingDependency: The provider's package is not installed.
        Unsupported: A required capability is missing.
        Unavailable: The far side does not answer.
    """
    settings = split(request, shape.options)
    far = is_remote(shape.registry, settings)
    live = await (_far if far else _near)(stack, shape, settings, request, environment)
    if prepare is not None:
        prepare(live.portable)
    if not far:
        await live.portable.start()
    stack.push_async_callback(live.portable.close)
    return live


async def _far(
    stack: AsyncExitStack, shape: Shape[D, P, O], settings: Split[O], request: Request, environment: Environment
) -> Live[P]:
    there, circuit = await open_remote(stack, shape.registry, shape.portable, settings, request, environment)
    return Live(portable=there, check=lambda: shape.probe(there), circuit=circuit)


async def _near(
    stack: AsyncExitStack, shape: Shape[D, P, O], settings: Split[O], request: Request, environment: Environment
) -> Live[P]:
    opened = await open_driver(stack, shape.registry, shape.protocol, settings, request, environment)
    # That a portable type is made of these three is its own declaration, which `type` cannot say.
    made = cast("Callable[..., P]", shape.portable)(opened.driver, opened.scope, opened.options)
    made.capabilities = opened.capabilities

    async def check() -> None:
        # Looked up each time, for closing puts another one in its place.
        await cast("Callable[[], Awaitable[None]]", getattr(opened.driver, "health"))()  # noqa: B009 - typed above

    return Live(portable=made, check=check, circuit=opened.circuit)
