"""Handing batches to the store: again after a failure, and if that does not help, to the spill file."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from noobly.core.clock import fresh_id
from noobly.core.errors import NooblyError, TooLarge, Unavailable
from noobly.core.scope import Scope
from noobly.logging.driver import Line
from noobly.logging.events import Returned, Spilled
from noobly.logging.formats import renderer
from noobly.logging.options import LogsOptions
from noobly.logging.returning import Returns
from noobly.logging.spill import Spill, path_of, to_stderr

Store = Callable[[str, Sequence[Line]], Awaitable[None]]
"""Stores a batch under its id; may be called while an earlier call is under way."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class Delivery:
    """Delivers batches of one instance; never raises but when it is cancelled, and then what it had is spilled.

    Args:
        scope: The instance.
        options: The options of logging.
        store: Stores a batch.

    Attributes:
        counts: Records delivered so far, by severity.
        spilled: Records spilled so far.
        returned: Records stored so far of those that had been spilled, by this process or another one.
        slow: The store took longer for the last batch than records may linger.
        hurried: The instance is closing: failures are not tried again.
    """

    def __init__(self, scope: Scope, options: LogsOptions, store: Store) -> None:
        self._scope = scope
        self._options = options
        self._store = store
        path = path_of(options.spill, scope.instance)
        self._spill = Spill(path, options.spill_bytes)
        self._returns = Returns(path, self._once, self._returned)
        self._show = renderer(options.console, colour=sys.stderr.isatty()) if options.console else None
        self._down = False
        self.counts: Counter[int] = Counter()
        self.spilled = self.returned = 0
        self.slow = False
        self.hurried = False

    async def deliver(self, lines: Sequence[Line]) -> None:
        """Store one batch, or spill it."""
        try:
            if self._show is not None:
                await asyncio.to_thread(self._print, self._show, lines)
            await self._stored(lines)
        except asyncio.CancelledError:
            self.spill(lines)
            raise

    def count(self, lines: Sequence[Line]) -> None:
        """Count lines as stored."""
        self.counts.update([line.severity for line in lines])

    def spill(self, lines: Sequence[Line]) -> None:
        """Keep lines outside of the store, from any thread."""
        if lines:
            path = self._spill.write([line.data for line in lines])
            self.spilled += len(lines)
            self._returns.due = True
            scope = self._scope
            scope.environment.bus.emit(Spilled(scope.service, scope.instance, len(lines), path))

    async def close(self) -> None:
        """End what goes on in the background."""
        await self._returns.close()

    def _returned(self, lines: Sequence[Line]) -> None:
        self.count(lines)
        self.returned += len(lines)
        scope = self._scope
        scope.environment.bus.emit(Returned(scope.service, scope.instance, len(lines)))

    async def _stored(self, lines: Sequence[Line]) -> None:
        failure = await self._tried(lines)
        if failure is None:
            self._down = False
            self.count(lines)
            if not self.hurried:
                self._returns.soon()
        elif isinstance(failure, TooLarge) and len(lines) > 1:
            half = len(lines) // 2
            await self._stored(lines[:half])
            await self._stored(lines[half:])
        else:
            self._complain(failure)
            await asyncio.to_thread(self.spill, lines)

    async def _tried(self, lines: Sequence[Line]) -> NooblyError | None:
        """Store a batch, several times if need be; return what it failed with at last, if it did."""
        # The id stays the same, so that a batch whose answer was lost is not stored twice.
        batch, loop = fresh_id(), asyncio.get_running_loop()
        for attempt in range(self._options.retries + 1):
            if attempt:
                await asyncio.sleep(self._pause(attempt))
            began = loop.time()
            failure = await self._once(batch, lines)
            self.slow = loop.time() - began > self._options.linger
            if failure is None or not failure.temporary or self._down or self.hurried:
                break
        return failure

    async def _once(self, batch: str, lines: Sequence[Line]) -> NooblyError | None:
        try:
            await self._store(batch, lines)
        except NooblyError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a store's defect must neither end the writer nor lose records
            return Unavailable(f"the log store failed with {type(error).__name__}")
        return None

    def _pause(self, attempt: int) -> float:
        most: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempt - 1))
        return most * (0.5 + self._scope.environment.chance.random() / 2)

    def _complain(self, failure: NooblyError) -> None:
        # Once per outage, and not as a record: that would go the way that is blocked.
        if not self._down:
            self._down = True
            where = f"{self._scope.provider} of {self._scope.service} {self._scope.instance!r}"
            spilled = self._options.spill or "standard error"
            to_stderr(f"noobly: the provider {where} fails ({failure.code}); records go to {spilled}\n".encode())

    @staticmethod
    def _print(show: Callable[[bytes], bytes], lines: Sequence[Line]) -> None:
        to_stderr(b"".join([show(line.data) + b"\n" for line in lines]))
