"""How commands reach an instance of a service: where the settings keep it, or on a server that runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

from cyclopts import Parameter

if TYPE_CHECKING:
    from noobly.core.lifecycle import Portable
    from noobly.layers.opening import Request

P = TypeVar("P", bound="Portable")

Config = Annotated[Path | None, Parameter(help="The settings file; ./noobly.toml by default.")]
Url = Annotated[str | None, Parameter(help="A store or a server; by default what the settings say.")]
Key = Annotated[str | None, Parameter(help="The server's API key, as env:NAME or file:PATH.")]
At = Annotated[str, Parameter(help="The instance.")]
Json = Annotated[bool, Parameter(help="Print JSON.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Place:
    """Which instance a command means: the options ``--url``, ``--key``, ``--at`` and ``--config``."""

    url: Url = None
    key: Key = None
    at: At = "default"
    config: Config = None


DEFAULT = Place()

SERVERS = ("remote", "api", "http", "https")
"""The schemes of servers of the suite."""

_IN_MEMORY = "memory"


def reach(service: str, place: Place, *, patience: float | None = None) -> Request:
    """Return how to reach an instance; what lives in a process's memory is reached on the server of the settings.

    Args:
        service: The service's name.
        place: The instance.
        patience: Seconds that one call to a server may take, where that is longer than usual.
    """
    from noobly.layers.opening import Request
    from noobly.settings import Settings

    settings, at = Settings.read(place.config), place.at
    instance = settings.instances(service).get(at)
    keyed: dict[str, object] = {} if place.key is None else {"key": place.key}
    if patience is not None:
        keyed["timeout"] = patience
    if place.url is not None:
        served = place.url.partition(":")[0] in SERVERS
        return Request(url=place.url, options={"at": at, **keyed} if served else {}, instance=at)
    if instance is None or instance.url.partition(":")[0] == _IN_MEMORY:
        server = f"http://{settings.server.host}:{settings.server.port}"
        return Request(url=server, options={"at": at, **keyed})
    return Request(url=instance.url, options={**instance.options, **keyed}, instance=at)


def run(service: str, request: Request, work: Callable[[P], Awaitable[None]]) -> None:
    """Open an instance and do some work with it."""
    from noobly.core.errors import Unavailable
    from noobly.core.scope import Environment
    from noobly.services import SERVICES

    async def opened() -> None:
        async with AsyncExitStack() as stack:
            try:
                live = await SERVICES[service].enter(stack, request, Environment())
                await work(cast(P, live.portable))
            except Unavailable as error:
                if request.url.partition(":")[0] in SERVERS:
                    error.add_note("start `noobly serve`, or name a store or a server with --url or in noobly.toml")
                raise

    try:
        asyncio.run(opened())
    except KeyboardInterrupt:
        return
