"""Connecting to every configured instance and telling how it is."""

from __future__ import annotations

import asyncio
import platform
import re
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, requires, version

import msgspec

from noobly.app import enter
from noobly.core.errors import NooblyError
from noobly.core.scope import Environment
from noobly.layers.health import State, health
from noobly.services import SERVICES
from noobly.settings import Instance, Settings

__all__ = ["Diagnosis", "Finding", "diagnose"]

_WITHIN = 10.0
_QUIET = 1.0
"""Seconds before progress is shown."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """How one instance is.

    Args:
        service: The service's name.
        instance: The instance's name.
        provider: The scheme of its URL.
        state: ``ok``, ``degraded`` or ``down``.
        milliseconds: The round trip; None where there was none.
        packages: The optional packages it uses, with their versions.
        error: What is wrong; None where nothing is.
    """

    service: str
    instance: str
    provider: str
    state: str
    milliseconds: float | None
    packages: list[str]
    error: str | None


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """How an installation is.

    Args:
        noobly: The suite's version.
        python: The interpreter's version.
        instances: All configured instances.
    """

    noobly: str
    python: str
    instances: list[Finding]

    @property
    def well(self) -> bool:
        """No instance is down."""
        return all(finding.state != State.DOWN.value for finding in self.instances)


async def diagnose(settings: Settings) -> Diagnosis:
    """Open every instance on its own, ask it for a round trip, and close it again."""
    environment = Environment()
    async with asyncio.TaskGroup() as group:
        examinations = [
            group.create_task(_examine(service, name, instance, environment))
            for service in SERVICES
            for name, instance in settings.instances(service).items()
        ]
        await _show_progress(examinations)
    found = [examination.result() for examination in examinations]
    return Diagnosis(noobly=version("noobly"), python=platform.python_version(), instances=found)


async def _examine(service: str, name: str, instance: Instance, environment: Environment) -> Finding:
    try:
        async with asyncio.timeout(_WITHIN), AsyncExitStack() as stack:
            live = await enter(stack, service, name, instance, environment)
            report = await health(live, within=_WITHIN)
    except NooblyError as error:
        return _finding(service, name, instance, State.DOWN, error=f"{error.code}: {error.message}")
    except TimeoutError:
        return _finding(service, name, instance, State.DOWN, error=f"deadline_exceeded: not open within {_WITHIN:g} s")
    return _finding(service, name, instance, report.state, seconds=report.seconds, error=report.error)


def _finding(
    service: str, name: str, instance: Instance, state: State, *, seconds: float | None = None, error: str | None
) -> Finding:
    scheme = instance.url.partition(":")[0]
    return Finding(
        service=service,
        instance=name,
        provider=scheme,
        state=state.value,
        milliseconds=None if seconds is None else round(seconds * 1000, 3),
        packages=_packages(service, scheme),
        error=error,
    )


def _packages(service: str, scheme: str) -> list[str]:
    extras = {listed.provider.extra for listed in SERVICES[service].registry.providers() if listed.scheme == scheme}
    needs = [re.fullmatch(r"([\w.-]+).*extra == ['\"](\w+)['\"]", need) for need in requires("noobly") or ()]
    return [_version(need[1]) for need in needs if need is not None and need[2] in extras]


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} is missing"


async def _show_progress(work: Sequence[asyncio.Task[Finding]]) -> None:
    """Show how far it is, where that takes over a second and somebody is looking."""
    done, pending = await asyncio.wait(work, timeout=_QUIET)
    if not pending or not sys.stderr.isatty():
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("connecting", total=len(work), completed=len(done))
        for finished in asyncio.as_completed(pending):
            await finished
            progress.advance(bar)
