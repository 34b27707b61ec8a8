"""The SQLite provider: one file that outlives its processes, on one machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, ClassVar, Literal

import msgspec

from noobly.clients.sqlite import Database, Durability
from noobly.core.checks import Limits
from noobly.core.errors import NooblyError
from noobly.core.scope import Environment
from noobly.measuring.driver import Answer, Sample, Selector, SeriesInfo
from noobly.measuring.providers._keeping import KeepingConfig
from noobly.measuring.providers._retention import drop
from noobly.measuring.providers._rows import SCHEMA, listed, named, prepare, write
from noobly.measuring.rollups import answer, matches


class SqliteConfig(KeepingConfig, frozen=True, kw_only=True):
    """The options of the SQLite provider.

    Args:
        path: The file; its folder is made where there is none.
        durability: ``process``: what was recorded survives the end of the process, also by SIGKILL; ``power``: also a
            power failure.
        busy_timeout: Seconds to wait for another process that writes.
        keep_raw: Seconds that raw samples are kept.
        raw_samples: Raw samples kept per series; with more in ``keep_raw`` seconds, the oldest leave.
        keep_10s: Seconds that steps of 10 seconds are kept.
        keep_1m: Seconds that steps of one minute are kept.
        keep_1h: Seconds that steps of one hour are kept.
    """

    url_parts: ClassVar[Mapping[str, str]] = {"path": "path"}

    path: Annotated[str, msgspec.Meta(min_length=1)]
    durability: Literal["process", "power"] = "process"
    busy_timeout: Annotated[float, msgspec.Meta(ge=0, lt=1e6)] = 5.0


class SqliteMetrics:
    """Series in a file. What is recorded together is committed together, and with what else waits at the time."""

    Config = SqliteConfig
    scheme = "sqlite"
    # Nothing leaves this machine, so there is nothing to repeat and no deadline to keep.
    in_process = True
    limits = Limits()

    def __init__(self, config: SqliteConfig, environment: Environment) -> None:
        self._config = config
        self._now = environment.clock.time
        self._database = Database(
            config.path,
            schema=SCHEMA,
            durability=Durability[config.durability.upper()],
            busy_timeout=config.busy_timeout,
            prepare=prepare,
        )

    async def start(self, stack: AsyncExitStack) -> None:
        """Open the file; see ``Database.start``."""
        await self._database.start(stack)

    def classify(self, error: Exception) -> NooblyError | None:
        """Map what SQLite raises."""
        return self._database.classify(error)

    async def record(self, samples: Sequence[Sample], /) -> None:
        """See the protocol."""
        await self._database.write(lambda connection: write(connection, samples))

    async def query(self, selector: Selector, step: float, /) -> Answer:
        """See the protocol."""

        def work(connection: sqlite3.Connection) -> Answer:
            found = named(connection, selector.name)
            return answer(selector, step, [one for one in found if matches(one.labels, selector.labels)])

        return await self._database.read(work)

    async def series(self, prefix: str, limit: int, /) -> list[SeriesInfo]:
        """See the protocol."""
        return await self._database.read(lambda connection: listed(connection, prefix, limit))

    async def retain(self) -> int:
        """See the protocol; series of which nothing is left are forgotten."""
        cutoffs = self._config.cutoffs(self._now())
        return await self._database.write(lambda connection: drop(connection, cutoffs, self._config.raw_samples))

    async def health(self) -> None:
        """See the protocol."""
        await self._database.read(lambda connection: connection.execute("SELECT 1").fetchone())
