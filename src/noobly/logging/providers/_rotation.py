"""When a log file has been written to long enough: by its size, or by the calendar of a zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from noobly.core.errors import ConfigError

_SECOND = 1_000_000


class Period(Enum):
    """The stretch of time that one file holds."""

    NEVER = "never"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def zone(name: str) -> tzinfo | None:
    """Return the zone with an IANA name; None, the machine's own, for ``local``.

    Raises:
        ConfigError: There is no such zone.
    """
    if name == "local":
        return None
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(f"there is no time zone {name!r}; write UTC, local or a name like Europe/Berlin") from error


def began(at: int, period: Period, where: tzinfo | None) -> int:
    """Return when the period began that a moment lies in; both are microseconds since the epoch.

    Hours are counted as they pass, so the one that a zone repeats in autumn makes two files. Days begin at the zone's
    midnight, or where summer time leaves that out, with the first moment of the day.
    """
    if period is Period.NEVER:
        return 0
    moment = datetime.fromtimestamp(at // _SECOND, UTC).astimezone(where)
    hour = moment.replace(minute=0, second=0, microsecond=0)
    if period is Period.HOUR:
        return round((moment.timestamp() - (moment - hour).total_seconds()) * _SECOND)
    day = hour.replace(hour=0, fold=0)
    if period is Period.WEEK:
        day -= timedelta(days=day.weekday())
    elif period is Period.MONTH:
        day = day.replace(day=1)
    # What was reckoned above keeps the offset of the moment itself; a local time has the one of its own day.
    return round(_at_home(day, where).timestamp() * _SECOND)


def _at_home(day: datetime, where: tzinfo | None) -> datetime:
    return day.replace(tzinfo=None) if where is None else day.replace(tzinfo=where)
