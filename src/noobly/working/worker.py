"""A worker: claims jobs of some queues, runs so many at once, and ends gracefully."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter
from types import CodeType
from typing import Protocol

import msgspec

from noobly.core.clock import Clock, Seconds
from noobly.core.errors import ConfigError, NooblyError
from noobly.core.scope import Scope
from noobly.working import events
from noobly.working.context import Report
from noobly.working.driver import Beat, Bounds, Hold, Verdict
from noobly.working.executing import Executor
from noobly.working.heart import Heart, Twin
from noobly.working.records import Held, Settled, Value
from noobly.working.running import Attempt, Stop
from noobly.working.settling import Answer, Settling
from noobly.working.stats import Attempts
from noobly.working.tasks import Tasks

_log = logging.getLogger("noobly.working")

_LONGEST_PAUSE = 5.0
_LATE = 0.25
"""Seconds that a claim has to bring what it has taken when the worker ends; longer ones only wait for a job."""

_UNSETTLED = 3
"""Jobs a worker may hold, running or being settled, as a multiple of its concurrency."""


class Workable(Protocol):
    """The public methods of jobs that a worker is made of."""

    scope: Scope
    slice: float
    attempts: Attempts

    async def claim(
        self, queue: str, worker: str, *, max: int, wait: Seconds | None, lease: Seconds | None, bounds: Bounds
    ) -> list[Held]: ...
    async def beat(self, queue: str, holds: Sequence[Hold], lease: Seconds | None = None) -> list[Beat]: ...
    async def settle(self, queue: str, attempts: Sequence[Settled]) -> list[bool]: ...
    async def report(self, id: str, *, queue: str, progress: Value = None, lines: Sequence[str] = ()) -> bool: ...
    async def sweep(self, queue: str) -> int: ...


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker works.

    Args:
        name: Its name, which jobs show.
        queues: The queues it serves.
        concurrency: Jobs it runs at once.
        lease: Seconds after which its jobs run elsewhere if it dies.
        grace: Seconds that running jobs have when it ends.
        max_stalls: How often a job's worker may vanish before the job fails.
        sweep_every: Seconds between two looks for old jobs.
    """

    name: str
    queues: tuple[str, ...]
    concurrency: int
    lease: float
    grace: float
    max_stalls: int
    sweep_every: float


class Worker:
    """Runs the jobs of some tasks.

    Args:
        jobs: Where they come from.
        tasks: What is to be done.
        plan: How it works.
        twin: Opens the jobs once more, for the heart's own thread.
        executor: Runs attempts.
    """

    def __init__(
        self, jobs: Workable, tasks: Tasks, plan: Plan, *, twin: Twin, executor: Executor | None = None
    ) -> None:
        if not plan.queues:
            raise ConfigError("a worker needs a queue: there are no tasks, and none is named")
        self._jobs, self._tasks, self._plan, self._twin = jobs, tasks, plan, twin
        self._executor = executor or Executor(plan.concurrency, _report(jobs))
        self._clock: Clock = jobs.scope.environment.clock
        self._chance = jobs.scope.environment.chance
        self._bus = jobs.scope.environment.bus
        self._where = (jobs.scope.service, jobs.scope.instance)
        self._started = self._bus.topic(events.Started, *self._where)
        self._over = self._bus.topic(events.Ended, *self._where)
        self._attempts: dict[tuple[str, Hold], Attempt] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._late: dict[asyncio.Future[list[Held]], str] = {}
        self._busy = 0
        self._settling = {
            queue: Settling(jobs.settle, queue, plan.lease, partial(self._settled, queue)) for queue in plan.queues
        }
        self._changed = asyncio.Event()
        self._executor.freed = self._changed.set
        self._stopping = False

    async def run(self) -> None:
        """Work until cancelled: then claim nothing more, give running jobs their grace, and release the rest.

        Raises:
            NooblyError: Jobs can neither be claimed now nor later, as without permission.
        """
        try:
            await self._work()
        except ExceptionGroup as group:  # One task's error has ended the others, and is what the caller can act on.
            raise group.exceptions[0] from group

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        heart = Heart(
            self._twin,
            lease=self._plan.lease,
            holds=self._attempts,
            told=self._told,
            named=self._named,
            codes=_codes(self._tasks),
        )
        async with heart:
            try:
                async with asyncio.TaskGroup() as group:
                    for queue in self._plan.queues:
                        group.create_task(self._serve(queue), name=f"queue {queue}")
                    group.create_task(self._sweep(), name="sweep")
                    group.create_task(heart.sound(), name="heart")
            finally:
                self._stopping = True
                await asyncio.shield(self._finish())

    async def _serve(self, queue: str) -> None:
        """Claim jobs of one queue as places become free; while the store is down, try again after a pause."""
        failures, bounds = 0, self._tasks.bounds(queue)
        while True:
            free = self._free()
            if free <= 0:
                self._changed.clear()
                await self._changed.wait()
                continue
            try:
                found = await self._claim(queue, free, bounds)
            except NooblyError as error:
                if not error.temporary:
                    raise
                if not failures:
                    _log.warning("jobs of queue %r cannot be claimed; trying again: %s", queue, error)
                failures += 1
                await asyncio.sleep(min(_LONGEST_PAUSE, 0.05 * 2 ** min(failures, 10)))
                continue
            failures = 0
            for held in found:
                self._begin(queue, held)

    def _free(self) -> int:
        """Return how many handlers may begin; those that have ended and are being settled are bounded too."""
        places = self._plan.concurrency - self._executor.lingering
        return min(places - self._busy, _UNSETTLED * self._plan.concurrency - len(self._attempts))

    async def _claim(self, queue: str, free: int, bounds: Bounds) -> list[Held]:
        plan = self._plan
        claiming = asyncio.ensure_future(
            self._jobs.claim(queue, plan.name, max=free, wait=self._jobs.slice, lease=plan.lease, bounds=bounds)
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            self._late[claiming] = queue
            raise

    def _begin(self, queue: str, held: Held) -> None:
        attempt = Attempt(held)
        self._busy += 1
        self._attempts[queue, attempt.hold] = attempt
        attempt.task = task = self._loop.create_task(self._one(queue, attempt), name=f"job {held.job.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _one(self, queue: str, attempt: Attempt) -> None:
        """Run one job; its end is told together with that of others, while another handler may begin already."""
        settled, began = None, perf_counter()
        try:
            settled = self._refused(attempt.held) or await self._run(attempt)
        finally:
            attempt.took = perf_counter() - began
            self._busy -= 1
            if settled is None:
                self._forget(queue, attempt)
            else:
                self._changed.set()
                self._settling[queue].tell(attempt, settled)

    def _run(self, attempt: Attempt) -> Awaitable[Settled | None]:
        if self._started.handlers:
            job = attempt.held.job
            self._started.emit(events.Started(*self._where, job.queue, job.id, job.task, job.attempts))
        return attempt.run(self._tasks, self._executor, self._chance)

    def _forget(self, queue: str, attempt: Attempt) -> None:
        self._attempts.pop((queue, attempt.hold), None)
        self._changed.set()

    def _refused(self, held: Held) -> Settled | None:
        """Return the end of a job that is not to be run at all."""
        job = held.job
        if job.cancelling:
            return Settled(id=job.id, token=held.token, verdict=Verdict.CANCELLED, error=Stop.CANCELLED.value)
        if job.stalls > self._plan.max_stalls:
            return Settled(
                id=job.id, token=held.token, verdict=Verdict.FAILED, error=f"its worker vanished {job.stalls} times"
            )
        if 0 < job.expires_at <= self._clock.time() and job.attempts <= 1:
            return Settled(id=job.id, token=held.token, verdict=Verdict.EXPIRED, error="nobody began it in its time")
        return None

    def _settled(self, queue: str, attempt: Attempt, settled: Settled, answer: Answer) -> None:
        """Take the store's answer to how an attempt ended."""
        if isinstance(answer, NooblyError):
            if settled.verdict is Verdict.SUCCEEDED and not answer.temporary:
                # The result cannot be stored, so the job has not succeeded.
                failed = msgspec.structs.replace(settled, verdict=Verdict.FAILED, result=None, error=answer.message)
                self._settling[queue].tell(attempt, failed)
                return
            _log.warning("job %s of queue %r could not be settled and will run again: %s", settled.id, queue, answer)
        else:
            if not answer and settled.verdict is not Verdict.RELEASE:
                _log.warning("job %s of queue %r ended here, but its lease had ended before", settled.id, queue)
            self._announce(attempt, settled.verdict)
        self._forget(queue, attempt)

    def _announce(self, attempt: Attempt, verdict: Verdict) -> None:
        if attempt.took is None:
            return
        job = attempt.held.job
        self._jobs.attempts.ended(job, verdict, attempt.took)
        if self._over.handlers:
            self._over.emit(events.Ended(*self._where, job.queue, job.id, job.task, verdict.value, attempt.took))

    def _told(self, queue: str, hold: Hold, beat: Beat) -> None:
        attempt = self._attempts.get((queue, hold))
        if attempt is None or attempt.took is not None:
            return
        if beat is Beat.LOST:
            _log.warning("job %s of queue %r lost its lease; it may run twice", hold.id, queue)
        attempt.stop(Stop.LOST if beat is Beat.LOST else Stop.CANCELLED)

    def _named(self, task: str, held: float) -> None:
        self._bus.emit(events.Blocked(*self._where, "", "", task, held))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._plan.sweep_every)
            for queue in self._plan.queues:
                with suppress(NooblyError):
                    await self._jobs.sweep(queue)

    async def _finish(self) -> None:
        """Wait for running jobs, release those that are late, and tell how all ended."""
        await asyncio.gather(self._give_back(), self._end_running())
        for settling in self._settling.values():
            await settling.close()
        await self._executor.close()

    async def _end_running(self) -> None:
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=self._plan.grace)
        for attempt in list(self._attempts.values()):
            attempt.stop(Stop.RELEASED)
        if late:
            await asyncio.wait(late)

    async def _give_back(self) -> None:
        """Release what claims bring that were under way when the worker ended."""
        if not self._late:
            return
        await asyncio.wait(self._late, timeout=_LATE)
        for claiming in self._late:
            claiming.cancel()
        await asyncio.wait(self._late)
        brought = [(claiming, queue) for claiming, queue in self._late.items() if not claiming.cancelled()]
        for claiming, queue in brought:
            held = claiming.result() if claiming.exception() is None else []
            for one in held:
                released = Settled(id=one.job.id, token=one.token, verdict=Verdict.RELEASE)
                self._settling[queue].tell(Attempt(one), released)


def _report(jobs: Workable) -> Report:
    return jobs.report


def _codes(tasks: Tasks) -> dict[CodeType, str]:
    functions = [(task.name, getattr(task.function, "__code__", None)) for task in tasks]
    return {code: name for name, code in functions if isinstance(code, CodeType)}
