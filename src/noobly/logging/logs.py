"""The logs that users hold."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime

from noobly.core.clock import Seconds, fresh_id, seconds
from noobly.core.errors import InvalidArgument
from noobly.core.events import Event
from noobly.core.public import public, public_stream
from noobly.core.scope import Scope
from noobly.core.streams import Skipped
from noobly.logging.driver import Count, Line, LogDriver, Query
from noobly.logging.entries import Entry, LogPage
from noobly.logging.events import LevelChanged, Purged, Searched
from noobly.logging.formats import NAMES, decode, encode, micros, severity, stamp
from noobly.logging.options import LevelName, LogsOptions
from noobly.logging.query import condition, pairs
from noobly.logging.record import Record
from noobly.logging.sugar import LogsSugar, Value
from noobly.logging.tailing import Tails

_FRESH = 1.0
"""Seconds that a search waits for this process's own records to be stored."""
_MOST_ENTRIES = 10_000


class Logs(LogsSugar):
    """Records of what happens, kept on any provider: ``logs.info("paid", order=7)``.

    Log calls are plain functions; what is searched, counted or changed is awaited. Each record carries the correlation
    id and what is bound by ``noobly.core.correlation.bind``, and the trace that is under way. Secrets are redacted
    before anything is stored.
    """

    service = "logging"

    def __init__(self, driver: LogDriver, scope: Scope, options: LogsOptions) -> None:
        self._driver = driver
        self._tails = Tails(driver)
        self._sink = self._store
        self._begin(scope, options)

    async def close(self) -> None:
        """Store what waits; what cannot be stored in time is spilled."""
        await self._end()
        self._tails.close()

    async def _store(self, batch: str, lines: Sequence[Line]) -> None:
        await self._driver.append(batch, lines)
        self._tails.wake()

    @public("POST", "records", permission="write")
    async def write(self, records: Sequence[Entry]) -> int:
        """Store records that were made elsewhere; return when they are stored.

        Args:
            records: The records; all or none of them are taken.

        Returns:
            How many were stored; those below the level of their logger are not.

        Raises:
            InvalidArgument: A record's level or timestamp is wrong, or there are more than 10,000.
        """
        if len(records) > _MOST_ENTRIES:
            raise InvalidArgument(f"{len(records)} records are too many for one call, which takes {_MOST_ENTRIES}")
        now = stamp(int(self.scope.environment.clock.time() * 1e6))
        levels = self._pipeline.levels
        wanted = [entry for entry in records if severity(entry.level) >= levels.of(entry.logger)]
        await self._keep(fresh_id(), [_line(self._record(entry, now)) for entry in wanted])
        return len(wanted)

    @public("POST", "batch", permission="write", idempotent=True)
    async def append(self, batch: str, lines: Sequence[Line]) -> None:
        """Store encoded records; a batch that was stored before is ignored. Remote instances send theirs so.

        Args:
            batch: The batch's id, 1 to 64 characters.
            lines: The records; they are redacted here as well.

        Raises:
            InvalidArgument: A line is not a record.
        """
        await self._keep(batch, lines)

    @public("POST", "search", permission="read", idempotent=True)
    async def search(
        self,
        text: str = "",
        *,
        level: str = "",
        at_least: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        attributes: Mapping[str, Value] | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> LogPage:
        """Return one page of records, newest first; ``search_all`` walks all pages.

        Args:
            text: Text that the message contains, letter case aside.
            level: Only this level.
            at_least: This level and those above.
            since: The earliest time, with a zone.
            until: The time before which they are, with a zone.
            attributes: Attributes with exactly these values; dotted names lead into objects, and ``logger``,
                ``service``, ``instance``, ``trace_id`` and ``correlation_id`` stand for the record's own members.
            after: The ``after`` of the page before.
            limit: Records of one page, 1 to 10,000.

        Raises:
            InvalidArgument: A level, time or cursor is wrong.
        """
        query = _query(text, level, at_least, since, until, attributes)
        await self._pipeline.drain(_FRESH)
        found = await self._driver.search(query, after, limit)
        self._emit(Searched(self.service, self.scope.instance, len(found.lines)))
        return LogPage([decode(line) for line in found.lines], found.after)

    @public_stream("GET", "tail", permission="read")
    async def tail(
        self, text: str = "", *, level: str = "", at_least: str = "", attributes: Sequence[str] = ()
    ) -> AsyncGenerator[Record | Skipped]:
        """Yield records as they are stored, from now on, by every process that shares the store.

        ``Skipped`` stands for those that came too fast.

        Args:
            text: As for ``search``.
            level: As for ``search``.
            at_least: As for ``search``.
            attributes: Attributes as ``name=value``; the value is JSON, or text where it is none.

        Raises:
            InvalidArgument: A level or an attribute is wrong.
        """
        meant = condition(_query(text, level, at_least, None, None, pairs(attributes)))
        async with aclosing(self._tails.read(meant)) as lines:
            async for line in lines:
                yield line if isinstance(line, Skipped) else decode(line)

    @public("POST", "counts", permission="read", idempotent=True)
    async def counts(
        self,
        text: str = "",
        *,
        bucket: Seconds = 3600.0,
        level: str = "",
        at_least: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        attributes: Mapping[str, Value] | None = None,
    ) -> list[Count]:
        """Return how many records there are of each level in each span of time, oldest first.

        Args:
            text: As for ``search``.
            bucket: Seconds of each span, which begin at multiples of it.
            level: As for ``search``.
            at_least: As for ``search``.
            since: As for ``search``.
            until: As for ``search``.
            attributes: As for ``search``.
        """
        width = max(1, round((seconds(bucket, "bucket") or 0.0) * 1e6))
        query = _query(text, level, at_least, since, until, attributes)
        await self._pipeline.drain(_FRESH)
        return await self._driver.counts(query, width)

    @public("GET", "level", permission="read")
    async def level(self, logger: str = "") -> str:
        """Return the least level that is kept, of one logger or of all that have none of their own."""
        return NAMES[self._pipeline.levels.of(logger)]

    @public("PUT", "level", permission="admin")
    async def set_level(self, level: LevelName, *, logger: str = "") -> None:
        """Set the least level that is kept, at once and until the process ends; the standard library's follow.

        Args:
            level: ``trace``, ``debug``, ``info``, ``warn``, ``error`` or ``fatal``.
            logger: A logger and those below it; empty for all, which also ends what was set for single ones.

        Raises:
            InvalidArgument: There is no such level.
        """
        self._pipeline.levels.change(severity(level), logger)
        self._emit(LevelChanged(self.service, self.scope.instance, level, logger))

    @public("POST", "purge", permission="admin", idempotent=True)
    async def purge(self, before: datetime) -> int:
        """Delete records older than a time, given with a zone; return how many there were."""
        count = await self._driver.purge(micros(before))
        self._emit(Purged(self.service, self.scope.instance, count))
        return count

    @public("POST", "flush", permission="write", idempotent=True)
    async def persist(self) -> None:
        """Return when all that was stored so far would survive the end of the process; see ``flush``."""
        await self._driver.flush()

    async def _keep(self, batch: str, lines: Sequence[Line]) -> None:
        admit = self._pipeline.assembler.admit
        kept = [admit(line) for line in lines]
        if kept:
            await self._driver.append(batch, kept)
            self._tails.wake()
            self._pipeline.delivery.count(kept)

    def _record(self, entry: Entry, now: str) -> Record:
        return Record(
            timestamp=entry.timestamp or now,
            level=entry.level,
            severity_number=severity(entry.level),
            message=entry.message,
            logger=entry.logger,
            service=self.options.service,
            trace_id=entry.trace_id,
            span_id=entry.span_id,
            correlation_id=entry.correlation_id,
            attributes=entry.attributes,
            exception=entry.exception,
        )

    def _emit(self, event: Event) -> None:
        self.scope.environment.bus.emit(event)


def _line(record: Record) -> Line:
    return Line(0, record.severity_number, encode(record))


def _query(
    text: str,
    level: str,
    at_least: str,
    since: datetime | None,
    until: datetime | None,
    attributes: Mapping[str, Value] | None,
) -> Query:
    if level:
        severity(level)
    return Query(
        since=None if since is None else micros(since),
        until=None if until is None else micros(until),
        severity=severity(at_least) if at_least else 0,
        level=level.lower(),
        text=text,
        attributes=dict(attributes or {}),
    )
