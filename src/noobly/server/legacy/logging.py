"""The logging routes of nooblyjs-core."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from noobly.app import Noobly
from noobly.core.errors import InvalidArgument
from noobly.logging import Level, Logs, Record
from noobly.server.legacy.shapes import endpoint, json, json_body, ok
from noobly.server.routes import Access, Endpoint, Handler, Open

READ, WRITE = Access("logging", "read"), Access("logging", "write")
LISTED = 1000
_NAMES = ("INFO", "WARN", "ERROR", "LOG")


class Shown(msgspec.Struct, frozen=True):
    """One record as the original shows it: its message is the whole line."""

    level: str
    message: str
    timestamp: str
    captured_at: int = msgspec.field(name="capturedAt")


class Listing(msgspec.Struct, frozen=True):
    """The answer of ``logs``; ``level`` is what was asked for."""

    count: int
    level: str
    logs: list[Shown]


class Shares(msgspec.Struct, frozen=True):
    """The answer of ``stats``: the latest records by level, and their shares in percent."""

    total: int
    counts: Mapping[str, int]
    percentages: Mapping[str, float]


def endpoints(noobly: Noobly) -> Iterator[Endpoint]:
    """Yield info, warn, error, logs, stats and status over the default logs."""
    logs = noobly.logging

    async def listing(request: Request, texts: tuple[str, ...]) -> Response:
        wanted = _level(request)
        shown = [_shown(record) for record in await _latest(logs)]
        found = [one for one in shown if wanted in ("ALL", one.level)]
        return json(Listing(len(found), request.query_params.get("level") or "ALL", found))

    async def stats(request: Request, texts: tuple[str, ...]) -> Response:
        counted = Counter(_name(record) for record in await _latest(logs))
        total = counted.total()
        shares = {name: round(100 * counted[name] / total, 2) if total else 0.0 for name in _NAMES}
        return json(Shares(total, {name: counted[name] for name in _NAMES}, shares))

    async def status(request: Request, texts: tuple[str, ...]) -> Response:
        return json("logging api running")

    yield endpoint("logging", "POST", "info", WRITE, _writer(logs, Level.INFO))
    yield endpoint("logging", "POST", "warn", WRITE, _writer(logs, Level.WARN))
    yield endpoint("logging", "POST", "error", WRITE, _writer(logs, Level.ERROR))
    yield endpoint("logging", "GET", "logs", READ, listing)
    yield endpoint("logging", "GET", "stats", READ, stats)
    yield endpoint("logging", "GET", "status", Open.EVERYBODY, status)


def _writer(logs: Logs, level: Level) -> Handler:
    write = {Level.INFO: logs.info, Level.WARN: logs.warn, Level.ERROR: logs.error}[level]

    async def answer(request: Request, texts: tuple[str, ...]) -> Response:
        sent = await json_body(request)
        members = sent if isinstance(sent, dict) else {"message": sent}
        message = members.pop("message", "")
        # The original's clients send what belongs to a message as `meta`; others put it beside the message.
        meta = members.pop("meta", None)
        attributes = {**members, **(meta if isinstance(meta, dict) else {} if meta is None else {"meta": meta})}
        text = message if isinstance(message, str) else msgspec.json.encode(message).decode()
        write(text, **attributes)
        return ok()

    return answer


async def _latest(logs: Logs) -> list[Record]:
    found: list[Record] = []
    after: str | None = None
    while len(found) < LISTED:
        page = await logs.search(after=after, limit=LISTED - len(found))
        found += page.records
        after = page.after
        if after is None:
            break
    return found


def _level(request: Request) -> str:
    given = request.query_params.getlist("level")
    if len(given) > 1:
        raise InvalidArgument("level is given more than once")
    return given[0].upper() if given and given[0] else "ALL"


def _name(record: Record) -> str:
    """Return the level by the names that the original has: LOG is everything below INFO."""
    if record.severity_number >= Level.ERROR:
        return "ERROR"
    if record.severity_number >= Level.WARN:
        return "WARN"
    return "INFO" if record.severity_number >= Level.INFO else "LOG"


def _shown(record: Record) -> Shown:
    moment = datetime.fromisoformat(record.timestamp)
    stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    name = _name(record)
    part = "" if name == "LOG" else f"{name} - "
    message = f"{stamp} - {part}{platform.node()} - {record.message}"
    return Shown(name, message, stamp, round(moment.timestamp() * 1000))
