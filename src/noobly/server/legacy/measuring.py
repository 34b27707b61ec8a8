"""The measuring routes of nooblyjs-core."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from noobly.app import Noobly
from noobly.core.errors import InvalidArgument
from noobly.server.legacy.shapes import endpoint, iso, json, json_body, ok
from noobly.server.routes import Access, Endpoint, Handler, Open

READ, WRITE = Access("measuring", "read"), Access("measuring", "write")
_LISTED = 100_000
_MILLISECOND = 0.001
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""What both JavaScript and Python read as the same number; Python's own reading also takes ``1_0``."""

_SHORT = re.compile(r"\d{4}(-\d\d)?")

Period = tuple[str, float, float]
"""A metric's name, and the half-open range in seconds that holds both ends of the period."""


class Measured(msgspec.Struct, frozen=True):
    """One row of ``list``."""

    value: float
    timestamp: str


def endpoints(noobly: Noobly) -> Iterator[Endpoint]:
    """Yield add, list, total, average and status over the default metrics."""
    metrics = noobly.measuring

    async def add(request: Request, texts: tuple[str, ...]) -> Response:
        name, value = _measurement(await json_body(request))
        await metrics.add(name, value)
        return ok()

    async def listing(period: Period) -> object:
        found = await metrics.list(*period, limit=_LISTED)
        return [Measured(one.value, iso(one.at)) for one in found.measurements]

    async def total(period: Period) -> object:
        return (await metrics.total(*period)).value

    async def average(period: Period) -> object:
        return (await metrics.average(*period)).value or 0

    async def status(request: Request, texts: tuple[str, ...]) -> Response:
        return json("measuring api running")

    yield endpoint("measuring", "POST", "add", WRITE, add)
    yield endpoint("measuring", "GET", "list", READ, _over(listing), segments=3)
    yield endpoint("measuring", "GET", "total", READ, _over(total), segments=3)
    yield endpoint("measuring", "GET", "average", READ, _over(average), segments=3)
    yield endpoint("measuring", "GET", "status", Open.EVERYBODY, status)


def _over(answer: Callable[[Period], Awaitable[object]]) -> Handler:
    """Return a handler for a period: metric, from and to as the last three segments of the path."""

    async def handler(request: Request, texts: tuple[str, ...]) -> Response:
        name, first, last = texts
        # Both ends belong to it, and its times have milliseconds.
        return json(await answer((name, _instant(first, "from"), _instant(last, "to") + _MILLISECOND)))

    return handler


def _measurement(body: dict[str, object] | list[object]) -> tuple[str, float]:
    sent = body if isinstance(body, dict) else {}
    name = sent.get("metric")
    if not isinstance(name, str) or not name.strip():
        raise InvalidArgument("Missing metric")
    return name, _number(sent.get("value"))


def _number(value: object) -> float:
    """Return a number, also one that is written as text, as the original takes it."""
    try:
        number = _read(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidArgument("Missing or invalid value: it must be a finite number")
    return number


def _read(value: object) -> float:
    if isinstance(value, str):
        return float(value) if _DECIMAL.fullmatch(value.strip()) else math.nan
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _instant(text: str, name: str) -> float:
    """Return a date or an ISO 8601 time as seconds since the epoch, cut to milliseconds; without a zone it is UTC."""
    whole = f"{text}-01-01"[:10] if _SHORT.fullmatch(text) else text
    try:
        read = datetime.fromisoformat(whole)
        cut = read.replace(microsecond=read.microsecond // 1000 * 1000, tzinfo=read.tzinfo or UTC)
        return cut.timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"Invalid {name} date: {text!r:.40} is neither a date nor an ISO 8601 time") from error
