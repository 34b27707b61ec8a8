"""``noobly logs``: follow, search and steer the logs of a server, or search those of the settings."""

from __future__ import annotations

import sys
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from noobly.cli_reach import DEFAULT, SERVERS, Place, run
from noobly.cli_show import write

if TYPE_CHECKING:
    from noobly.core.streams import Skipped
    from noobly.layers.opening import Request
    from noobly.logging import Logs, Record
    from noobly.settings import Instance, Settings

Json = Annotated[bool, Parameter(help="Print JSON lines.")]
Text = Annotated[str, Parameter(help="Text that the message contains.")]
AtLeast = Annotated[str, Parameter(name="--level", help="The least level, such as warn.")]
Attributes = Annotated[tuple[str, ...], Parameter(name="--where", help="An attribute as name=value; may be repeated.")]
Moment = Annotated[datetime | None, Parameter(help="A time, such as 2026-01-31T12:00:00; without a zone, local.")]


LevelName = Literal["trace", "debug", "info", "warn", "error", "fatal"]

_PASSIVE = {"capture": False}
_PAGE = 1000

logs_app = App(name="logs", help="Follow, search and steer logs.")


@logs_app.command
def tail(
    text: Text = "",
    /,
    *,
    level: AtLeast = "",
    where: Attributes = (),
    place: Place = DEFAULT,
    json: Json = False,
) -> None:
    """Print records as a running server stores them, until Ctrl-C."""

    async def follow(logs: Logs) -> None:
        async with aclosing(logs.tail(text, at_least=level, attributes=where)) as records:
            async for record in records:
                _print(record, json=json)

    run("logging", _served(place), follow)


@logs_app.command
def search(
    text: Text = "",
    /,
    *,
    level: AtLeast = "",
    where: Attributes = (),
    since: Moment = None,
    until: Moment = None,
    limit: Annotated[int, Parameter(help="How many records at most.")] = 100,
    place: Place = DEFAULT,
    json: Json = False,
) -> None:
    """Print stored records, the newest first."""
    from noobly.logging.query import pairs

    async def find(logs: Logs) -> None:
        after, left = None, limit
        while left > 0:
            page = await logs.search(
                text,
                at_least=level,
                since=_aware(since),
                until=_aware(until),
                attributes=pairs(where),
                after=after,
                limit=min(left, _PAGE),
            )
            for record in page.records:
                _print(record, json=json)
            after, left = page.after, left - len(page.records)
            if after is None:
                return

    run("logging", _stored(place), find)


@logs_app.command(name="level")
def set_level(
    level: Annotated[LevelName | None, Parameter(help="The new level; without, the present one is printed.")] = None,
    /,
    *,
    logger: Annotated[str, Parameter(help="Only this logger and those below it.")] = "",
    place: Place = DEFAULT,
    json: Json = False,
) -> None:
    """Print or set the least level that a running server keeps; it holds until the server ends."""
    from msgspec import json as encoding

    async def change(logs: Logs) -> None:
        if level is not None:
            await logs.set_level(level, logger=logger)
        kept = await logs.level(logger)
        write(encoding.encode({"logger": logger, "level": kept}).decode() if json else kept)

    run("logging", _served(place), change)


def _configured(place: Place) -> tuple[Settings, Instance | None]:
    from noobly.settings import Settings

    settings = Settings.read(place.config)
    return settings, settings.instances("logging").get(place.at)


def _served(place: Place) -> Request:
    """Return how to reach the logs of a running server: the one that is named, configured, or configured here."""
    from noobly.layers.opening import Request

    settings, instance = _configured(place)
    if place.url is None and instance is not None and instance.url.partition(":")[0] in SERVERS:
        return Request(url=instance.url, options={**instance.options, **_PASSIVE, "spool": ""})
    server = place.url or f"http://{settings.server.host}:{settings.server.port}"
    options: dict[str, object] = {**_PASSIVE, "spool": "", "at": place.at}
    return Request(url=server, options=options if place.key is None else {**options, "key": place.key})


def _stored(place: Place) -> Request:
    """Return how to reach the logs that are to be searched: where the settings keep them, or on a running server."""
    from noobly.layers.opening import Request

    _, instance = _configured(place)
    if place.url is not None or instance is None or instance.url.partition(":")[0] in (*SERVERS, "memory"):
        return _served(place)
    return Request(url=instance.url, options={**instance.options, **_PASSIVE}, instance=place.at)


def _print(record: Record | Skipped, *, json: bool) -> None:
    from noobly.core.streams import Skipped

    if isinstance(record, Skipped):
        sys.stderr.write(f"noobly: {record.count} records are missing here; they came too fast\n")
    else:
        write(_shown(record, json=json))


def _shown(record: Record, *, json: bool) -> str:
    from noobly.logging.formats import encode, text

    return encode(record).decode() if json else text(record, colour=sys.stdout.isatty())


def _aware(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone()
