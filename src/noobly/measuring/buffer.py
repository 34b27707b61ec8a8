"""Samples on their way to the store: gathered, handed on together, and kept for a while where it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from noobly.core.errors import NooblyError
from noobly.core.lifecycle import Tasks
from noobly.core.meter import Rows
from noobly.core.scope import Scope
from noobly.measuring.driver import Sample
from noobly.measuring.events import Lost, Recorded
from noobly.measuring.options import MetricOptions

_HELP = "Samples given up because the store failed for too long."

_log = logging.getLogger("noobly.measuring")


class Buffer:
    """Samples that the store does not have yet.

    Args:
        record: Hands samples to the store.
        tasks: Where the handing on runs, so that a caller that is cancelled does not take others' samples along.
        scope: The instance.
        options: Its options.
    """

    def __init__(
        self,
        record: Callable[[Sequence[Sample]], Awaitable[None]],
        tasks: Tasks,
        scope: Scope,
        options: MetricOptions,
    ) -> None:
        self._record = record
        self._tasks = tasks
        self._scope = scope
        self._options = options
        self._samples: list[Sample] = []
        self._draining: asyncio.Task[None] | None = None
        self._failing = False
        self._lost = 0
        meter, bus = scope.environment.meter, scope.environment.bus
        self._recorded = bus.topic(Recorded, scope.service, scope.instance)
        self.close = meter.tallies("noobly_measuring_lost_samples", _HELP, ("instance",), self._rows)

    def add(self, sample: Sample) -> bool:
        """Take a sample; return whether it is time to hand on."""
        self._samples.append(sample)
        # While the store fails, only the regular look tries again.
        return len(self._samples) >= self._options.batch and not (self._failing and self._shed())

    async def flush(self) -> None:
        """Return when the store has all samples that were added before.

        Raises:
            NooblyError: The store refuses them; they are kept for the next time.
        """
        if self._draining is not None:
            await asyncio.wait([self._draining])  # It may have begun before the last samples came.
        if self._draining is None and self._samples:
            self._draining = self._tasks.spawn(self._drain(), "measuring.drain")
        if self._draining is not None:  # Whoever else has begun it since: it has the last samples in its hands.
            await asyncio.shield(self._draining)

    async def relieve(self) -> None:
        """Hand on what there is; a failure is logged once, and not the fault of whoever came last."""
        try:
            await self.flush()
        except NooblyError as error:
            if not self._failing:
                _log.warning("samples of %s wait, for the store fails: %s", self._scope.instance, error)
            self._failing = True
            self._shed()

    async def _drain(self) -> None:
        try:
            due = len(self._samples)
            while due > 0:
                batch = self._samples[: self._options.batch]
                del self._samples[: len(batch)]
                await self._hand_on(batch)
                due -= len(batch)
                await asyncio.sleep(0)  # A store in memory never waits, and others shall have their turn.
        finally:
            self._draining = None

    async def _hand_on(self, batch: list[Sample]) -> None:
        try:
            await self._record(batch)
        except NooblyError:
            self._samples[:0] = batch
            raise
        self._failing = False
        if self._recorded.handlers:
            names = tuple(dict.fromkeys(sample.name for sample in batch))
            self._recorded.emit(Recorded(self._scope.service, self._scope.instance, names, len(batch)))

    def _shed(self) -> bool:
        over = len(self._samples) - self._options.buffer
        if over >= self._options.batch:  # Many at once, for all that stay have to move.
            self.give_up(over)
        return True

    def give_up(self, count: int | None = None) -> None:
        """Drop the oldest samples, all by default, and say so."""
        dropped = len(self._samples) if count is None else count
        if not dropped:
            return
        del self._samples[:dropped]
        if not self._lost or count is None:
            _log.warning("the store of %s fails; its oldest samples are given up", self._scope.instance)
        self._lost += dropped
        scope = self._scope
        scope.environment.bus.emit(Lost(scope.service, scope.instance, dropped))

    def _rows(self) -> Rows:
        yield (self._scope.instance,), self._lost
