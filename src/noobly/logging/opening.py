"""Opening logging, alone or for an application."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from noobly.core.capability import Capability
from noobly.core.scope import Environment
from noobly.layers.entering import Shape, alone, enter
from noobly.layers.health import Live
from noobly.layers.opening import Request
from noobly.logging.driver import LogDriver
from noobly.logging.logs import Logs
from noobly.logging.options import LogsOptions
from noobly.logging.providers import REGISTRY

_SHAPE = Shape(
    registry=REGISTRY,
    protocol=LogDriver,
    portable=Logs,
    options=LogsOptions,
    probe=Logs.level,
)


def open_logs(
    url: str = "memory://",
    *,
    require: Sequence[Capability] = (),
    instance: str = "default",
    environment: Environment | None = None,
    **options: object,
) -> AbstractAsyncContextManager[Logs]:
    """Open logging for the body of an ``async with``.

    Args:
        url: Where records are kept: ``memory://``, ``file:///var/log/app.jsonl``, ``http://localhost:11000``.
        require: Capabilities without which opening fails.
        instance: The name in metrics and, unless it is ``default``, the name of its logger.
        environment: Clock, events and metrics; made anew by default.
        **options: Options of ``LogsOptions``, of the policy and of the provider; they win over the URL's query.

    Raises:
        ConfigError: A setting is unknown or wrong.
        Unsupported: A required capability is missing.
        Unavailable: The far side does not answer.
    """
    # Alone, it leaves the rest of the process as it is, unless it is told otherwise.
    request = Request(url=url, options={"capture": False, **options}, instance=instance, require=require)
    return alone(enter_logs, request, environment)


async def enter_logs(stack: AsyncExitStack, request: Request, environment: Environment) -> Live[Logs]:
    """Open logging whose end is registered on a stack."""
    live = await enter(stack, _SHAPE, request, environment)
    _capture(stack, live.portable)
    return live


def _capture(stack: AsyncExitStack, logs: Logs) -> None:
    chosen = logs.options.capture
    if logs.scope.instance == "default" if chosen is None else chosen:
        stack.enter_context(logs.captured())
