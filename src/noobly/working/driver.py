"""The driver protocol of working: the file a provider author reads.

A driver keeps jobs in queues and hands each out to one worker under a lease. It moves jobs between states, each move
atomic; it never runs, validates, retries or logs anything. How often a job is tried, when, and what counts as failure
is the worker's business, which tells the outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Protocol

import msgspec

from noobly.core.capability import Capability
from noobly.core.checks import Few, Payload, Text, Whole
from noobly.core.operation import Driver, operation
from noobly.working.states import FINAL, Beat, State, Verdict

__all__ = [
    "FINAL",
    "Added",
    "Beat",
    "Bounds",
    "Can",
    "Claim",
    "Claimed",
    "Data",
    "Hold",
    "JobDriver",
    "JobId",
    "JobRecord",
    "NewJob",
    "Outcome",
    "Page",
    "Queue",
    "Retention",
    "Retrying",
    "State",
    "Verdict",
]

AT_ONCE = Few(1000)
Queue = Annotated[str, Text(1, 200)]
JobId = Annotated[str, Text(1, 200)]
Data = Annotated[bytes, Payload()]
Page = Annotated[int, Whole(1, 1000)]


class Can(Capability):
    """What a job provider may be able to do beyond the core."""

    PAUSE = "hold a queue back for all its workers"


class Retrying(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How often a job is tried, and how long the pauses are.

    Args:
        attempts: How often in all.
        base: Seconds of the first pause; it doubles with each attempt.
        cap: The longest pause, in seconds.
        jitter: Share of a pause that is drawn at random: 1 is full jitter, 0 none.
        fixed: Each pause is ``base``.
    """

    attempts: int = 1
    base: float = 1.0
    cap: float = 300.0
    jitter: float = 1.0
    fixed: bool = False


class NewJob(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A job to be added.

    Args:
        id: Its id, unique in its queue.
        queue: Its queue.
        task: The name of what is to be done.
        data: The argument, as JSON.
        priority: 0 to 9; higher ones run first.
        delay: Seconds before which it does not run.
        retrying: How often it is tried.
        timeout: Seconds that one attempt may take; 0 for no limit.
        expires: Seconds after which it is not begun any more; 0 for never.
        unique: A key; while another job of the queue has it, this one is dropped.
        unique_for: Seconds for which a key counts; 0 for until its job has ended.
        parent: The id of the job that runs after this one, added in the same call.
        parent_queue: That job's queue.
        pending: How many jobs this one runs after, all added in the same call.
        lenient: Where this one does not succeed, its parent runs all the same; else it fails too.
        correlation_id: What ties it to the request that added it; empty for nothing.
        traceparent: The trace it was added in (W3C Trace Context); empty for none.
    """

    id: str
    queue: str
    task: str
    data: bytes
    priority: int = 0
    delay: float = 0.0
    retrying: Retrying = Retrying()
    timeout: float = 0.0
    expires: float = 0.0
    unique: str | None = None
    unique_for: float = 0.0
    parent: str | None = None
    parent_queue: str = ""
    pending: int = 0
    lenient: bool = False
    correlation_id: str = ""
    traceparent: str = ""


class Added(msgspec.Struct, frozen=True, gc=False):
    """What became of a new job: its id, or the id of the job that has its id or key already."""

    id: str
    duplicate: bool = False


class JobRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A job as it is stored; what ``NewJob`` has too means the same here.

    Times are seconds since the epoch, 0 where there is none yet.

    Args:
        state: Where it stands.
        attempts: How often it was begun and ended, or is running now; releases and stalls do not count.
        stalls: How often its worker vanished.
        created_at: When it was added.
        run_at: When it may run.
        expires_at: When it is not begun any more.
        started_at: When its latest attempt began.
        finished_at: When it reached its last state.
        progress: What its handler reported last, as JSON; empty for nothing.
        result: What its handler returned, as JSON; empty for nothing.
        error: Why its latest attempt failed.
        worker: Who runs or ran it.
        pending: How many jobs it still waits for.
        cancelling: Somebody has asked for its end.
    """

    id: str
    queue: str
    task: str
    data: bytes
    state: State
    priority: int = 0
    retrying: Retrying = Retrying()
    timeout: float = 0.0
    attempts: int = 0
    stalls: int = 0
    created_at: float = 0.0
    run_at: float = 0.0
    expires_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    progress: bytes = b""
    result: bytes = b""
    error: str = ""
    worker: str = ""
    parent: str | None = None
    parent_queue: str = ""
    pending: int = 0
    cancelling: bool = False
    correlation_id: str = ""
    traceparent: str = ""


class Bounds(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """How fast a queue may be worked on, by all workers together.

    Args:
        starts: Jobs begun per ``period``; 0 for no limit. So many may begin at once, then one each ``period / starts``.
        period: Seconds.
        running: Jobs running at once; 0 for no limit.
    """

    starts: int = 0
    period: float = 1.0
    running: int = 0

    @property
    def cost(self) -> float:
        """Seconds that one start takes of the period; 0 without a limit."""
        return self.period / self.starts if self.starts else 0.0


class Claim(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How jobs are to be claimed.

    Args:
        worker: Who claims.
        most: How many at most.
        lease: Seconds after which a job whose worker has vanished is handed out again.
        wait: Seconds to wait for the first one, 2 at most; 0 returns at once.
        bounds: How fast the queue may be worked on.
    """

    worker: str
    most: int = 1
    lease: float = 30.0
    wait: float = 0.0
    bounds: Bounds = Bounds()


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """A job in the hands of one worker.

    Args:
        job: The job, with this attempt counted.
        token: What stands for this claim.
        fence: A number that is greater with each claim of the job, for stores that refuse an older worker's writes.
    """

    job: JobRecord
    token: str
    fence: int


class Hold(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One claim: the job's id and the token it was claimed with."""

    id: str
    token: str


class Outcome(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a worker tells of one claim.

    Args:
        hold: Which.
        verdict: How it ended.
        result: What the handler returned, as JSON.
        error: Why it failed.
        delay: Seconds before it runs again.
    """

    hold: Hold
    verdict: Verdict
    result: bytes = b""
    error: str = ""
    delay: float = 0.0


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long ended jobs are kept.

    Args:
        succeeded: Seconds that succeeded jobs are kept.
        others: Seconds that failed, cancelled and expired ones are kept.
        most: Ended jobs kept per queue; the oldest leave, succeeded ones first.
    """

    succeeded: float
    others: float
    most: int


class JobDriver(Driver, Protocol):
    """What every job provider does. A queue that nobody has added to is empty, and asking does not make it."""

    service: ClassVar[str] = "working"

    apart: bool
    """A second driver made from the same settings sees the same jobs, so it can keep claims from another thread.

    Where this is false, the driver's own ``beat`` may be called from another thread.
    """

    @operation(idempotent=True)
    async def add(self, jobs: Sequence[NewJob], /) -> list[Added]:
        """Add jobs, all or none; a job whose id exists is not added again, and one whose key is taken neither."""
        ...

    @operation(idempotent=False, waits=True)
    async def claim(self, queue: Queue, claim: Claim, /) -> list[Claimed]:
        """Hand out jobs: the highest priority first, then the one added first, within the queue's bounds.

        A job whose lease has ended is among them, with ``stalls`` counted and not ``attempts``.
        """
        ...

    @operation(idempotent=True)
    async def beat(self, queue: Queue, holds: Annotated[Sequence[Hold], AT_ONCE], lease: float, /) -> list[Beat]:
        """Let leases end ``lease`` seconds from now; return how each claim stands."""
        ...

    @operation(idempotent=True)
    async def settle(self, queue: Queue, outcomes: Annotated[Sequence[Outcome], AT_ONCE], /) -> list[bool]:
        """End claims; return for each whether it still stood, without which nothing changes.

        A job that was asked to end does not run again: ``RETRY`` and ``RELEASE`` cancel it.
        A job's parent runs once all it waits for have ended; it fails with the first one that does not succeed and is
        not lenient.
        """
        ...

    @operation(idempotent=True)
    async def report(
        self, queue: Queue, id: JobId, progress: Data, lines: Annotated[Sequence[str], AT_ONCE], /
    ) -> bool:
        """Store what a handler reports: its progress where it is not empty, and log lines, of which 1,000 are kept.

        Returns:
            Whether there is such a job that has not ended; without it nothing changes.
        """
        ...

    @operation(idempotent=True, waits=True)
    async def wait(self, queue: Queue, id: JobId, wait: float, /) -> JobRecord | None:
        """Return a job; where it has not ended, wait up to ``wait`` seconds, 2 at most, for its end."""
        ...

    @operation(idempotent=True)
    async def logs(self, queue: Queue, id: JobId, /) -> list[str]:
        """Return a job's log lines."""
        ...

    @operation(idempotent=True)
    async def children(self, queue: Queue, id: JobId, /) -> list[JobRecord]:
        """Return the jobs that a job runs after, those that are still kept, in the order in which they were added."""
        ...

    @operation(idempotent=True)
    async def page(self, queue: Queue, states: Sequence[State], skip: int, most: Page, /) -> list[JobRecord]:
        """Return jobs in some states, all for none: the one that ended or changed last first."""
        ...

    @operation(idempotent=True)
    async def cancel(self, queue: Queue, id: JobId, /) -> State | None:
        """Cancel a job that is not running, or ask for the end of one that is; return its state afterwards."""
        ...

    @operation(idempotent=True)
    async def rerun(self, queue: Queue, id: JobId, /) -> bool:
        """Queue a job at once: one that waits for its time, or a failed, cancelled or expired one, counting anew.

        One whose key another job has stays as it is.
        """
        ...

    @operation(idempotent=True)
    async def remove(self, queue: Queue, id: JobId, /) -> bool:
        """Forget a job that is not running."""
        ...

    @operation(idempotent=True)
    async def counts(self, queue: Queue, /) -> dict[State, int]:
        """Return how many jobs are in each state; states without any may be missing."""
        ...

    @operation(idempotent=True)
    async def queues(self) -> list[str]:
        """Return the names of the queues that have jobs, sorted, 10,000 at most."""
        ...

    @operation(idempotent=True)
    async def sweep(self, queue: Queue, retention: Retention, /) -> int:
        """Forget ended jobs past their retention, but for those whose parent has not ended; return how many.

        Before that, let jobs expire that nobody has begun in their time: those that wait and were never claimed.
        """
        ...

    @operation(idempotent=True, needs=Can.PAUSE)
    async def pause(self, queue: Queue, /) -> None:
        """Hand out nothing more from the queue to anybody, until ``resume``; running jobs go on."""
        ...

    @operation(idempotent=True, needs=Can.PAUSE)
    async def resume(self, queue: Queue, /) -> None:
        """Hand out again."""
        ...

    @operation(idempotent=True, needs=Can.PAUSE)
    async def paused(self, queue: Queue, /) -> bool:
        """Return whether the queue is held back."""
        ...

    @operation(idempotent=True)
    async def health(self) -> None:
        """Make one cheap round trip to the store.

        Raises:
            Unavailable: It does not answer.
        """
        ...
