"""The next iteration of a job that one of BullMQ's schedulers has made, which whoever claims the one before adds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from noobly.clients.redis import RedisClient, RedisReplyError
from noobly.working.providers._bullmq_options import Fields
from noobly.working.providers._bullmq_scripts import BullQueue, packed

_log = logging.getLogger("noobly.working")

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
    "@minutely": "* * * * *",
    "@secondly": "* * * * * *",
    "@weekdays": "0 0 * * 1-5",
    "@weekends": "0 0 * * 0,6",
}
"""What the library knows that reads patterns in Node (https://github.com/harrisiirak/cron-parser)."""

_UNKNOWN = (CronSimError, msgspec.MsgspecError, ValueError, TypeError, KeyError, OverflowError, OSError)
"""What reading a scheduler's options, its pattern and its time zone raises."""


class _Repeat(msgspec.Struct, frozen=True, rename="camel"):
    """How a scheduler repeats; times in milliseconds, since the epoch where they are points."""

    every: float | None = None
    pattern: str | None = None
    tz: str | None = None
    limit: int | None = None
    count: int = 0
    start_date: float = 0.0
    end_date: float | None = None


_read = msgspec.json.Decoder(dict[str, Any]).decode


async def follow(client: RedisClient, queue: BullQueue, raw: str, fields: Fields, now: int) -> None:
    """Add the iteration that follows a claimed one, unless the scheduler has ended or has one already.

    Args:
        client: The connection.
        queue: The job's queue.
        raw: The job's stored id.
        fields: The claimed job.
        now: Milliseconds since the epoch.
    """
    scheduler = fields[b"rjk"].decode()
    try:
        options = _read(fields.get(b"opts", b"{}"))
        repeat = msgspec.convert(options.get("repeat") or {}, _Repeat, strict=False)
        following = _next(repeat, max(now, int(options.get("prevMillis") or 0)), now)
    except _UNKNOWN as error:
        _log.error("scheduler %r of queue %r ends here, for its next time is unknown: %s", scheduler, queue.name, error)
        return
    if following is None or not await client.execute("HEXISTS", queue.key(f"repeat:{scheduler}"), "ic"):
        return  # It has ended; or it is of a release of BullMQ before there were schedulers.
    merged = _merged(options, repeat, scheduler, following, now)
    command = queue.command(
        *("updateJobScheduler", following, scheduler, fields.get(b"data", b"{}"), packed(merged), now, queue.base, raw),
        JOB=raw,
    )
    try:
        await client.execute(*command)
    except RedisReplyError as error:
        _log.error("scheduler %r of queue %r ends here, for BullMQ refuses it: %s", scheduler, queue.name, error)


def _next(repeat: _Repeat, base: int, now: int) -> int | None:
    """Return when the next iteration runs; of a fixed interval only whether, for BullMQ's script computes it."""
    if repeat.limit is not None and repeat.count + 1 > repeat.limit:
        return None
    if repeat.end_date is not None and now > repeat.end_date:
        return None
    if repeat.every:
        return base
    if not repeat.pattern:
        raise ValueError("it has neither an interval nor a pattern")
    found = _after(repeat.pattern, repeat.tz, max(base, int(repeat.start_date)) / 1000)
    return found if found is not None and (repeat.end_date is None or found <= repeat.end_date) else None


def _after(pattern: str, tz: str | None, time: float) -> int | None:
    """Return the first time after a point that a pattern of five fields, or of six with seconds, names."""
    fields = _ALIASES.get(pattern, pattern).replace("?", "*")
    # Without a zone it is the machine's own, as in Node; only times without one follow its changes over the year.
    begin = datetime.fromtimestamp(time, ZoneInfo(tz) if tz else None)
    found = next(CronSim(fields, begin), None)
    return None if found is None else round(found.timestamp() * 1000)


def _merged(options: Mapping[str, Any], repeat: _Repeat, scheduler: str, following: int, now: int) -> dict[str, object]:
    """Return the options of the next iteration, as Node writes them."""
    repeated = {**options["repeat"], "count": repeat.count + 1}
    merged = {**options, "timestamp": now, "repeatJobKey": scheduler, "repeat": repeated}
    if not repeat.every:
        merged["prevMillis"] = following
    return merged
