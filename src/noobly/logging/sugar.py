"""What ``Logs`` offers on top of its public methods; written only in terms of them, so the remote client has it too."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import cast

from noobly.core.clock import Seconds, seconds
from noobly.core.config import Config
from noobly.core.lifecycle import Portable
from noobly.core.scope import Scope
from noobly.logging.capture import StructlogSink, capturing
from noobly.logging.delivery import Store
from noobly.logging.driver import Line
from noobly.logging.entries import LogPage
from noobly.logging.logger import Logger
from noobly.logging.options import LogsOptions
from noobly.logging.pipeline import Pipeline
from noobly.logging.record import Record

Value = str | int | float | bool
"""What an attribute can be searched for."""


class LogsSugar(Portable, Logger, ABC):
    """Log calls, waiting for them to be stored, capturing, and walking through what was found."""

    _sink: Store | None = None
    """Stores this process's own records; without one, ``append`` does."""

    def _begin(self, scope: Scope, options: Config) -> None:
        super()._begin(scope, options)
        self.options = cast(LogsOptions, options)
        self._pipeline = Pipeline(scope, self.options, self._sink or self.append)
        self._source = self._pipeline.levels.source("" if scope.instance == "default" else scope.instance)

    async def _end(self) -> None:
        await self._pipeline.close()

    @abstractmethod
    async def append(self, batch: str, lines: Sequence[Line]) -> None: ...
    @abstractmethod
    async def persist(self) -> None: ...
    @abstractmethod
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
    ) -> LogPage: ...

    async def drain(self, within: Seconds = 5.0) -> bool:
        """Have all handed to the store that was logged before; for programs that log more than the queue holds.

        Args:
            within: Seconds to wait for the store.

        Returns:
            Whether that was done in time.
        """
        return await self._pipeline.drain(seconds(within, "within") or 0.0)

    async def flush(self, within: Seconds = 5.0) -> bool:
        """Have all stored that was logged before, so that it survives the end of the process.

        Args:
            within: Seconds to wait for the store.

        Returns:
            Whether that was done in time.

        Raises:
            Unavailable: The store does not answer.
        """
        drained = await self.drain(within)
        if drained:
            await self.persist()
        return drained

    def captured(self) -> AbstractContextManager[None]:
        """Take what the standard library's ``logging`` is given, for the body of a ``with``.

        Handlers that are already there go on as before. Where there are none, the root logger's level becomes this
        instance's, and warnings still reach standard error, as without Noobly.
        """
        return capturing(self._pipeline)

    def structlog(self) -> StructlogSink:
        """Return the last processor of a structlog chain: what structlog gets then becomes records here.

        ``structlog.configure(processors=[structlog.contextvars.merge_contextvars, logs.structlog()])``
        """
        return StructlogSink(self._pipeline)

    async def search_all(
        self,
        text: str = "",
        *,
        level: str = "",
        at_least: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        attributes: Mapping[str, Value] | None = None,
    ) -> AsyncIterator[Record]:
        """Yield all matching records, newest first; the arguments are those of ``search``."""
        after: str | None = None
        while True:
            page = await self.search(
                text,
                level=level,
                at_least=at_least,
                since=since,
                until=until,
                attributes=attributes,
                after=after,
                limit=1000,
            )
            for record in page.records:
                yield record
            after = page.after
            if after is None:
                return
