"""The memory provider: this process only, bounded by jobs and bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec

from noobly.core.checks import Limits
from noobly.core.config import Config
from noobly.core.errors import RateLimited
from noobly.core.scope import Environment
from noobly.core.tally import Tally
from noobly.working.driver import (
    FINAL,
    Added,
    Beat,
    Bounds,
    Claim,
    Claimed,
    Hold,
    JobRecord,
    NewJob,
    Outcome,
    Retention,
    State,
)
from noobly.working.providers._flows import Place, known_parents, parent_of
from noobly.working.providers._stored import Stored
from noobly.working.providers._table import Table

K = TypeVar("K")

_OVERHEAD = 1000
"""Bytes that Python spends on a job besides what users put into it."""


class MemoryConfig(Config, frozen=True, kw_only=True):
    """The options of the memory provider.

    Args:
        max_jobs: Jobs it holds, of all queues and ended ones included; further ones are refused.
        max_bytes: Bytes it holds, the interpreter's overhead included; what running jobs report and return is stored
            all the same, and counts.
    """

    max_jobs: Annotated[int, msgspec.Meta(gt=0)] = 1_000_000
    max_bytes: Annotated[int, msgspec.Meta(gt=0)] = 2 * 1024 * 1024 * 1024


class MemoryJobs:
    """Jobs in dictionaries and heaps, lost with the process."""

    Config = MemoryConfig
    scheme = "memory"
    in_process = True
    apart = False

    def __init__(self, config: MemoryConfig, environment: Environment) -> None:
        self.limits = Limits(value_bytes=config.max_bytes // 2)
        self._config = config
        self._now = environment.clock.monotonic
        self._wall = environment.clock.time
        self._tables: dict[str, Table] = {}
        self._tally = Tally()
        self._orphans: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._watching: dict[tuple[str, str], list[asyncio.Future[None]]] = {}

    async def add(self, jobs: Sequence[NewJob], /) -> list[Added]:
        """See the protocol.

        Raises:
            RateLimited: There is no room for all of them; none is stored.
        """
        self._check_room(jobs)
        now = self._now()
        there = known_parents(jobs, lambda new: self._table(new.queue).known(new, now))
        added = [self._add(new, now, there) for new in jobs]
        for new, found in zip(jobs, added, strict=True):
            if found.duplicate and new.parent is not None and parent_of(new) not in there:
                self._adopt(new, found.id, now)
        for queue in {new.queue for new in jobs}:
            self._wake(queue)
        return added

    def _check_room(self, jobs: Sequence[NewJob]) -> None:
        held = self._tally.count
        size = self._tally.bytes + held * _OVERHEAD
        more = sum(len(new.data) + _OVERHEAD for new in jobs)
        if held + len(jobs) > self._config.max_jobs or size + more > self._config.max_bytes:
            raise RateLimited(f"memory is full with {held} jobs; sweep, or raise `max_jobs` or `max_bytes`")

    def _add(self, new: NewJob, now: float, there: frozenset[Place]) -> Added:
        if parent_of(new) in there:
            return Added(new.id, duplicate=True)
        table = self._made(new.queue)
        known = table.known(new, now)
        if known is not None:
            return known
        stored = table.add(new, now)
        stored.children = self._orphans.pop((new.queue, new.id), [])
        if new.parent is not None:
            self._orphans.setdefault((new.parent_queue, new.parent), []).append((new.queue, new.id))
        return Added(new.id)

    def _adopt(self, new: NewJob, id: str, now: float) -> None:
        """Let a new parent wait for a job that was there before, unless that is run before another one or is gone."""
        child = self._table(new.queue).jobs.get(id)
        parent = self._table(new.parent_queue).jobs[new.parent or ""]
        if child is None or child.record.parent is not None:
            self._table(new.parent_queue).child_ended(parent.record.id, now)
            return
        child.set(parent=new.parent, parent_queue=new.parent_queue)
        child.lenient = new.lenient
        parent.children.append((new.queue, id))
        if child.record.state in FINAL:
            self._tell(child, now)

    async def claim(self, queue: str, claim: Claim, /) -> list[Claimed]:
        """See the protocol."""
        until = asyncio.get_running_loop().time() + claim.wait
        while not (found := list(self._table(queue).claim(claim, self._now()))):
            if not await self._arrival(queue, claim.bounds, until):
                return []
        return found

    async def _arrival(self, queue: str, bounds: Bounds, until: float) -> bool:
        """Wait until there may be a job; false where the time is over."""
        left = until - asyncio.get_running_loop().time()
        if left <= 0:
            return False
        now = self._now()
        due = self._table(queue).next_due(bounds, now)
        pause = left if due is None else min(left, max(0.001, due - now))
        await _wait(self._waiting, queue, pause)
        return True

    async def beat(self, queue: str, holds: Sequence[Hold], lease: float, /) -> list[Beat]:
        """See the protocol."""
        table, now = self._table(queue), self._now()
        return [table.beat(hold, lease, now) for hold in holds]

    async def settle(self, queue: str, outcomes: Sequence[Outcome], /) -> list[bool]:
        """See the protocol."""
        table, now = self._table(queue), self._now()
        settled = [table.settle(outcome, now) for outcome in outcomes]
        for stored in settled:
            if stored is not None and stored.record.state in FINAL:
                self._tell(stored, now)
        self._wake(queue)
        return [stored is not None for stored in settled]

    def _tell(self, stored: Stored, now: float) -> None:
        """Tell those who wait for a job, and the job that runs after it, that it has ended."""
        record = stored.record
        _release(self._watching.get((record.queue, record.id), ()))
        if record.parent is None:
            return
        table = self._table(record.parent_queue)
        parent = table.jobs.get(record.parent)
        if record.state is State.SUCCEEDED or stored.lenient:
            table.child_ended(record.parent, now)
            self._wake(record.parent_queue)
        elif parent is not None and parent.record.state not in FINAL and parent.record.pending > 0:
            reason = f"it runs after job {record.id}, which ended as {record.state.value}: {record.error}"
            table.end(parent, State.FAILED, now, error=reason)
            self._tell(parent, now)

    async def report(self, queue: str, id: str, progress: bytes, lines: Sequence[str], /) -> bool:
        """See the protocol."""
        return self._table(queue).report(id, progress, lines)

    async def wait(self, queue: str, id: str, wait: float, /) -> JobRecord | None:
        """See the protocol."""
        table = self._table(queue)
        table.wake(self._now())
        stored = table.jobs.get(id)
        if stored is None or stored.record.state in FINAL or not wait:
            return stored.record if stored else None
        await _wait(self._watching, (queue, id), wait)
        return await self.wait(queue, id, 0.0)

    async def logs(self, queue: str, id: str, /) -> list[str]:
        """See the protocol."""
        stored = self._table(queue).jobs.get(id)
        return list(stored.lines) if stored else []

    async def children(self, queue: str, id: str, /) -> list[JobRecord]:
        """See the protocol."""
        stored = self._table(queue).jobs.get(id)
        found = [self._table(place).jobs.get(child) for place, child in (stored.children if stored else ())]
        return [child.record for child in found if child is not None]

    async def page(self, queue: str, states: Sequence[State], skip: int, most: int, /) -> list[JobRecord]:
        """See the protocol."""
        self._table(queue).wake(self._now())
        return self._table(queue).page(states, skip, most)

    async def cancel(self, queue: str, id: str, /) -> State | None:
        """See the protocol."""
        now, table = self._now(), self._table(queue)
        if (ended := table.cancel(id, now)) is not None:
            self._tell(ended, now)
        stored = table.jobs.get(id)
        return stored.record.state if stored else None

    async def rerun(self, queue: str, id: str, /) -> bool:
        """See the protocol."""
        stored = self._table(queue).jobs.get(id)
        had_ended = stored is not None and stored.record.state in FINAL
        queued = self._table(queue).rerun(id, self._now())
        if queued and had_ended and stored is not None and stored.record.parent is not None:
            self._table(stored.record.parent_queue).wait_again(stored.record.parent)
        self._wake(queue)
        return queued

    async def remove(self, queue: str, id: str, /) -> bool:
        """See the protocol."""
        table = self._table(queue)
        stored = table.jobs.get(id)
        removed = table.remove(id)
        if removed and stored is not None and stored.record.state not in FINAL and stored.record.parent is not None:
            self._table(stored.record.parent_queue).child_ended(stored.record.parent, self._now())
            self._wake(stored.record.parent_queue)
        return removed

    async def counts(self, queue: str, /) -> dict[State, int]:
        """See the protocol."""
        table = self._table(queue)
        table.wake(self._now())
        return {state: len(jobs) for state, jobs in table.states.items() if jobs}

    async def queues(self) -> list[str]:
        """See the protocol."""
        return sorted(queue for queue, table in self._tables.items() if table.jobs)[:10_000]

    async def sweep(self, queue: str, retention: Retention, /) -> int:
        """See the protocol."""
        table, now = self._table(queue), self._now()
        for stored in table.expire(now):
            self._tell(stored, now)
        return table.sweep(retention, now, self._wanted)

    def _wanted(self, record: JobRecord) -> bool:
        """Return whether a job that runs after this one has not ended, and may want to see it."""
        parent = self._table(record.parent_queue).jobs.get(record.parent) if record.parent is not None else None
        return parent is not None and parent.record.state not in FINAL

    async def pause(self, queue: str, /) -> None:
        """See the protocol."""
        self._made(queue).paused = True

    async def resume(self, queue: str, /) -> None:
        """See the protocol."""
        self._table(queue).paused = False
        self._wake(queue)

    async def paused(self, queue: str, /) -> bool:
        """See the protocol."""
        return self._table(queue).paused

    async def health(self) -> None:
        """See the protocol; memory is always there."""

    def _made(self, queue: str) -> Table:
        table = self._tables.get(queue)
        if table is None:
            table = self._tables[queue] = Table(self._wall, self._tally)
        return table

    def _table(self, queue: str) -> Table:
        return self._tables.get(queue) or Table(self._wall)

    def _wake(self, queue: str) -> None:
        _release(self._waiting.get(queue, ()))


async def _wait(waiting: dict[K, list[asyncio.Future[None]]], key: K, pause: float) -> None:
    """Wait until somebody releases the key, or the pause is over."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    waiting.setdefault(key, []).append(future)
    timer = loop.call_later(pause, _release, (future,))
    try:
        await future
    finally:
        timer.cancel()
        waiting[key].remove(future)
        if not waiting[key]:
            del waiting[key]


def _release(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
