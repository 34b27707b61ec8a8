"""What those who add jobs, look at them and run them see."""

from __future__ import annotations

from typing import Any

import msgspec

from noobly.core.checks import whole
from noobly.core.clock import Clock, pause, seconds
from noobly.core.codec import DECODE_JSON, SHALLOW, UNREADABLE, Codec, Damaged, check_depth, encode
from noobly.core.errors import Conflict, TooLarge
from noobly.working.driver import Bounds, Hold, JobRecord, Outcome, Retrying, State, Verdict

Value = Any
"""An argument, a result or a progress, after a trip through JSON."""


UNLIMITED = 9e9
"""The seconds of a job that may take as long as it likes, though its task has a limit."""


class JobFailed(Conflict):
    """A job whose result was asked for did not succeed; ``job`` is the job."""

    code = "job_failed"

    def __init__(self, message: str = "", *, retry_after: float | None = None, job: Job | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.job = job


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job to be added.

    Args:
        task: The name of what is to be done.
        args: Its argument: what JSON carries, a msgspec Struct or a dataclass.
        queue: The queue it waits in.
        id: Its id; made up by default. A job whose id exists is not added again.
        priority: 0 to 9; higher ones run first.
        delay: Seconds before which it does not run.
        retries: How often it is tried again after a failure.
        backoff: Seconds of the first pause.
        backoff_cap: The longest pause, in seconds.
        timeout: Seconds that one attempt may take; 0 for no limit, None for that of the task, where it runs.
        expires: Seconds after which it is not begun any more; 0 for never.
        unique: A key; while another job of the queue has it, this one is not added.
        unique_for: Seconds for which a key counts; 0 for until its job has ended.
        after: Jobs that are added with it, and that it runs after.
        lenient: It may fail without failing the job that runs after it.
    """

    task: str
    args: Value = None
    queue: str = "default"
    id: str | None = None
    priority: int = 0
    delay: float = 0.0
    retries: int = 0
    backoff: float = 1.0
    backoff_cap: float = 300.0
    timeout: float | None = None
    expires: float = 0.0
    unique: str | None = None
    unique_for: float = 0.0
    after: list[JobSpec] = []
    lenient: bool = False


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job to be added.

    Args:
        id: Its id; of a duplicate, the id of the job that was there before.
        queue: Its queue.
        duplicate: Nothing was added, for a job of that id or that unique key was there before.
    """

    id: str
    queue: str
    duplicate: bool = False


class Job(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A job. Times are seconds since the epoch, 0 where there is none yet.

    Args:
        id: Its id, unique in its queue.
        queue: Its queue.
        task: The name of what is done.
        args: Its argument.
        state: Where it stands.
        priority: 0 to 9.
        attempts: How often it was begun; releases and vanished workers do not count.
        max_attempts: How often it is tried in all.
        stalls: How often its worker vanished.
        timeout: Seconds that one attempt may take; 0 for what its task says, ``UNLIMITED`` for no limit.
        created_at: When it was added.
        run_at: When it may run.
        expires_at: When it is not begun any more.
        started_at: When its latest attempt began.
        finished_at: When it ended.
        progress: What its handler reported last.
        result: What its handler returned.
        error: Why its latest attempt failed; empty where none did.
        worker: Who runs or ran it.
        pending: How many jobs it still waits for.
        cancelling: Somebody has asked for its end.
        correlation_id: What ties it to the request that added it; empty for nothing.
        traceparent: The trace it was added in (W3C Trace Context); empty for none.
    """

    id: str
    queue: str
    task: str
    args: Value
    state: State
    priority: int = 0
    attempts: int = 0
    max_attempts: int = 1
    stalls: int = 0
    timeout: float = 0.0
    created_at: float = 0.0
    run_at: float = 0.0
    expires_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    progress: Value = None
    result: Value = None
    error: str = ""
    worker: str = ""
    pending: int = 0
    cancelling: bool = False
    correlation_id: str = ""
    traceparent: str = ""


class Held(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A job in the hands of one worker.

    Args:
        job: The job, with this attempt counted.
        retrying: How often it is tried, and how long the pauses are.
        token: What ``beat`` and ``settle`` want.
        fence: A number that is greater with each claim of the job.
        unreadable: Why its argument is no JSON; empty where it is.
    """

    job: Job
    retrying: Retrying
    token: str
    fence: int
    unreadable: str = ""


class Settled(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """How one attempt ended.

    Args:
        id: The job's id.
        token: The token it was claimed with.
        verdict: How it ended.
        result: What its handler returned.
        error: Why it failed.
        delay: Seconds before it runs again.
    """

    id: str
    token: str
    verdict: Verdict
    result: Value = None
    error: str = ""
    delay: float = 0.0


class JobStats(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of a queue are in each state."""

    queue: str
    queued: int = 0
    delayed: int = 0
    running: int = 0
    retrying: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    paused: bool = False


_ERROR = 4000
"""Characters that are kept of an error."""

_MOST = 1_000_000_000
"""Jobs that bounds may speak of."""


class Forms:
    """From what users see to what is stored, and back.

    Args:
        most: Bytes of JSON of an argument, a result or a progress.
        clock: Where the time is read.
    """

    def __init__(self, most: int, clock: Clock) -> None:
        self._most = most
        self.now = clock.time

    def data(self, value: object, what: str) -> bytes:
        """Return a value as JSON; None is nothing.

        Raises:
            InvalidArgument: JSON cannot carry it.
            TooLarge: It is over the limit.
        """
        if value is None:
            return b""
        data = encode(value, Codec.JSON, what)
        if len(data) > self._most:
            raise TooLarge(f"{what} has {len(data)} bytes; {self._most} is the most")
        return data

    def outcome(self, settled: Settled) -> Outcome:
        """Return the outcome of an attempt, ready to be stored.

        Raises:
            InvalidArgument: JSON cannot carry the result, or the delay is no length of time.
            TooLarge: The result is over the limit.
        """
        return Outcome(
            hold=Hold(settled.id, settled.token),
            verdict=settled.verdict,
            result=self.data(settled.result, f"the result of job {settled.id}"),
            error=settled.error[:_ERROR],
            delay=pause(settled.delay, "delay"),
        )


def checked(bounds: Bounds) -> Bounds:
    """Return bounds, unless they are none.

    Raises:
        InvalidArgument: A number or the period is bad.
    """
    whole(bounds.starts, "starts", 0, _MOST)
    whole(bounds.running, "running", 0, _MOST)
    seconds(bounds.period, "period")
    return bounds


def overdue(record: JobRecord, now: float) -> bool:
    """Return whether nobody has begun a job in its time, and its store has not noticed yet."""
    waits = not record.state.final and record.state is not State.RUNNING
    return waits and not record.started_at and 0 < record.expires_at <= now


def value(data: bytes, what: str) -> object:
    """Return what some stored JSON holds; nothing is None.

    Raises:
        Damaged: It is no JSON.
    """
    if not data:
        return None
    try:
        found = DECODE_JSON(data)
        if len(data) > SHALLOW:
            check_depth(data)
    except UNREADABLE as error:
        raise Damaged(f"{what} is no JSON: {error}") from error
    return found


def readable(data: bytes) -> object:
    """Return what some stored JSON holds; None where it is none."""
    if not data:
        return None
    try:
        return value(data, "")
    except Damaged:
        return None


def job(record: JobRecord) -> Job:
    """Return a job as users see it; what is no JSON is None."""
    # In two steps, for Python passes more than 15 names by way of a dictionary, which takes twice as long.
    begun = Job(
        id=record.id,
        queue=record.queue,
        task=record.task,
        args=readable(record.data),
        state=record.state,
        priority=record.priority,
        attempts=record.attempts,
        max_attempts=record.retrying.attempts,
        stalls=record.stalls,
        timeout=record.timeout,
        created_at=record.created_at,
        run_at=record.run_at,
        expires_at=record.expires_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
    )
    return msgspec.structs.replace(
        begun,
        progress=readable(record.progress) if record.progress else None,
        result=readable(record.result) if record.result else None,
        error=record.error,
        worker=record.worker,
        pending=record.pending,
        cancelling=record.cancelling,
        correlation_id=record.correlation_id,
        traceparent=record.traceparent,
    )
