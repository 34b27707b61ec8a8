"""The SQLite provider: jobs in one file, which outlive their processes and which those of one machine share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import chain, starmap

from noobly.clients.sqlite_arrivals import Arrivals
from noobly.clients.sqlite_config import SqliteConfig, database
from noobly.clients.sqlite_rows import microseconds, seconds
from noobly.core.checks import Limits
from noobly.core.errors import NooblyError
from noobly.core.lifecycle import Tasks
from noobly.core.scope import Environment
from noobly.working.driver import (
    Added,
    Beat,
    Claim,
    Claimed,
    Hold,
    JobRecord,
    NewJob,
    Outcome,
    Retention,
    State,
    Verdict,
)
from noobly.working.providers import _sqlite_adding as adding
from noobly.working.providers import _sqlite_claiming as claiming
from noobly.working.providers import _sqlite_ended as ended
from noobly.working.providers import _sqlite_jobs as stored
from noobly.working.providers import _sqlite_rows as rows

_EVERYBODY = 1_000_000
"""More than may ever wait."""


class SqliteJobs:
    """Jobs in a file. Calls that come together are committed together, so they share one wait for the disk.

    Leases and delays are measured by the wall clock, for that is what processes have in common: one that is set forward
    ends them too early, and one that is set back too late, by as much as it was set.
    """

    Config = SqliteConfig
    scheme = "sqlite"
    # Other processes may hold the file and the disk may be full, so calls have a deadline and are tried again.
    in_process = False
    apart = True
    limits = Limits()

    def __init__(self, config: SqliteConfig, environment: Environment) -> None:
        self._wall = environment.clock.time
        self._database = database(config, rows.SCHEMA)
        self._tasks = Tasks()
        self._arrivals = Arrivals(
            config.path, self._database, lambda connection, asked: claiming.look(connection, asked, self._now())
        )

    def _now(self) -> int:
        return microseconds(self._wall())

    async def start(self, stack: AsyncExitStack) -> None:
        """Open the file, and watch it for what other processes do; see ``Database.start``."""
        await self._database.start(stack)
        await self._arrivals.start(stack)
        stack.push_async_callback(self._tasks.close)

    def classify(self, error: Exception) -> NooblyError | None:
        """Map what SQLite raises."""
        return self._database.classify(error)

    async def add(self, jobs: Sequence[NewJob], /) -> list[Added]:
        """See the protocol."""
        added = await self._database.write(lambda connection: adding.add(connection, jobs, self._now()))
        for queue in {new.queue for new in jobs}:
            self._arrivals.tell(f"q{queue}", len(jobs))
        return added

    async def claim(self, queue: str, claim: Claim, /) -> list[Claimed]:
        """See the protocol."""
        clock = asyncio.get_running_loop().time
        until = clock() + claim.wait
        while True:
            heard = self._arrivals.heard
            # A power failure ends all workers of this machine, so it may undo their leases.
            taken = await self._database.write_relaxed(
                lambda connection: claiming.claim(connection, queue, claim, self._now()),
                unclaimed=lambda taken: self._give_back(queue, taken.jobs),
            )
            left = until - clock()
            if taken.jobs or left <= 0:
                return taken.jobs
            due = left if taken.due is None else max(0.001, seconds(taken.due - self._now()))
            await self._arrivals.wait(f"q{queue}", heard, min(left, due))

    def _give_back(self, queue: str, claimed: Sequence[Claimed]) -> None:
        """Let others have what was claimed for a worker that was cancelled meanwhile."""
        if claimed:
            released = [Outcome(hold=Hold(one.job.id, one.token), verdict=Verdict.RELEASE) for one in claimed]
            self._tasks.spawn(self.settle(queue, released), f"giving back to queue {queue!r}")

    async def beat(self, queue: str, holds: Sequence[Hold], lease: float, /) -> list[Beat]:
        """See the protocol."""
        return await self._database.write_relaxed(
            lambda connection: claiming.beat(connection, queue, holds, lease, self._now())
        )

    async def settle(self, queue: str, outcomes: Sequence[Outcome], /) -> list[bool]:
        """See the protocol."""
        changed = await self._database.write(lambda connection: ended.settle(connection, queue, outcomes, self._now()))
        self._tell(changed)
        return changed.good

    def _tell(self, changed: ended.Changed) -> None:
        queues = (f"q{queue}" for queue in changed.queues)
        self._arrivals.tell_all(chain(queues, starmap(_job, changed.ended)))

    async def report(self, queue: str, id: str, progress: bytes, lines: Sequence[str], /) -> bool:
        """See the protocol."""
        return await self._database.write_relaxed(
            lambda connection: stored.report(connection, queue, id, progress, lines)
        )

    async def wait(self, queue: str, id: str, wait: float, /) -> JobRecord | None:
        """See the protocol."""
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        while True:
            heard = self._arrivals.heard
            found = await self._database.read(lambda connection: stored.get(connection, queue, id))
            left = until - clock()
            if found is None or found.state.final or left <= 0:
                return found
            await self._arrivals.wait(_job(queue, id), heard, left)

    async def logs(self, queue: str, id: str, /) -> list[str]:
        """See the protocol."""
        return await self._database.read(lambda connection: stored.logs(connection, queue, id))

    async def children(self, queue: str, id: str, /) -> list[JobRecord]:
        """See the protocol."""
        return await self._database.read(lambda connection: stored.children(connection, queue, id))

    async def page(self, queue: str, states: Sequence[State], skip: int, most: int, /) -> list[JobRecord]:
        """See the protocol."""
        return await self._database.read(lambda connection: stored.page(connection, queue, states, skip, most))

    async def cancel(self, queue: str, id: str, /) -> State | None:
        """See the protocol."""
        state, changed = await self._database.write(
            lambda connection: stored.cancel(connection, queue, id, self._now())
        )
        self._tell(changed)
        return state

    async def rerun(self, queue: str, id: str, /) -> bool:
        """See the protocol."""
        queued = await self._database.write(lambda connection: stored.rerun(connection, queue, id, self._now()))
        if queued:
            self._arrivals.tell(f"q{queue}", 1)
        return queued

    async def remove(self, queue: str, id: str, /) -> bool:
        """See the protocol."""
        removed, changed = await self._database.write(
            lambda connection: stored.remove(connection, queue, id, self._now())
        )
        self._tell(changed)
        return removed

    async def counts(self, queue: str, /) -> dict[State, int]:
        """See the protocol."""
        return await self._database.read(lambda connection: stored.counts(connection, queue))

    async def queues(self) -> list[str]:
        """See the protocol."""
        return await self._database.read(stored.names)

    async def sweep(self, queue: str, retention: Retention, /) -> int:
        """See the protocol; some at a time, so that nobody who writes waits for long."""
        await self._expire(queue)
        total = 0
        while count := await self._database.write_relaxed(
            lambda connection: stored.sweep(connection, queue, retention, self._now())
        ):
            total += count
        return total

    async def _expire(self, queue: str) -> None:
        while True:
            changed = await self._database.write_relaxed(
                lambda connection: stored.expire(connection, queue, self._now())
            )
            if not changed.ended:
                return
            self._tell(changed)

    async def pause(self, queue: str, /) -> None:
        """See the protocol."""
        await self._database.write(lambda connection: connection.execute(rows.PAUSE, (queue,)).rowcount)

    async def resume(self, queue: str, /) -> None:
        """See the protocol."""
        await self._database.write(lambda connection: connection.execute(rows.RESUME, (queue,)).rowcount)
        self._arrivals.tell(f"q{queue}", _EVERYBODY)

    async def paused(self, queue: str, /) -> bool:
        """See the protocol."""
        return await self._database.read(lambda connection: rows.find(connection, queue).paused)

    async def health(self) -> None:
        """See the protocol."""
        await self._database.read(lambda connection: connection.execute("SELECT 1").fetchone())


def _job(queue: str, id: str) -> str:
    return f"j{id}\0{queue}"
