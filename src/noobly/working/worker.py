"""A worker: claims jobs of some queues, runs so many at once, and ends gracefully."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Collection, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter
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
from noobly.working.lifespans import Living
from noobly.working.misplaced import Misplaced
from noobly.working.patience import lasting, pause, refused
from noobly.working.places import Asked, Places
from noobly.working.records import Held, Settled, Value
from noobly.working.running import Attempt, Stop
from noobly.working.settling import Answer, Settling
from noobly.working.states import LATE
from noobly.working.stats import Attempts
from noobly.working.tasks import Tasks

_log = logging.getLogger("noobly.working")

_SURPLUS = 1.0
"""Seconds for which a job waits here for a place; then others may have it."""

_STUBBORN = 1.0
"""Seconds that handlers have to end once they were cancelled; they are given back then, and not waited for."""

_LOST = Beat.LOST.value

_LAST = 2.0
"""Seconds that the store has to be told how the last attempts ended."""


class Workable(Protocol):
    """The public methods of jobs that a worker is made of."""

    scope: Scope
    slice: float
    late: float
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
        self._surplus: dict[Attempt, tuple[str, asyncio.TimerHandle]] = {}
        self._late: dict[asyncio.Future[list[Held]], str] = {}
        self._places = Places(plan.concurrency, len(plan.queues), self._attempts, lingering=self._lingering)
        self._executor.freed = self._freed
        self._misplaced = Misplaced(tasks, plan.queues)
        self._settling = {
            queue: Settling(jobs.settle, queue, plan.lease, partial(self._settled, queue)) for queue in plan.queues
        }
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled: then claim nothing more, give running jobs their grace, and release the rest.

        Whoever cancels once more takes the grace away. It ends a few seconds after the grace at the latest, without
        handlers that do not end and a store that does not answer; the lifespans are around all that.

        Raises:
            NooblyError: Jobs can neither be claimed now nor later, as without permission.
            Exception: What a lifespan raises before the worker ends.
        """
        async with Living(self._tasks.lifespans) as living:
            try:
                await self._work(living)
            except ExceptionGroup as group:  # One task's error has ended the others, and is what the caller can act on.
                raise group.exceptions[0] from group

    async def _work(self, living: Living) -> None:
        self._loop = asyncio.get_running_loop()
        self._misplaced.unused()
        heart = Heart(
            self._twin,
            lease=self._plan.lease,
            holds=self._attempts,
            told=self._told,
            named=self._named,
            codes=self._tasks.codes(),
        )
        async with heart:
            try:
                async with asyncio.TaskGroup() as group:
                    for queue in self._plan.queues:
                        group.create_task(self._serve(queue), name=f"queue {queue}")
                    group.create_task(self._sweep(), name="sweep")
                    group.create_task(heart.sound(), name="heart")
                    group.create_task(living.sound(), name="lifespans")
            finally:
                await self._end()

    async def _serve(self, queue: str) -> None:
        """Claim jobs of one queue as places become free; while the store is down, try again after a pause."""
        failures, bounds, empty = 0, self._tasks.bounds(queue), False
        while True:
            asked = (self._places.beside() if empty else None) or await self._places.ask()
            try:
                empty = await self._claim(queue, asked, bounds) < asked.most
            except NooblyError as error:
                self._freed()
                if lasting(error):
                    raise
                wait = pause(error, failures)
                _complain(queue, error, failures, wait)
                await asyncio.sleep(wait)
                failures += 1
                continue
            failures = 0

    async def _claim(self, queue: str, asked: Asked, bounds: Bounds) -> int:
        """Claim jobs and begin them, those at least for which there are places; return how many there were."""
        plan, wait = self._plan, self._jobs.slice if asked.waits else None
        claiming = asyncio.ensure_future(
            self._jobs.claim(queue, plan.name, max=asked.most, wait=wait, lease=plan.lease, bounds=bounds)
        )
        try:
            found = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            self._late[claiming] = queue
            raise
        finally:
            self._places.answered(asked)
        for held in found:
            attempt = Attempt(held)
            self._attempts[queue, attempt.hold] = attempt
            if self._places.room() > 0:
                self._begin(queue, attempt)
            else:
                self._spare(queue, attempt, bounds)
        self._freed()
        return len(found)

    def _begin(self, queue: str, attempt: Attempt) -> None:
        self._places.busy += 1
        attempt.task = task = self._loop.create_task(self._one(queue, attempt), name=attempt.hold.id)
        self._running.add(task)

    def _spare(self, queue: str, attempt: Attempt, bounds: Bounds) -> None:
        """Let a job wait here for a place: as long as its start costs, where starts are limited, for it is spent."""
        cost = bounds.period / bounds.starts if bounds.starts else 0.0
        timer = self._loop.call_later(max(_SURPLUS, cost), self._release, attempt)
        self._surplus[attempt] = queue, timer

    def _release(self, attempt: Attempt) -> None:
        """Give a job back that has waited here for a place."""
        queue, timer = self._surplus.pop(attempt)
        timer.cancel()
        self._tell(queue, attempt, Verdict.RELEASE)

    def _lingering(self) -> int:
        return self._executor.lingering

    def _freed(self) -> None:
        """Give places that became free to jobs that wait for one here, and then to those that stand in line."""
        while self._surplus and self._places.room() > 0:
            attempt = next(iter(self._surplus))
            queue, timer = self._surplus.pop(attempt)
            timer.cancel()
            self._begin(queue, attempt)
        self._places.changed.set()

    async def _one(self, queue: str, attempt: Attempt) -> None:
        """Run one job; its end is told together with that of others, while another handler may begin already."""
        settled, began = None, perf_counter()
        try:
            settled = self._refused(attempt.held) or await self._run(attempt)
        finally:
            attempt.took = perf_counter() - began
            self._places.busy -= 1
            self._ended(queue, attempt, settled)
            self._running.discard(attempt.task)
            self._freed()

    def _ended(self, queue: str, attempt: Attempt, settled: Settled | None) -> None:
        if attempt.task not in self._running:
            return  # It was given back, for it did not end in time.
        if settled is not None:
            self._settling[queue].tell(attempt, settled)
            return
        if attempt.stopped is Stop.LOST:
            self._announce(attempt, _LOST)
        self._attempts.pop((queue, attempt.hold), None)

    def _run(self, attempt: Attempt) -> Awaitable[Settled | None]:
        if self._started.handlers:
            job = attempt.held.job
            self._started.emit(events.Started(*self._where, job.queue, job.id, job.task, job.attempts))
        return attempt.run(self._tasks, self._executor, self._chance)

    def _refused(self, held: Held) -> Settled | None:
        """Return the end of a job that is not to be run at all."""
        job = held.job
        if self._misplaced.possible:
            self._misplaced.look(job)
        if job.cancelling:
            return Settled(id=job.id, token=held.token, verdict=Verdict.CANCELLED, error=Stop.CANCELLED.value)
        if job.stalls > self._plan.max_stalls:
            return Settled(
                id=job.id, token=held.token, verdict=Verdict.FAILED, error=f"its worker vanished {job.stalls} times"
            )
        if 0 < job.expires_at <= self._clock.time() and held.fence <= 1:
            return Settled(id=job.id, token=held.token, verdict=Verdict.EXPIRED, error=LATE)
        return None

    def _settled(self, queue: str, attempt: Attempt, settled: Settled, answer: Answer) -> None:
        """Take the store's answer to how an attempt ended."""
        if isinstance(answer, NooblyError):
            if settled.verdict is Verdict.SUCCEEDED and refused(answer):
                # The result cannot be stored, so the job has not succeeded.
                failed = msgspec.structs.replace(settled, verdict=Verdict.FAILED, result=None, error=answer.message)
                self._settling[queue].tell(attempt, failed)
                return
            _log.warning("job %s of queue %r could not be settled and will run again: %s", settled.id, queue, answer)
        else:
            if not answer and settled.verdict is not Verdict.RELEASE:
                _log.warning("job %s of queue %r ended here, but its lease had ended before", settled.id, queue)
            self._announce(attempt, settled.verdict.value if answer else _LOST)
        self._attempts.pop((queue, attempt.hold), None)
        self._places.changed.set()

    def _announce(self, attempt: Attempt, verdict: str) -> None:
        if attempt.took is None:
            return
        job = attempt.held.job
        self._jobs.attempts.ended(job, verdict, attempt.took)
        if self._over.handlers:
            self._over.emit(events.Ended(*self._where, job.queue, job.id, job.task, verdict, attempt.took))

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

    async def _end(self) -> None:
        """Finish; whoever cancels once more takes the grace away, and still all is told before this returns."""
        finishing = self._loop.create_task(self._finish(), name="finish")
        again: asyncio.CancelledError | None = None
        task = asyncio.current_task()
        if task is not None and task.cancelling() > 1:
            self._hurry.set()
        while not finishing.done():
            try:
                await asyncio.wait([finishing])
            except asyncio.CancelledError as error:
                again = error
                self._hurry.set()
        if again is not None:
            raise again from finishing.exception()
        finishing.result()

    async def _finish(self) -> None:
        """Wait for running jobs, release those that are late, and tell how all ended."""
        for attempt in list(self._surplus):
            self._release(attempt)
        await asyncio.gather(self._give_back(), self._end_running())
        await asyncio.gather(*(settling.close(_LAST) for settling in self._settling.values()))
        await self._executor.close()

    async def _end_running(self) -> None:
        if self._running:
            await self._grace()
        for attempt in list(self._attempts.values()):
            attempt.stop(Stop.RELEASED)
        if self._running:
            await asyncio.wait(self._running, timeout=_STUBBORN)
        for (queue, _), attempt in list(self._attempts.items()):
            if attempt.task in self._running:
                _log.warning("job %s of queue %r does not end; it may run twice", attempt.hold.id, queue)
                self._running.discard(attempt.task)
                self._tell(queue, attempt, Verdict.RELEASE)

    async def _grace(self) -> None:
        """Wait until running jobs have ended, their grace is over, or somebody has taken it away."""
        waits = [self._loop.create_task(one) for one in (_over(self._running), self._hurry.wait())]
        await asyncio.wait(waits, timeout=self._plan.grace, return_when=asyncio.FIRST_COMPLETED)
        for one in waits:
            one.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _give_back(self) -> None:
        """Release what claims bring that were under way when the worker ended."""
        if not self._late:
            return
        await asyncio.wait(self._late, timeout=self._jobs.late)
        for claiming in self._late:
            claiming.cancel()
        done, _ = await asyncio.wait(self._late, timeout=_LAST)
        for claiming in done:
            if not claiming.cancelled() and claiming.exception() is None:
                for held in claiming.result():
                    self._tell(self._late[claiming], Attempt(held), Verdict.RELEASE)

    def _tell(self, queue: str, attempt: Attempt, verdict: Verdict) -> None:
        held = attempt.held
        self._settling[queue].tell(attempt, Settled(id=held.job.id, token=held.token, verdict=verdict))


async def _over(running: Collection[asyncio.Task[None]]) -> None:
    await asyncio.wait(running)


def _complain(queue: str, error: NooblyError, failures: int, wait: float) -> None:
    if error.temporary and not failures:
        _log.warning("jobs of queue %r cannot be claimed; trying again: %s", queue, error)
    elif not error.temporary:
        _log.error("jobs of queue %r cannot be claimed; trying again in %g s: %s", queue, wait, error)


def _report(jobs: Workable) -> Report:
    return jobs.report
