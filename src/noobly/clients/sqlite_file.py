"""A SQLite file as a service keeps it: its mode, its tables and their versions, and what its errors mean."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import msgspec

from noobly.core.errors import ConfigError, Conflict, Internal, NooblyError, TooLarge, Unavailable

_PAUSE = 0.02
_VERSIONS = "CREATE TABLE IF NOT EXISTS noobly_schema (name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID"
_VERSION = "SELECT version FROM noobly_schema WHERE name = ?"
_SET_VERSION = "INSERT OR REPLACE INTO noobly_schema VALUES (?, ?)"
_UNWRITABLE = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "reading or writing failed",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_READONLY: "it cannot be written",
    sqlite3.SQLITE_PERM: "access is denied",
}
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Durability(Enum):
    """What a commit survives: SQLite's ``synchronous``."""

    PROCESS = "NORMAL"
    """The end of the process, also by SIGKILL. A power failure may lose the last commits, but damages nothing."""
    POWER = "FULL"
    """A power failure too: each commit waits for the disk."""


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """The tables of one user of the file; several may share it.

    Args:
        name: Whose tables they are.
        migrations: The statements that lead from each version to the next; only ever add to the end.
    """

    name: str
    migrations: tuple[tuple[str, ...], ...]


class File:
    """Opens connections to one file.

    Args:
        path: The file; its folder is made where there is none.
        schema: Its tables.
        durability: What a commit survives.
        busy_timeout: Seconds to wait for another process that writes.
        prepare: Called with each new connection, to add SQL functions.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        schema: Schema,
        durability: Durability,
        busy_timeout: float,
        prepare: Callable[[sqlite3.Connection], None] | None,
    ) -> None:
        self.path = Path(path)
        self.schema = schema
        self._durability = durability
        self._patience = busy_timeout
        self._prepare = prepare

    def create(self) -> sqlite3.Connection:
        """Make the file where there is none, bring its tables up to date, and return a connection that may write.

        Raises:
            ConfigError: A newer release has written it.
            sqlite3.Error: It cannot be opened, or another process holds it for too long.
            OSError: It cannot be made.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self.connect()
        try:
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def classify(self, error: Exception) -> NooblyError | None:
        """Return what to raise for an error of SQLite; None for any other (https://www.sqlite.org/rescode.html)."""
        if not isinstance(error, sqlite3.Error):
            return None
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        name = self.path.name
        if code in _BUSY:
            return Unavailable(f"another process held the file {name} for over {self._patience:g} seconds")
        if code in _UNWRITABLE:
            return Unavailable(f"the file {name}: {_UNWRITABLE[code]}: {error}")
        if code in _DAMAGED:
            return Internal(f"the file {name} is damaged or not a database; restore it or move it away: {error}")
        if code == sqlite3.SQLITE_CONSTRAINT:
            return Conflict(f"the file {name} refuses a change: {error}")
        return TooLarge(f"the file {name}: {error}") if code == sqlite3.SQLITE_TOOBIG else None

    def connect(self) -> sqlite3.Connection:
        """Return a new connection to the file."""
        fresh = not self.path.exists()
        # Each connection is used by one thread at a time, which is all that SQLite asks for.
        connection = sqlite3.connect(
            self.path, timeout=self._patience, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            if fresh:
                # For its owner alone; SQLite's own files beside it get the same mode. Not by opening it here: to close
                # it would drop the locks that another connection of this process has (sqlite.org/howtocorrupt.html).
                self.path.chmod(0o600)
            self._enter_wal(connection)
            connection.execute(f"PRAGMA synchronous = {self._durability.value}")
            connection.execute("PRAGMA foreign_keys = ON")
            if self._prepare is not None:
                self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        """Switch to WAL; SQLite does not wait by itself where two processes do so at once."""
        until = time.monotonic() + self._patience
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > until:
                    raise
                time.sleep(_PAUSE)
            else:
                return

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(_VERSIONS)
            for statements in self.schema.migrations[self._version(connection) :]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(_SET_VERSION, (self.schema.name, len(self.schema.migrations)))
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _version(self, connection: sqlite3.Connection) -> int:
        row = connection.execute(_VERSION, (self.schema.name,)).fetchone()
        version, known = int(row[0]) if row else 0, len(self.schema.migrations)
        if version > known:
            raise ConfigError(
                f"the file {self.path.name} has version {version} of the {self.schema.name} tables, but this release "
                f"knows only {known}; use the release that wrote it, or another file"
            )
        return version
