"""Opening one instance of working, alone or for an application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import msgspec

from noobly.core.capability import Capability
from noobly.core.config import parse_url
from noobly.core.scope import Environment
from noobly.layers.entering import Shape, alone, enter
from noobly.layers.health import Live
from noobly.layers.opening import Request
from noobly.working.driver import JobDriver
from noobly.working.heart import Twin
from noobly.working.jobs import Jobs
from noobly.working.options import JobOptions
from noobly.working.providers import REGISTRY

_PROBE = "noobly:health"
"""The queue whose jobs are counted where health is a question to another server."""

_SHAPE = Shape(
    registry=REGISTRY,
    protocol=JobDriver,
    portable=Jobs,
    options=JobOptions,
    probe=lambda jobs: jobs.stats(_PROBE),
)


def open_jobs(
    url: str = "memory://",
    *,
    require: Sequence[Capability] = (),
    instance: str = "default",
    environment: Environment | None = None,
    **options: object,
) -> AbstractAsyncContextManager[Jobs]:
    """Open jobs for the body of an ``async with``.

    Args:
        url: Where jobs are kept: ``memory://``, ``sqlite:///var/lib/app/jobs.db``, ``bullmq://localhost/0``,
            ``http://localhost:11000``.
        require: Capabilities without which opening fails.
        instance: The name in metrics, logs and, unless ``namespace`` is given, in the store's keys.
        environment: Clock, events and metrics; made anew by default.
        **options: Options of ``JobOptions``, of the policy and of the provider; they win over the URL's query.

    Raises:
        ConfigError: A setting is unknown or wrong.
        MissingDependency: The provider's package is not installed.
        Unsupported: A required capability is missing.
        Unavailable: The far side does not answer.
    """
    request = Request(url=url, options=options, instance=instance, require=require)
    return alone(enter_jobs, request, environment)


async def enter_jobs(stack: AsyncExitStack, request: Request, environment: Environment) -> Live[Jobs]:
    """Open jobs whose end is registered on a stack."""

    def prepare(jobs: Jobs) -> None:
        loaded = REGISTRY.load(parse_url(request.url).scheme)
        apart = getattr(loaded, "apart", True)  # A server is another place for whoever asks it.
        told: Mapping[str, object] = getattr(loaded, "told", {})
        jobs.twin = _twin(request, environment, {**told, "script_workers": 0}) if apart else _itself(jobs)
        if not apart:
            jobs.late = 0.0  # A claim in memory takes nothing while it waits, so no answer is on its way.

    return await enter(stack, _SHAPE, request, environment, prepare=prepare)


def _twin(request: Request, environment: Environment, options: Mapping[str, object]) -> Twin:
    """Return what opens the same jobs once more, for a loop in another thread: with the clock, but metrics apart."""
    quiet = msgspec.structs.replace(request, options={**request.options, **options})

    @asynccontextmanager
    async def twin() -> AsyncIterator[Jobs]:
        async with AsyncExitStack() as stack:
            apart = Environment(clock=environment.clock, chance=environment.chance)
            yield (await enter_jobs(stack, quiet, apart)).portable

    return twin


def _itself(jobs: Jobs) -> Twin:
    """Return what gives the jobs themselves: in memory, keeping a claim moves a number, which any thread may do."""

    @asynccontextmanager
    async def twin() -> AsyncIterator[Jobs]:
        yield jobs

    return twin
