"""Opening logging, alone or for an application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from noobly.core.capability import Capability
from noobly.core.scope import Environment
from noobly.layers.health import Live
from noobly.layers.opening import Request, is_remote, open_driver, open_remote, split
from noobly.logging.driver import LogDriver
from noobly.logging.logs import Logs
from noobly.logging.options import LogsOptions
from noobly.logging.providers import REGISTRY


@asynccontextmanager
async def open_logs(
    url: str = "memory://",
    *,
    require: Sequence[Capability] = (),
    instance: str = "default",
    environment: Environment | None = None,
    **options: object,
) -> AsyncIterator[Logs]:
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
    async with AsyncExitStack() as stack:
        live = await enter_logs(stack, request, environment or Environment())
        yield live.portable


async def enter_logs(stack: AsyncExitStack, request: Request, environment: Environment) -> Live[Logs]:
    """Open logging whose end is registered on a stack."""
    settings = split(request, LogsOptions)
    if is_remote(REGISTRY, settings):
        there, circuit = await open_remote(stack, REGISTRY, Logs, settings, request, environment)
        _begin(stack, there)
        return Live(portable=there, check=there.level, circuit=circuit)
    opened = await open_driver(stack, REGISTRY, LogDriver, settings, request, environment)
    logs = Logs(opened.driver, opened.scope, opened.options)
    _begin(stack, logs)

    async def check() -> None:
        await opened.driver.health()  # Looked up each time, for closing puts another one in its place.

    return Live(portable=logs, check=check, circuit=opened.circuit)


def _begin(stack: AsyncExitStack, logs: Logs) -> None:
    stack.push_async_callback(logs.close)
    chosen = logs.options.capture
    if logs.scope.instance == "default" if chosen is None else chosen:
        stack.enter_context(logs.captured())
