"""One attempt of one job: run, bounded, judged."""

from __future__ import annotations

import asyncio
from enum import Enum

from noobly.core.backoff import jittered
from noobly.core.clock import Chance
from noobly.core.errors import InvalidArgument, NotFound, TooLarge
from noobly.working.driver import Hold, Retrying, Verdict
from noobly.working.executing import Executor, Failed, error_text
from noobly.working.records import Held, Settled
from noobly.working.tasks import Tasks


class Stop(Enum):
    """Why an attempt is stopped from outside."""

    CANCELLED = "somebody cancelled the job"
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

    def stop(self, why: Stop) -> None:
        """Stop it; the first reason counts."""
        if self.stopped is None:
            self.stopped = why
            if self._stoppable and self.task is not None:
                self.task.cancel()

    async def run(self, tasks: Tasks, executor: Executor, chance: Chance) -> Settled | None:
        """Run the job and return how it ended; None where that is nobody's business any more."""
        if self.held.unreadable:
            return self._settled(Verdict.FAILED, error=self.held.unreadable)
        try:
            result = await self._execute(tasks, executor)
        except asyncio.CancelledError as error:
            if self.stopped is None:  # The handler cancelled itself; releasing the job would repeat that for ever.
                return self._failed(tasks, error, "the handler cancelled itself", chance)
            return self._after_stop(tasks, error, chance)
        except Exception as error:  # noqa: BLE001 - a handler is anybody's code, and what it raises is the outcome
            return self._failed(tasks, error, error_text(error), chance)
        return self._settled(Verdict.SUCCEEDED, result=result)

    async def _execute(self, tasks: Tasks, executor: Executor) -> object:
        """Run the handler; for no longer than that ``stop`` cancels the task."""
        job = self.held.job
        task = tasks.find(job.task)
        limit = job.timeout or task.rules.timeout
        if self._is_stopped():
            raise asyncio.CancelledError
        self._stoppable = True
        timer = asyncio.get_running_loop().call_later(limit, self.stop, Stop.LATE) if limit else None
        try:
            return await executor.run(task, job.args, self.held)
        except asyncio.CancelledError:
            if self._is_stopped() and self.task is not None:
                self.task.uncancel()
            raise
        finally:
            self._stoppable = False
            if timer is not None:
                timer.cancel()

    def _is_stopped(self) -> bool:
        return self.stopped is not None

    def _after_stop(self, tasks: Tasks, error: BaseException, chance: Chance) -> Settled | None:
        if self.stopped is Stop.LATE:
            return self._failed(tasks, error, f"it took over {self._limit(tasks):g} s", chance)
        if self.stopped is Stop.CANCELLED:
            return self._settled(Verdict.CANCELLED, error=self.stopped.value)
        return None if self.stopped is Stop.LOST else self._settled(Verdict.RELEASE)

    def _limit(self, tasks: Tasks) -> float:
        return self.held.job.timeout or tasks.find(self.held.job.task).rules.timeout

    def _failed(self, tasks: Tasks, error: BaseException, text: str, chance: Chance) -> Settled:
        retrying = self.held.retrying
        if self.held.job.attempts >= retrying.attempts or _hopeless(error, tasks, self.held.job.task):
            return self._settled(Verdict.FAILED, error=text)
        after = getattr(error, "retry_after", None)
        least = float(after) if isinstance(after, int | float) and 0 < after < 1e7 else 0.0
        return self._settled(
            Verdict.RETRY, error=text, delay=max(least, pause(retrying, self.held.job.attempts, chance))
        )

    def _settled(self, verdict: Verdict, *, result: object = None, error: str = "", delay: float = 0.0) -> Settled:
        job = self.held.job
        return Settled(id=job.id, token=self.held.token, verdict=verdict, result=result, error=error, delay=delay)


def _hopeless(error: BaseException, tasks: Tasks, name: str) -> bool:
    """Return whether trying again is useless: the argument is wrong, or the task says so."""
    if isinstance(error, Failed):
        return error.final
    if isinstance(error, InvalidArgument | TooLarge | NotFound) and name not in tasks:
        return False
    return name in tasks and isinstance(error, (InvalidArgument, *tasks.find(name).rules.no_retry_on))


def pause(retrying: Retrying, attempts: int, chance: Chance) -> float:
    """Return the seconds before the next attempt."""
    if retrying.fixed:
        return retrying.base * (1 - retrying.jitter * chance.random())
    if retrying.jitter >= 1:
        return jittered(attempts, retrying.base, retrying.cap, chance)
    whole: float = min(retrying.cap, retrying.base * 2.0 ** min(attempts - 1, 60))
    return whole * (1 - retrying.jitter * chance.random())
