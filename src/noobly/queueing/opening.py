"""Opening one instance of queueing, alone or for an application."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from noobly.core.capability import Capability
from noobly.core.scope import Environment
from noobly.layers.entering import Shape, alone, enter
from noobly.layers.health import Live
from noobly.layers.opening import Request
from noobly.queueing.driver import QueueDriver
from noobly.queueing.options import QueueOptions
from noobly.queueing.providers import REGISTRY
from noobly.queueing.queues import Queues

_PROBE = "noobly:health"
"""The queue whose size is asked for where health is a question to another server."""

_SHAPE = Shape(
    registry=REGISTRY,
    protocol=QueueDriver,
    portable=Queues,
    options=QueueOptions,
    probe=lambda queues: queues.size(_PROBE),
)


def open_queues(
    url: str = "memory://",
    *,
    require: Sequence[Capability] = (),
    instance: str = "default",
    environment: Environment | None = None,
    **options: object,
) -> AbstractAsyncContextManager[Queues]:
    """Open queues for the body of an ``async with``.

    Args:
        url: Where messages are kept: ``memory://``, ``sqlite:///var/lib/app/queues.db``, ``redis://localhost/0``,
            ``sqs://eu-west-1``, ``rabbitmq://localhost``, ``http://localhost:11000``.
        require: Capabilities without which opening fails.
        instance: The name in metrics, logs and, unless ``namespace`` is given, in the store's keys.
        environment: Clock, events and metrics; made anew by default.
        **options: Options of ``QueueOptions``, of the policy and of the provider; they win over the URL's query.

    Raises:
        ConfigError: A setting is unknown or wrong.
        MissingDependency: The provider's package is not installed.
        Unsupported: A required capability is missing.
        Unavailable: The far side does not answer.
    """
    request = Request(url=url, options=options, instance=instance, require=require)
    return alone(enter_queues, request, environment)


async def enter_queues(stack: AsyncExitStack, request: Request, environment: Environment) -> Live[Queues]:
    """Open queues whose end is registered on a stack."""
    return await enter(stack, _SHAPE, request, environment)
