"""The SQLite provider: queues in one file, which outlive their processes and which those of one machine share."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

from noobly.clients.sqlite_arrivals import Arrivals
from noobly.clients.sqlite_config import SqliteConfig, database
from noobly.clients.sqlite_rows import microseconds, seconds
from noobly.core.checks import Limits
from noobly.core.errors import NooblyError
from noobly.core.lifecycle import Tasks
from noobly.core.scope import Environment
from noobly.queueing.driver import Can, Counts, Failure, Leased, Posted, Sent
from noobly.queueing.providers import _sqlite_work as work
from noobly.queueing.providers._sqlite_rows import SCHEMA

_EVERYBODY = 1_000_000
"""More than may ever wait."""
_PATIENCE = 2.0
"""Seconds that what is given back has at the end."""


class SqliteQueues:
    """Queues in a file. Calls that come together are committed together, so they share one wait for the disk.

    Leases and delays are measured by the wall clock, for that is what processes have in common: one that is set forward
    ends them too early, and one that is set back too late, by as much as it was set.
    """

    Config = SqliteConfig
    scheme = "sqlite"
    # Other processes may hold the file and the disk may be full, so calls have a deadline and are tried again.
    in_process = False
    joins = True
    limits = Limits()
    features = frozenset({Can.PRIORITY, Can.DELAY, Can.DEDUP, Can.ORDER, Can.FAIR, Can.ERRORS, Can.UNCOUNT})

    def __init__(self, config: SqliteConfig, environment: Environment) -> None:
        self._wall = environment.clock.time
        self._database = database(config, SCHEMA)
        self._sweeps, self._returns = Tasks(), Tasks()
        self._arrivals = Arrivals(
            config.path, self._database, lambda connection, asked: work.look(connection, asked, self._now())
        )

    def _now(self) -> int:
        return microseconds(self._wall())

    async def start(self, stack: AsyncExitStack) -> None:
        """Open the file, and watch it for what other processes do; see ``Database.start``."""
        await self._database.start(stack)
        await self._arrivals.start(stack)
        stack.push_async_callback(self._finish)
        stack.push_async_callback(self._sweeps.close)
        self._sweeps.spawn(self._sweep(), "sweep of purged queues")

    async def _finish(self) -> None:
        """Let what was claimed for callers who are gone be given back."""
        with suppress(NooblyError):
            await self._database.write_relaxed(_nothing)  # Whatever was claimed before is known after it.
        await self._returns.close(patience=_PATIENCE)

    def classify(self, error: Exception) -> NooblyError | None:
        """Map what SQLite raises."""
        return self._database.classify(error)

    async def send(self, queue: str, messages: Sequence[Posted], /) -> list[Sent]:
        """See the protocol."""
        sent = await self._database.write(lambda connection: work.send(connection, queue, messages, self._now()))
        self._arrivals.tell(queue, len(messages))
        return sent

    async def receive(self, queue: str, most: int, lease: float, wait: float, /) -> list[Leased]:
        """See the protocol."""
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        while True:
            heard = self._arrivals.heard
            # A power failure ends all receivers of this machine, so it may undo their leases.
            claimed = await self._database.write_relaxed(
                lambda connection: work.claim(connection, queue, most, lease, self._now()),
                unclaimed=lambda claimed: self._give_back(queue, claimed.messages),
            )
            left = until - clock()
            if claimed.messages or left <= 0:
                return claimed.messages
            due = left if claimed.due is None else max(0.001, seconds(claimed.due - self._now()))
            await self._arrivals.wait(queue, heard, min(left, due))

    def _give_back(self, queue: str, found: Sequence[Leased]) -> None:
        """Let others have what was claimed for a caller who was cancelled meanwhile."""
        if found:
            failures = [Failure(one.receipt, 0.0, "", counts=False) for one in found]
            self._returns.spawn(self.nack(queue, failures), f"giving back to queue {queue!r}")

    async def ack(self, queue: str, receipts: Sequence[str], /) -> list[bool]:
        """See the protocol."""
        done = await self._database.write(lambda connection: work.ack(connection, queue, receipts, self._now()))
        return self._settled(queue, done)

    def _settled(self, queue: str, done: work.Settled) -> list[bool]:
        if done.freed:
            self._arrivals.tell(queue, done.freed)
        return done.good

    async def nack(self, queue: str, failures: Sequence[Failure], /) -> list[bool]:
        """See the protocol."""
        done = await self._database.write(lambda connection: work.nack(connection, queue, failures, self._now()))
        return self._settled(queue, done)

    async def extend(self, queue: str, receipts: Sequence[str], lease: float, /) -> list[bool]:
        """See the protocol."""
        return await self._database.write_relaxed(
            lambda connection: work.extend(connection, queue, receipts, lease, self._now())
        )

    async def bury(self, queue: str, dead: str, failure: Failure, /) -> bool:
        """See the protocol."""
        done = await self._database.write(lambda connection: work.bury(connection, queue, dead, failure, self._now()))
        if done.good[0]:
            self._arrivals.tell(dead, 1)
        return self._settled(queue, done)[0]

    async def counts(self, queue: str, /) -> Counts:
        """See the protocol."""
        return await self._database.read(lambda connection: work.counts(connection, queue, self._now()))

    async def purge(self, queue: str, /) -> int:
        """See the protocol; what is gone at once takes up room for a while longer."""
        count = await self._database.write(lambda connection: work.purge(connection, queue, self._now()))
        self._sweeps.spawn(self._sweep(), "sweep of purged queues")
        return count

    async def _sweep(self) -> None:
        while await self._database.write_relaxed(work.sweep):
            pass

    async def queues(self) -> list[str]:
        """See the protocol."""
        return await self._database.read(work.names)

    async def peek(self, queue: str, skip: int, most: int, /) -> list[Leased]:
        """See the protocol."""
        return await self._database.read(lambda connection: work.peek(connection, queue, skip, most, self._now()))

    async def pause(self, queue: str, /) -> None:
        """See the protocol."""
        await self._database.write(lambda connection: work.pause(connection, queue))

    async def resume(self, queue: str, /) -> None:
        """See the protocol."""
        await self._database.write(lambda connection: work.resume(connection, queue))
        self._arrivals.tell(queue, _EVERYBODY)

    async def health(self) -> None:
        """See the protocol."""
        await self._database.read(lambda connection: connection.execute("SELECT 1").fetchone())


def _nothing(_: sqlite3.Connection) -> None:
    """Change nothing; its place in the line of writes is what it is for."""
