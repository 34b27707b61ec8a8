"""Opening one cache, alone or for an application."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from noobly.caching.cache import Cache
from noobly.caching.driver import CacheDriver
from noobly.caching.options import CacheOptions
from noobly.caching.providers import REGISTRY
from noobly.core.capability import Capability
from noobly.core.scope import Environment
from noobly.layers.entering import Shape, alone, enter
from noobly.layers.health import Live
from noobly.layers.opening import Request

_PROBE = "noobly:health"
"""The key whose existence is asked for where health is a question to another server."""

_SHAPE = Shape(
    registry=REGISTRY,
    protocol=CacheDriver,
    portable=Cache,
    options=CacheOptions,
    probe=lambda cache: cache.exists(_PROBE),
)


def open_cache(
    url: str = "memory://",
    *,
    require: Sequence[Capability] = (),
    instance: str = "default",
    environment: Environment | None = None,
    **options: object,
) -> AbstractAsyncContextManager[Cache]:
    """Open a cache for the body of an ``async with``.

    Args:
        url: Where entries are kept: ``memory://``, ``file:///var/cache/app``, ``redis://localhost/0``,
            ``memcached://localhost``, ``tiered+redis://localhost/0``, ``http://localhost:11000``.
        require: Capabilities without which opening fails.
        instance: The name in metrics, logs and, unless ``namespace`` is given, in the store's keys.
        environment: Clock, events and metrics; made anew by default.
        **options: Options of ``CacheOptions``, of the policy and of the provider; they win over the URL's query.

    Raises:
        ConfigError: A setting is unknown or wrong.
        MissingDependency: The provider's package is not installed.
        Unsupported: A required capability is missing.
        Unavailable: The far side does not answer.
    """
    request = Request(url=url, options=options, instance=instance, require=require)
    return alone(enter_cache, request, environment)


async def enter_cache(stack: AsyncExitStack, request: Request, environment: Environment) -> Live[Cache]:
    """Open a cache whose end is registered on a stack."""
    return await enter(stack, _SHAPE, request, environment)
