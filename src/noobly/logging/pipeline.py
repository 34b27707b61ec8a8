"""The way of a record from the log call to the store.

A caller only checks the level, takes a snapshot and puts it in a bounded queue. One writer, a task on the service's
event loop, encodes and redacts what waits, in short slices, and hands batches to the store. A writer thread was
measured too: it doubles the CPU time of a record, for the two threads then contend for the interpreter, and requests
wait no less for it.
"""

from __future__ import annotations

import asyncio
import atexit
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from contextvars import ContextVar

import msgspec
from opentelemetry.context import Context as TraceContext
from opentelemetry.context import get_current as current_trace

from noobly.core.correlation import Context, Ring, current
from noobly.core.meter import Rows
from noobly.core.scope import Scope
from noobly.logging.assembly import Assembler, Item, Source
from noobly.logging.backlog import Backlog
from noobly.logging.delivery import Delivery, Store
from noobly.logging.driver import Line
from noobly.logging.events import Dropped
from noobly.logging.formats import encode, level_of, severity
from noobly.logging.levels import Levels
from noobly.logging.options import LogsOptions
from noobly.logging.parting import parting
from noobly.logging.plain import PLAIN, shown
from noobly.logging.record import Level
from noobly.logging.redaction import Redactor
from noobly.logging.sampling import Sampler

_SLICE = 128
"""Records that are encoded at once; between slices the loop is free for others."""
_FULL = 256
"""Records that are written without waiting for more."""
_PATIENCE = 16
"""How many times larger batches may grow while records come faster than they are stored."""

_plain = PLAIN.issuperset

WRITING: ContextVar[bool] = ContextVar("noobly_logging_writing", default=False)
"""Whether a writer is at work: what its store logs must not become records, or there would be no end of them."""


class Pipeline:
    """Takes records from any thread and has them stored.

    Args:
        scope: The instance; its clock tells the time of records.
        options: The options of logging.
        store: Stores a batch.

    Attributes:
        levels: The loggers and their levels.
        assembler: Makes lines.
        delivery: Takes lines to the store.
        patience: Seconds that closing takes at most.
    """

    def __init__(self, scope: Scope, options: LogsOptions, store: Store) -> None:
        self._scope = scope
        self._options = options
        self._now = scope.environment.clock.time
        self._redactor = Redactor(options.redact_keys)
        self.levels = Levels(severity(options.level), options.service)
        self.assembler = Assembler(self._redactor)
        self.delivery = Delivery(scope, options, store)
        self._own = self.levels.source("noobly.logging")
        self._sampler = Sampler(options.sample_first, options.sample_every) if options.sample_first else None
        self._loop = asyncio.get_running_loop()
        self._backlog = Backlog(options, self._call, self._spill)
        self._add = self._backlog.add
        self._waiting, self._due = asyncio.Event(), asyncio.Event()
        self._drains: list[tuple[int, asyncio.Future[None]]] = []
        self._written = self._inflight = 0
        self._lost: Counter[str] = Counter()
        self._closing = False
        self._process = os.getpid()
        self._ends = ExitStack()
        self.patience = options.close_timeout
        self._measure()
        self._task = self._loop.create_task(self._run(), name=f"logging writer {scope.instance}")

    def put(
        self,
        severity: int,
        message: str,
        attributes: dict[str, object],
        source: Source,
        error: BaseException | None = None,
        at: float | None = None,
    ) -> None:
        """Take a record in; never raises.

        Args:
            severity: The level's number.
            message: What happened.
            attributes: What belongs to it by name; the dict is the pipeline's from now on.
            source: Its logger.
            error: The exception that belongs to it.
            at: When it happened, in seconds since the epoch; now by default.
        """
        try:
            context = current()
            if context.attributes:
                attributes = {**context.attributes, **attributes}
            when = self._now() if at is None else at
            if type(message) is not str:
                message = shown(message)
            if self._sampler is not None and not self._sampler.keeps(severity, message, when):
                return
            kept = attributes if _plain(map(type, attributes.values())) else self._snapshot(attributes)
            told = None if error is None else self.assembler.exception(error)
            self._add((when, severity, message, kept, source, context, current_trace(), told))
        except Exception:  # noqa: BLE001 - a log call never raises, whatever it was given
            self._lost["failed"] += 1

    def hold(
        self,
        ring: Ring,
        severity: int,
        message: str,
        attributes: dict[str, object],
        source: Source,
        at: float | None = None,
    ) -> None:
        """Keep a record below the level for the case that its request fails; never raises."""
        try:
            context, when = current(), self._now() if at is None else at
            kept = self._snapshot({**context.attributes, **attributes})
            ring.keep(self._add, (when, severity, shown(message), kept, source, context, current_trace(), None))
        except Exception:  # noqa: BLE001 - a log call never raises, whatever it was given
            self._lost["failed"] += 1

    async def drain(self, within: float) -> bool:
        """Have all stored that was put before; return whether that was done in time.

        Args:
            within: Seconds to wait.
        """
        waiting = self._inflight + len(self._backlog)
        if not waiting or self._task.done():
            return not waiting
        done = self._loop.create_future()
        self._drains.append((self._written + waiting, done))
        self._woken(due=True)
        finished, _ = await asyncio.wait({done}, timeout=within)
        return bool(finished)

    async def close(self) -> None:
        """Store what waits, for ``close_timeout`` seconds at most; the rest is spilled. Later log calls do nothing."""
        self.levels.silence()
        self._closing = self.delivery.hurried = True
        self._woken(due=True)
        try:
            await asyncio.wait({self._task}, timeout=self._options.close_timeout)
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self.delivery.close()
            self.rescue()
            self._ends.close()

    async def _run(self) -> None:
        WRITING.set(True)
        while len(self._backlog) or not self._closing:
            await self._until_due()
            self._due.clear()
            await self._write(_PATIENCE if self.delivery.slow or len(self._backlog) > 2 * _FULL else 1)
            self._settle()

    async def _until_due(self) -> None:
        if not len(self._backlog) and not self._closing:
            self._waiting.clear()
            self._backlog.call_at(0)
            # A record that came in before that line has called nobody.
            if not len(self._backlog):
                await self._waiting.wait()
        self._backlog.call_at(_FULL)
        if len(self._backlog) >= _FULL or self._closing or self._drains:
            return
        timer = self._loop.call_later(self._options.linger, self._due.set)
        await self._due.wait()
        timer.cancel()

    async def _write(self, times: int) -> None:
        lines, most = self._lines(self._reports()), times * _FULL
        while most > 0 and (items := self._backlog.take(_SLICE)):
            most -= len(items)
            self._inflight += len(items)
            lines += self._lines(items)
            await asyncio.sleep(0)
        for batch in _batches(lines, times * self._options.batch_bytes):
            await self.delivery.deliver(batch)
        self._written += self._inflight
        self._inflight = 0

    def _lines(self, items: Sequence[Item]) -> list[Line]:
        try:
            return self.assembler.lines(items)
        except Exception:  # noqa: BLE001 - a record that cannot be written must neither end the writer nor take others along
            if len(items) > 1:
                return [line for item in items for line in self._lines([item])]
            self._lost["failed"] += 1
            return []

    def _reports(self) -> list[Item]:
        """Return records about records that are not there."""
        at, reports = self._now(), list[Item]()
        lost = self._backlog.lost()
        if lost:
            self._lost["overflow"] += lost
            scope = self._scope
            scope.environment.bus.emit(Dropped(scope.service, scope.instance, lost, "overflow"))
            reports.append(self._report(at, Level.WARN, f"{lost} log records were dropped", {"dropped": lost}))
        for level, message, count in self._sampler.summary(at) if self._sampler else ():
            self._lost["sampling"] += count
            reports.append(
                self._report(at, level, f"{message} ({count} more left out by sampling)", {"left_out": count})
            )
        return reports

    def _report(self, at: float, level: int, message: str, attributes: dict[str, object]) -> Item:
        return (at, level, message, attributes, self._own, Context(), TraceContext(), None)

    def _settle(self) -> None:
        idle = not len(self._backlog)
        waiting, self._drains = self._drains, []
        for goal, done in waiting:
            if not idle and self._written < goal:
                self._drains.append((goal, done))
            elif not done.done():
                done.set_result(None)

    def _call(self, due: bool) -> None:
        try:
            self._loop.call_soon_threadsafe(self._woken, due)
        except RuntimeError:
            return  # The loop has ended; what waits is spilled at the end of the process.

    def _woken(self, due: bool) -> None:
        self._waiting.set()
        if due:
            self._due.set()

    def _snapshot(self, attributes: dict[str, object]) -> msgspec.Raw:
        return msgspec.Raw(encode(self._redactor.clean(attributes)))

    def _spill(self, items: Sequence[Item]) -> None:
        self.delivery.spill(self._lines(items))

    def rescue(self) -> None:
        """Spill what nobody will write any more; a forked process leaves its parent's records alone."""
        if os.getpid() == self._process:
            while items := self._backlog.take(_SLICE):
                self._spill(items)

    def _measure(self) -> None:
        meter, leave = self._scope.environment.meter, self._ends.callback
        atexit.register(self.rescue)
        leave(atexit.unregister, self.rescue)
        self._ends.enter_context(parting(self))
        labels = ("instance",)
        leave(meter.tallies("noobly_log_records", "Records stored.", (*labels, "level"), self._counted))
        leave(meter.tallies("noobly_log_lost", "Records not stored.", (*labels, "reason"), self._missed))
        leave(meter.tallies("noobly_log_returned", "Records stored that were spilled before.", labels, self._returned))
        leave(meter.tallies("noobly_log_redactions", "Values redacted.", labels, self._redacted))

    def _counted(self) -> Rows:
        counts = self.delivery.counts.copy()
        return [((self._scope.instance, level_of(number)), count) for number, count in counts.items()]

    def _missed(self) -> Rows:
        lost = {**self._lost, "spilled": self.delivery.spilled}
        return [((self._scope.instance, reason), count) for reason, count in lost.items()]

    def _returned(self) -> Rows:
        return [((self._scope.instance,), self.delivery.returned)]

    def _redacted(self) -> Rows:
        return [((self._scope.instance,), self._redactor.count)]


def _batches(lines: Sequence[Line], limit: int) -> Iterator[Sequence[Line]]:
    """Yield lines in batches of about so many bytes."""
    if lines and sum([len(line.data) for line in lines]) < limit:
        yield lines
        return
    begin = size = 0
    for at, line in enumerate(lines):
        size += len(line.data)
        if size >= limit:
            yield lines[begin : at + 1]
            begin, size = at + 1, 0
    if begin < len(lines):
        yield lines[begin:]
