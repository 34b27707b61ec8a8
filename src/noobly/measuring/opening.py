"""Opening one instance of measuring, alone or for an application."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from noobly.core.capability import Capability
from noobly.core.scope import Environment
from noobly.layers.entering import Shape, alone, enter
from noobly.layers.health import Live
from noobly.layers.opening import Request
from noobly.measuring.driver import MetricDriver
from noobly.measuring.metrics import Metrics
from noobly.measuring.options import MetricOptions
from noobly.measuring.providers import REGISTRY

_PROBE = "noobly:health"
"""What the series are asked for whose health is a question to another server; no metric's name begins so."""

_SHAPE = Shape(
    registry=REGISTRY,
    protocol=MetricDriver,
    portable=Metrics,
    options=MetricOptions,
    probe=lambda metrics: metrics.series(_PROBE, limit=1),
)


def open_metrics(
    url: str = "memory://",
    *,
    require: Sequence[Capability] = (),
    instance: str = "default",
    environment: Environment | None = None,
    **options: object,
) -> AbstractAsyncContextManager[Metrics]:
    """Open metrics for the body of an ``async with``.

    Args:
        url: Where samples are kept: ``memory://``, ``sqlite:///var/lib/app/metrics.db``, ``http://localhost:11000``.
        require: Capabilities without which opening fails; measuring has none so far.
        instance: The name in metrics and logs.
        environment: Clock, events and metrics; made anew by default.
        **options: Options of ``MetricOptions``, of the policy and of the provider; they win over the URL's query.

    Raises:
        ConfigError: A setting is unknown or wrong.
        Unavailable: The file cannot be opened, or the far side does not answer.
    """
    request = Request(url=url, options=options, instance=instance, require=require)
    return alone(enter_metrics, request, environment)


async def enter_metrics(stack: AsyncExitStack, request: Request, environment: Environment) -> Live[Metrics]:
    """Open metrics whose end is registered on a stack."""
    return await enter(stack, _SHAPE, request, environment)
