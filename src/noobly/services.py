"""The services of the suite, and how each is opened; a new service is one more entry here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import msgspec

from noobly.caching.driver import CacheDriver
from noobly.caching.opening import enter_cache
from noobly.caching.options import CacheOptions
from noobly.caching.providers import REGISTRY as CACHING
from noobly.core.config import Config
from noobly.core.lifecycle import Portable
from noobly.core.operation import Driver
from noobly.core.registry import Registry
from noobly.core.scope import Environment
from noobly.layers.health import Live
from noobly.layers.opening import Request
from noobly.logging.driver import LogDriver
from noobly.logging.opening import enter_logs
from noobly.logging.options import LogsOptions
from noobly.logging.providers import REGISTRY as LOGGING
from noobly.measuring.driver import MetricDriver
from noobly.measuring.opening import enter_metrics
from noobly.measuring.options import MetricOptions
from noobly.measuring.providers import REGISTRY as MEASURING
from noobly.queueing.driver import QueueDriver
from noobly.queueing.opening import enter_queues
from noobly.queueing.options import QueueOptions
from noobly.queueing.providers import REGISTRY as QUEUEING
from noobly.working.driver import JobDriver
from noobly.working.opening import enter_jobs
from noobly.working.options import JobOptions
from noobly.working.providers import REGISTRY as WORKING

Enter = Callable[[AsyncExitStack, Request, Environment], Awaitable[Live[Portable]]]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One service, as the application, the settings and the command line see it.

    Args:
        registry: Its providers; it also holds the service's name.
        protocol: Its driver protocol, from which a provider's capabilities follow.
        options: The type of its options.
        enter: Opens one instance whose end is registered on a stack.
        default: The URL of what is opened where none is configured.
    """

    registry: Registry
    protocol: type[Driver]
    options: type[Config]
    enter: Enter
    default: str = "memory://"


def _table(*services: Service) -> dict[str, Service]:
    return {service.registry.service: service for service in services}


SERVICES = _table(
    Service(registry=LOGGING, protocol=LogDriver, options=LogsOptions, enter=enter_logs),
    Service(registry=CACHING, protocol=CacheDriver, options=CacheOptions, enter=enter_cache),
    Service(registry=MEASURING, protocol=MetricDriver, options=MetricOptions, enter=enter_metrics),
    Service(registry=QUEUEING, protocol=QueueDriver, options=QueueOptions, enter=enter_queues),
    Service(registry=WORKING, protocol=JobDriver, options=JobOptions, enter=enter_jobs),
)
"""The services by name, in the order in which they start; what the others log goes to the first."""
