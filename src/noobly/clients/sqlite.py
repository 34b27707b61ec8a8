"""One SQLite file: a writer thread that commits what waits in one transaction, and readers beside it.

The file is in WAL mode, so readers never wait for the writer, and processes on one machine may share it
(https://www.sqlite.org/wal.html). Work is a plain function of a connection; it runs in a thread of the database and
must return values, not cursors.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, NamedTuple, TypeVar

from noobly.clients.sqlite_file import Durability, File, Schema
from noobly.clients.sqlite_turn import Turn
from noobly.core.errors import Closed, NooblyError, RateLimited, Unavailable

__all__ = ["Database", "Durability", "Schema", "Work"]

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_TOGETHER = 1000
"""Pieces of work in one transaction at most, so that the first of them does not wait for ever."""


def _thrown_away(_: object) -> None:
    """Do nothing with a result that nobody waits for any more."""


class _Job(NamedTuple, Generic[T]):
    work: Work[T]
    done: asyncio.Future[T]
    durability: Durability
    unclaimed: Callable[[T], None]


_Outcome = tuple[_Job[object], object, BaseException | None]


class Database:
    """An open file; ``start`` opens it and registers its end.

    Args:
        path: The file; its folder is made where there is none.
        schema: Its tables.
        durability: What a commit survives.
        busy_timeout: Seconds to wait for another process that writes.
        readers: Reads under way at once.
        waiting: Writes that may wait; further ones are refused.
        prepare: Called with each new connection, to add SQL functions.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        schema: Schema,
        durability: Durability = Durability.POWER,
        busy_timeout: float = 5.0,
        readers: int = 2,
        waiting: int = 10_000,
        prepare: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        self._file = File(path, schema=schema, durability=durability, busy_timeout=busy_timeout, prepare=prepare)
        self._name = self._file.path.name
        self._durability = self._set = durability
        self._readers = readers
        self._most = waiting
        self._waiting = 0
        self._open = False
        self._jobs: SimpleQueue[_Job[object] | None] = SimpleQueue()
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()

    async def start(self, stack: AsyncExitStack) -> None:
        """Open the file and bring its tables up to date.

        Raises:
            ConfigError: A newer release has written it.
            Unavailable: It cannot be opened, or another process holds it for too long.
            Internal: It is damaged, or not a database.
        """
        self._loop = asyncio.get_running_loop()
        # Shielded, so that a cancelled start or end leaves no connection open.
        opening = asyncio.ensure_future(asyncio.to_thread(self._connect_all))
        stack.push_async_callback(self._close, opening)
        try:
            self._writing = await asyncio.shield(opening)
        except sqlite3.Error as error:
            raise self.classify(error) or error from error
        except OSError as error:
            raise Unavailable(f"the file {self._name} cannot be made: {error.strerror}") from error
        self._reading = ThreadPoolExecutor(self._readers, thread_name_prefix=f"{self._file.schema.name}-reader")
        # A daemon, so that a program that forgets to close it can still end; SQLite rolls back what is unfinished.
        self._writer = Thread(target=self._write_all, name=f"{self._file.schema.name}-writer", daemon=True)
        self._writer.start()
        self._open = True

    async def write(self, work: Work[T]) -> T:
        """Run work in a transaction, together with whatever else waits, and return its result once it is committed.

        What the work raises undoes this work alone. A caller that is cancelled before its turn leaves no trace; after
        that the work is done nevertheless.

        Raises:
            RateLimited: Too many writes wait.
            Closed: The database is not open.
        """
        return await self._write(work, self._durability, _thrown_away)

    async def write_relaxed(self, work: Work[T], *, unclaimed: Callable[[T], None] = _thrown_away) -> T:
        """Run work as ``write`` does, but do not wait for the disk for its sake.

        A power failure may undo it, unless a later ``write`` had returned.

        Args:
            work: The work.
            unclaimed: Gets the result where the caller was cancelled and the work is done nevertheless.

        Raises:
            RateLimited: Too many writes wait.
            Closed: The database is not open.
        """
        return await self._write(work, Durability.PROCESS, unclaimed)

    async def _write(self, work: Work[T], durability: Durability, unclaimed: Callable[[T], None]) -> T:
        if not self._open:
            raise Closed(f"the database {self._name} is not open")
        if self._waiting >= self._most:
            raise RateLimited(f"{self._most} writes to {self._name} are waiting; slow down")
        done: asyncio.Future[T] = self._loop.create_future()
        self._waiting += 1
        try:
            job: _Job[T] = _Job(work, done, durability, unclaimed)
            self._jobs.put(job)  # type: ignore[arg-type]  # the queue holds jobs of all results
            return await done
        except asyncio.CancelledError:
            if done.done() and not done.cancelled() and done.exception() is None:
                unclaimed(done.result())
            raise
        finally:
            self._waiting -= 1

    async def read(self, work: Work[T]) -> T:
        """Run work that only reads; it sees one state of the file, with all that was committed before.

        Raises:
            Closed: The database is not open.
        """
        if not self._open:
            raise Closed(f"the database {self._name} is not open")
        return await self._loop.run_in_executor(self._reading, self._read, work)

    def classify(self, error: Exception) -> NooblyError | None:
        """Return what to raise for an error of SQLite; None for any other."""
        return self._file.classify(error)

    def _connect_all(self) -> sqlite3.Connection:
        writing = self._file.create()
        try:
            for _ in range(self._readers):
                reading = self._file.connect()
                self._idle.put(reading)
                reading.execute("PRAGMA query_only = ON")
            self._turn = Turn(self._file.path)
        except BaseException:
            writing.close()
            self._close_readers()
            raise
        return writing

    def _read(self, work: Work[T]) -> T:
        connection = self._idle.get()
        try:
            connection.execute("BEGIN")
            return work(connection)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._idle.put(connection)

    def _write_all(self) -> None:
        jobs: Sequence[_Job[object]] = self._next()
        while jobs:
            outcomes = self._commit([job for job in jobs if not job.done.cancelled()])
            with suppress(RuntimeError):  # The loop is closed, so nobody waits any more.
                self._loop.call_soon_threadsafe(_settle, outcomes)
            jobs = self._next()

    def _next(self) -> Sequence[_Job[object]]:
        """Wait for work and return all there is; nothing at the end."""
        job = self._jobs.get()
        jobs: list[_Job[object]] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) == _TOGETHER:
                return jobs
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return jobs
        if jobs:
            self._jobs.put(None)  # The end, for the next look; nothing is put after it.
        return jobs

    def _commit(self, jobs: Sequence[_Job[object]]) -> list[_Outcome]:
        try:
            self._require({job.durability for job in jobs})
            with self._turn.held():
                self._writing.execute("BEGIN IMMEDIATE")
            outcomes = [_attempt(self._writing, job) for job in jobs]
            self._writing.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - whatever it was goes to all who wait, and the thread lives on
            if self._writing.in_transaction:
                self._writing.execute("ROLLBACK")
            return [(job, None, error) for job in jobs]
        return outcomes

    def _require(self, asked: set[Durability]) -> None:
        """Let the next commit survive what the strictest of its jobs asks for, and with it all commits before."""
        durability = Durability.POWER if Durability.POWER in asked else Durability.PROCESS
        if durability is not self._set:
            self._writing.execute(f"PRAGMA synchronous = {durability.value}")
            self._set = durability

    async def _close(self, opening: asyncio.Future[sqlite3.Connection]) -> None:
        await asyncio.shield(asyncio.ensure_future(self._shut(opening)))

    async def _shut(self, opening: asyncio.Future[sqlite3.Connection]) -> None:
        await asyncio.wait([opening])
        if opening.exception() is not None:
            return
        if self._open:
            self._open = False
            self._jobs.put(None)
            await asyncio.to_thread(self._writer.join)
            await asyncio.to_thread(self._reading.shutdown)
        self._turn.close()
        await asyncio.to_thread(self._close_readers)
        await asyncio.to_thread(opening.result().close)

    def _close_readers(self) -> None:
        while not self._idle.empty():
            self._idle.get().close()


def _attempt(connection: sqlite3.Connection, job: _Job[object]) -> _Outcome:
    connection.execute("SAVEPOINT job")
    try:
        result = job.work(connection)
    except BaseException as error:  # Anybody's code: what it raises goes to whoever waits for it.
        if not connection.in_transaction:
            raise  # SQLite has undone all of it: https://www.sqlite.org/lang_transaction.html, section 3.1.
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return job, None, error
    connection.execute("RELEASE job")
    return job, result, None


def _settle(outcomes: Sequence[_Outcome]) -> None:
    for job, result, error in outcomes:
        if job.done.done():
            if error is None:
                job.unclaimed(result)
        elif error is None:
            job.done.set_result(result)
        else:
            # A future refuses StopIteration, which a bare `next` in the work raises.
            job.done.set_exception(RuntimeError("no next row") if isinstance(error, StopIteration) else error)
