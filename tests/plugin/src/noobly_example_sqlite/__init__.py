"""A caching provider outside Noobly: entries in one SQLite file, found through the entry point ``example-sqlite``."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar, TypeVarTuple

import msgspec

from noobly.caching.driver import RawPage
from noobly.core.checks import Limits
from noobly.core.config import Config
from noobly.core.errors import Conflict, NooblyError, Unavailable
from noobly.core.scope import Environment

__all__ = ["SqliteCache", "SqliteConfig"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_TABLE = """
CREATE TABLE IF NOT EXISTS entries (
    namespace TEXT NOT NULL, key BLOB NOT NULL, data BLOB NOT NULL, ends REAL NOT NULL,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID
"""
_PUT = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)"
_GET = "SELECT data, ends FROM entries WHERE namespace = ? AND key = ? AND ends > ?"
_DELETE = "DELETE FROM entries WHERE namespace = ? AND key = ?"
_CLEAR = "DELETE FROM entries WHERE namespace = ? AND key >= ? AND key < ?"
_LIST = """
SELECT key FROM entries WHERE namespace = ? AND key >= ? AND key < ? AND key > ? AND ends > ? ORDER BY key LIMIT ?
"""
_PRUNE = "DELETE FROM entries WHERE ends <= ?"
_PRUNE_EVERY = 1000
"""Entries written between two looks for those past their end."""


class SqliteConfig(Config, frozen=True, kw_only=True):
    """The options of the provider.

    Args:
        path: The database file; its folder must exist.
        namespace: Separates users of the same file.
        busy_timeout: Seconds to wait for another process that writes.
    """

    url_parts: ClassVar[Mapping[str, str]] = {"path": "path"}

    path: Annotated[str, msgspec.Meta(min_length=1)]
    namespace: str = "noobly"
    busy_timeout: Annotated[float, msgspec.Meta(ge=0)] = 5.0


class SqliteCache:
    """Entries as rows; all work is done in one thread, and each change in one transaction."""

    Config = SqliteConfig
    scheme = "example-sqlite"
    # Nothing leaves this machine, so there is nothing to repeat and no deadline to keep.
    in_process = True
    limits = Limits(value_bytes=256 * 1024 * 1024)

    def __init__(self, config: SqliteConfig, environment: Environment) -> None:
        self._config = config
        self._now = environment.clock.time
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="example-sqlite")
        self._written = 0

    async def start(self, stack: AsyncExitStack) -> None:
        """Open the file and make the table.

        Raises:
            Unavailable: The file cannot be opened.
        """
        stack.push_async_callback(asyncio.to_thread, self._thread.shutdown)
        try:
            self._database = await self._run(self._open)
        except sqlite3.Error as error:
            raise self.classify(error) or error from error
        stack.push_async_callback(self._run, self._database.close)

    def classify(self, error: Exception) -> NooblyError | None:
        """Map what SQLite raises; what is not known here is reported as Internal."""
        if isinstance(error, sqlite3.OperationalError):
            return Unavailable(f"the cache file {Path(self._config.path).name} failed: {error}")
        return None

    async def get(self, key: str, /) -> bytes | None:
        """See the protocol."""
        return await self._run(self._get, key)

    async def get_many(self, keys: Sequence[str], /) -> list[bytes | None]:
        """See the protocol."""
        return await self._run(lambda: [self._get(key) for key in keys])

    async def put(self, key: str, data: bytes, ttl: float | None, /) -> None:
        """See the protocol."""
        await self._run(self._put, [(key, data)], self._end(ttl))

    async def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None, /) -> None:
        """See the protocol."""
        await self._run(self._put, entries, self._end(ttl))

    async def add(self, key: str, data: bytes, ttl: float | None, /) -> bool:
        """See the protocol."""
        fresh = (data, self._end(ttl))
        return await self._run(self._change, key, lambda found: fresh if found is None else None)

    async def swap(self, key: str, expected: bytes, data: bytes | None, ttl: float | None, /) -> bool:
        """See the protocol."""
        # An entry whose end is in the past does not exist.
        fresh = (b"", -math.inf) if data is None else (data, self._end(ttl))
        return await self._run(
            self._change, key, lambda found: fresh if found is not None and found[0] == expected else None
        )

    async def delete_many(self, keys: Sequence[str], /) -> list[bool]:
        """See the protocol."""
        return await self._run(self._delete, keys)

    async def touch(self, key: str, ttl: float | None, /) -> bool:
        """See the protocol."""
        end = self._end(ttl)
        return await self._run(self._change, key, lambda found: found and (found[0], end))

    async def increment(self, key: str, amount: int, ttl: float | None, /) -> int:
        """See the protocol."""
        return await self._run(self._increment, key, amount, self._end(ttl))

    async def clear(self, namespace: str, /) -> None:
        """See the protocol."""
        await self._run(self._clear, namespace)

    async def keys(self, namespace: str, after: str | None, limit: int, /) -> RawPage:
        """See the protocol; this method is what gives the provider the capability to list."""
        return await self._run(self._page, namespace, after, limit)

    async def health(self) -> None:
        """See the protocol."""
        await self._run(self._get, "\x1fhealth")

    async def _run(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        # A caller that is cancelled stops waiting; the transaction is finished by its thread.
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _end(self, ttl: float | None) -> float:
        return math.inf if ttl is None else self._now() + ttl

    def _open(self) -> sqlite3.Connection:
        path, patience = self._config.path, self._config.busy_timeout
        database = sqlite3.connect(path, timeout=patience, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_TABLE)
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the file's write lock, so that what was read stays true until the commit."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _find(self, key: str) -> tuple[bytes, float] | None:
        row: tuple[bytes, float] | None = self._database.execute(_GET, (*self._name(key), self._now())).fetchone()
        return row

    def _get(self, key: str) -> bytes | None:
        found = self._find(key)
        return found and found[0]

    def _put(self, entries: Sequence[tuple[str, bytes]], end: float) -> None:
        with self._writing():
            self._database.executemany(_PUT, [(*self._name(key), data, end) for key, data in entries])
            self._prune(len(entries))

    def _prune(self, written: int) -> None:
        self._written += written
        if self._written >= _PRUNE_EVERY:
            self._written = 0
            self._database.execute(_PRUNE, (self._now(),))

    def _change(self, key: str, change: Callable[[tuple[bytes, float] | None], tuple[bytes, float] | None]) -> bool:
        with self._writing():
            fresh = change(self._find(key))
            if fresh is None:
                return False
            self._database.execute(_PUT, (*self._name(key), *fresh))
            self._prune(1)
            return True

    def _increment(self, key: str, amount: int, end: float) -> int:
        numbers: list[int] = []

        def added(found: tuple[bytes, float] | None) -> tuple[bytes, float]:
            numbers.append(_sum(key, found[0] if found else b"0", amount))
            return b"%d" % numbers[0], found[1] if found else end

        self._change(key, added)
        return numbers[0]

    def _delete(self, keys: Sequence[str]) -> list[bool]:
        with self._writing():
            return [self._get_and_delete(key) for key in keys]

    def _get_and_delete(self, key: str) -> bool:
        existed = self._find(key) is not None
        self._database.execute(_DELETE, self._name(key))
        return existed

    def _clear(self, namespace: str) -> None:
        with self._writing():
            self._database.execute(_CLEAR, (self._config.namespace, *_range(namespace)))

    def _page(self, namespace: str, after: str | None, limit: int) -> RawPage:
        past = after.encode() if after is not None else b""
        # Keys have at least one character, so all of them come after the empty one.
        bounds = (self._config.namespace, *_range(namespace), past, self._now(), limit + 1)
        keys = [row[0].decode() for row in self._database.execute(_LIST, bounds)]
        page = keys[:limit]
        return RawPage(page, page[-1] if len(keys) > limit else None)

    def _name(self, key: str) -> tuple[str, bytes]:
        # Bytes, for SQLite's functions stop at a NUL in text.
        return self._config.namespace, key.encode()


def _range(namespace: str) -> tuple[bytes, bytes]:
    """Return the first key of a namespace and the first one after it; UTF-8 has no byte 255."""
    prefix = f"{namespace}:".encode() if namespace else b""
    return (prefix, prefix[:-1] + b";") if prefix else (b"", b"\xff")


def _sum(key: str, data: bytes, amount: int) -> int:
    try:
        number = int(data) + amount
    except ValueError as error:
        raise Conflict(f"the entry {key!r} is not a counter; delete it first") from error
    if not -(2**63) <= number < 2**63:
        raise Conflict(f"the counter {key!r} would leave the signed 64-bit range")
    return number
