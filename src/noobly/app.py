"""``Noobly``: opens the configured services, in order, and closes them in reverse."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from noobly.caching import Cache
from noobly.core.clock import Seconds, seconds
from noobly.core.errors import ConfigError, NooblyError
from noobly.core.lifecycle import Portable
from noobly.core.scope import Environment
from noobly.layers.health import Health, Live, health
from noobly.layers.opening import Request
from noobly.logging import Logs
from noobly.measuring import Metrics
from noobly.measuring.runtime import watch
from noobly.queueing import Queues
from noobly.services import SERVICES
from noobly.settings import DEFAULT, Instance, Settings, title
from noobly.working import Jobs

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["Noobly"]


class Noobly:
    """An application's services: ``noobly.caching`` is the default cache, ``noobly.caching["sessions"]`` a named one.

    Attributes:
        settings: What it was opened with.
        environment: The clock, events and metrics that all its services share.
        services: The default instance of each service, by the service's name.
        instances: All instances, in the order in which they were opened.
    """

    logging: Logs
    caching: Cache
    measuring: Metrics
    queueing: Queues
    working: Jobs

    def __init__(self, settings: Settings, environment: Environment, instances: Sequence[Live[Portable]]) -> None:
        self.settings = settings
        self.environment = environment
        self.instances = tuple(instances)
        self.services: Mapping[str, Portable] = _defaults(instances)
        for name, portable in self.services.items():
            setattr(self, name, portable)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: str | Path | None = None,
        *,
        settings: Settings | None = None,
        environment: Environment | None = None,
    ) -> AsyncIterator[Self]:
        """Open all services for the body of an ``async with``; where one fails, those already open are closed.

        Args:
            config: The settings file; see ``Settings.read`` for what is read without it.
            settings: Settings made in code, instead of a file and the environment.
            environment: Clock, events and metrics; made anew by default.

        Raises:
            ConfigError: A setting is unknown or wrong, or both ``config`` and ``settings`` are given.
            MissingDependency: A provider's package is not installed.
            Unavailable: A far side does not answer.
        """
        if config is not None and settings is not None:
            raise ConfigError("Noobly.open takes a config file or settings, not both")
        chosen = settings or Settings.read(config)
        shared = environment or Environment()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(watch(shared.meter))
            instances = [
                await enter(stack, service, name, instance, shared)
                for service in SERVICES
                for name, instance in chosen.instances(service).items()
            ]
            yield cls(chosen, shared, instances)

    async def health(self, *, within: Seconds = 2.0) -> tuple[Health, ...]:
        """Check all instances at once, each with one cheap round trip.

        Args:
            within: Seconds after which an instance that has not answered counts as down.
        """
        limit = seconds(within, "within") or 0.0
        async with asyncio.TaskGroup() as group:
            checks = [group.create_task(health(live, within=limit)) for live in self.instances]
        return tuple(check.result() for check in checks)

    def asgi(self, **options: object) -> ASGIApp:
        """Return the HTTP API as an ASGI application, to be served or mounted; see ``noobly.server.app.build``."""
        # Imported by name: the server stands above this module, and only those who ask for it pay for it.
        app: ASGIApp = importlib.import_module("noobly.server.app").build(self, **options)
        return app


async def enter(
    stack: AsyncExitStack, service: str, name: str, instance: Instance, environment: Environment
) -> Live[Portable]:
    """Open one configured instance, whose end is registered on the stack.

    Raises:
        NooblyError: As ``Noobly.open``; a note on the error names the instance.
    """
    request = Request(url=instance.url, options=instance.options, instance=name)
    try:
        return await SERVICES[service].enter(stack, request, environment)
    except NooblyError as error:
        error.service = error.service or service
        error.add_note(f"in the settings of [{title(service, name)}]")
        raise


def _defaults(instances: Sequence[Live[Portable]]) -> dict[str, Portable]:
    found: dict[str, dict[str, Portable]] = {}
    for live in instances:
        scope = live.portable.scope
        found.setdefault(scope.service, {})[scope.instance] = live.portable
        live.portable.siblings = found[scope.service]
    return {service: siblings[DEFAULT] for service, siblings in found.items()}
