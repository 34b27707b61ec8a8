"""One attempt of one job: run, bounded, judged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from enum import Enum
from functools import partial

from noobly.core.backoff import jittered
from noobly.core.clock import Chance
from noobly.core.codec import Damaged
from noobly.core.errors import InvalidArgument
from noobly.core.failure import cause, error_text, trace_text, wanted_pause
from noobly.core.following import failed
from noobly.working.driver import Hold, Retrying, Verdict
from noobly.working.executing import Executor
from noobly.working.following import followed
from noobly.working.processes import Failed
from noobly.working.records import UNLIMITED, Held, Settled
from noobly.working.states import ASKED
from noobly.working.tasks import Task, Tasks

_log = logging.getLogger("noobly.working")


_BY_ITSELF = "the handler cancelled itself"


class Stop(Enum):
    """Why an attempt is stopped from outside."""

    CANCELLED = ASKED
    LATE = "its time is over"
    LOST = "its lease had ended"
    RELEASED = "its worker stopped"


class Attempt:
    """One attempt, which may be stopped.

    Attributes:
        held: The job.
        hold: The claim.
        task: The task that runs it.
        stopped: Why it was stopped; None where it was not.
        took: Seconds it took; None until it is over and only the store is left to be told, which may know already.
    """

    def __init__(self, held: Held) -> None:
        self.held = held
        self.hold = Hold(held.job.id, held.token)
        self.stopped: Stop | None = None
        self.took: float | None = None
        self.task: asyncio.Task[None] | None = None
        self._stoppable = False
        self._timer: asyncio.TimerHandle | None = None

    def stop(self, why: Stop) -> None:
        """Stop it; the first reason counts."""
        if self.stopped is None:
            self.stopped = why
            if self._stoppable and self.task is not None:
                self.task.cancel()

    def run(self, tasks: Tasks, executor: Executor, chance: Chance) -> Awaitable[Settled | None]:
        """Run the job within what it carries; return how it ended, None where that is nobody's business any more."""
        following, running = followed(self.held.job, traced=executor.traced), self._run(tasks, executor, chance)
        return running if following is None else _within(following, running)

    async def _run(self, tasks: Tasks, executor: Executor, chance: Chance) -> Settled | None:
        if self.held.unreadable:
            self._show(executor, Damaged(self.held.unreadable))
            _log.error(
                "job %s of queue %r cannot be run: %s", self.held.job.id, self.held.job.queue, self.held.unreadable
            )
            return self._settled(Verdict.FAILED, error=self.held.unreadable)
        try:
            result = await self._execute(tasks, executor)
        except asyncio.CancelledError as error:
            if self.stopped is Stop.CANCELLED:
                return self._settled(Verdict.CANCELLED, error=self.stopped.value)
            if self.stopped in (Stop.LOST, Stop.RELEASED):
                return None if self.stopped is Stop.LOST else self._settled(Verdict.RELEASE)
            # A handler that cancels itself has failed as well; releasing the job would repeat that for ever.
            failure: BaseException = error
        except BaseException as error:  # noqa: BLE001 - a handler is anybody's code, and what it raises is the outcome
            failure = error
        else:
            return self._settled(Verdict.SUCCEEDED, result=result)
        self._show(executor, failure)
        settled = self._failed(tasks, failure, chance)
        await executor.note(self.held, [_trace(failure)])
        return settled

    def _show(self, executor: Executor, failure: BaseException) -> None:
        if executor.traced:
            failed(failure)

    async def _execute(self, tasks: Tasks, executor: Executor) -> object:
        """Run the handler; for no longer than that ``stop`` cancels the task."""
        task = tasks.find(self.held.job.task)
        if self._is_stopped():
            raise asyncio.CancelledError
        self._stoppable = True
        try:
            limit = self._limit(task)
            begun = partial(self._begun, limit) if limit else _unlimited
            return await executor.run(task, self.held.job.args, self.held, begun)
        except asyncio.CancelledError:
            if self._is_stopped() and self.task is not None:
                self.task.uncancel()
            raise
        finally:
            self._stoppable = False
            if self._timer is not None:
                self._timer.cancel()

    def _begun(self, limit: float) -> None:
        """Count the time from here: what an attempt waits for a thread or a process is no fault of its own."""
        if self._stoppable:
            self._timer = asyncio.get_running_loop().call_later(limit, self.stop, Stop.LATE)

    def _is_stopped(self) -> bool:
        return self.stopped is not None

    def _limit(self, task: Task[..., object]) -> float:
        limit = self.held.job.timeout or task.rules.timeout
        return 0.0 if limit >= UNLIMITED else limit

    def _failed(self, tasks: Tasks, error: BaseException, chance: Chance) -> Settled:
        job, retrying, text = self.held.job, self.held.retrying, self._text(tasks, error)
        what = (job.id, job.queue, job.task, job.attempts, retrying.attempts, text)
        if job.attempts >= retrying.attempts or _hopeless(error, tasks, job.task):
            _log.error("job %s of queue %r, task %r, has failed, attempt %d of %d: %s", *what, exc_info=cause(error))
            return self._settled(Verdict.FAILED, error=text)
        delay = max(wanted_pause(error), pause(retrying, job.attempts, chance))
        _log.warning(
            "job %s of queue %r, task %r, failed in attempt %d of %d: %s; again in %.3g s",
            *what,
            delay,
            exc_info=cause(error),
        )
        return self._settled(Verdict.RETRY, error=text, delay=delay)

    def _text(self, tasks: Tasks, error: BaseException) -> str:
        if isinstance(error, asyncio.CancelledError):
            late = self.stopped is Stop.LATE
            return f"it took over {self._limit(tasks.find(self.held.job.task)):g} s" if late else _BY_ITSELF
        return error.message if isinstance(error, Failed) else error_text(error)

    def _settled(self, verdict: Verdict, *, result: object = None, error: str = "", delay: float = 0.0) -> Settled:
        job = self.held.job
        return Settled(id=job.id, token=self.held.token, verdict=verdict, result=result, error=error, delay=delay)


async def _within(context: AbstractContextManager[object], running: Awaitable[Settled | None]) -> Settled | None:
    with context:
        return await running


def _unlimited() -> None:
    """Begin to count no time."""


def _hopeless(error: BaseException, tasks: Tasks, name: str) -> bool:
    """Return whether trying again is useless: the argument is wrong, or the task says so."""
    if isinstance(error, Failed):
        return error.final
    return name in tasks and isinstance(error, (InvalidArgument, *tasks.find(name).rules.no_retry_on))


def _trace(error: BaseException) -> str:
    return (isinstance(error, Failed) and error.trace) or trace_text(error)


def pause(retrying: Retrying, attempts: int, chance: Chance) -> float:
    """Return the seconds before the next attempt."""
    if retrying.fixed:
        return retrying.base * (1 - retrying.jitter * chance.random())
    if retrying.jitter >= 1:
        return jittered(attempts, retrying.base, retrying.cap, chance)
    whole: float = min(retrying.cap, retrying.base * 2.0 ** min(attempts - 1, 60))
    return whole * (1 - retrying.jitter * chance.random())
