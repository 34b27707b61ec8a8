"""The jobs that users hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from noobly.core.checks import whole
from noobly.core.clock import Seconds, pause, seconds
from noobly.core.codec import Damaged
from noobly.core.errors import InvalidArgument, NotFound
from noobly.core.public import public
from noobly.core.scope import Scope
from noobly.core.waiting import awaited
from noobly.working import events, records, scripts
from noobly.working.adding import new_jobs
from noobly.working.driver import Beat, Bounds, Claim, Claimed, Hold, JobDriver, JobRecord, NewJob, Retention, State
from noobly.working.options import JobOptions
from noobly.working.records import Forms, Held, Job, JobSpec, JobStats, Settled, Ticket, Value
from noobly.working.stats import Analytics
from noobly.working.sugar import JobSugar
from noobly.working.tasks import DEFAULT_QUEUE

_LONGEST_WAIT = 20.0
_MOST_CLAIMED = 1000
_LINE = 4000


class Jobs(JobSugar):
    """Background jobs: a task's name and its argument, run by a worker, here or elsewhere, with retries and results.

    ``enqueue`` adds a job and returns a handle; ``work`` runs jobs of this program's ``tasks``. A job is run at least
    once: where its worker vanishes, it runs again. Results are kept by id for ``keep_succeeded`` seconds. Arguments and
    results are what JSON carries. Lengths of time are seconds or ``timedelta``.
    """

    service = "working"

    def __init__(self, driver: JobDriver, scope: Scope, options: JobOptions) -> None:
        self._begin(scope, options)
        self._driver = driver
        self._forms = Forms(min(options.data_bytes, driver.limits.value_bytes), scope.environment.clock)
        self._analytics = Analytics(scope, self.queues, self.stats, options.depth_queues)
        self._enqueued = scope.environment.bus.topic(events.Enqueued, scope.service, scope.instance)

    async def start(self) -> None:
        """Run scripts that were left by an earlier process, where there is a folder for them."""
        if await asyncio.to_thread(Path(self.options.activities).is_dir):
            self._serve_scripts()

    async def close(self) -> None:
        """Stop the workers that run here, and end."""
        self._analytics.close()
        await self._end()

    @public("POST", "add", permission="write")
    async def add(self, jobs: Sequence[JobSpec]) -> list[Ticket]:
        """Add up to 10,000 jobs, those included that others run after; all or none.

        Args:
            jobs: The jobs.

        Returns:
            One ticket for each of ``jobs``.

        Raises:
            InvalidArgument: A field is bad, or an argument is nothing that JSON carries.
            TooLarge: There are too many, or an argument is over the limit.
        """
        new = new_jobs(jobs, self._forms)
        if not new:
            return []
        added = list(zip(new, await self._driver.add(new), strict=True))
        self._announce([one for one, found in added if not found.duplicate])
        return [
            Ticket(id=found.id, queue=one.queue, duplicate=found.duplicate)
            for one, found in added
            if one.parent is None
        ]

    @public("GET", "job", permission="read")
    async def get(self, id: str, *, queue: str = DEFAULT_QUEUE) -> Job:
        """Return a job.

        Raises:
            NotFound: There is none of that id, or it has ended longer ago than ended jobs are kept.
        """
        return records.job(await self._record(id, queue, 0.0))

    @public("POST", "wait", permission="read", idempotent=True, waits=True)
    async def wait(self, id: str, *, queue: str = DEFAULT_QUEUE, within: Seconds = 2.0) -> Job:
        """Return a job once it has ended, or as it is after ``within`` seconds, 20 at most; 0 does not wait.

        Raises:
            NotFound: See ``get``.
        """
        limit = pause(within, "within")
        if limit > _LONGEST_WAIT:
            raise InvalidArgument(f"within must be at most {_LONGEST_WAIT:g} seconds, not {limit:g}")
        record = await awaited(
            lambda left: self._record(id, queue, left), limit, self.slice, enough=lambda found: found.state.final
        )
        return records.job(record)

    @public("GET", "jobs", permission="read")
    async def list_jobs(
        self, *, queue: str = DEFAULT_QUEUE, states: Sequence[State] = (), max: int = 100, skip: int = 0
    ) -> list[Job]:
        """Return jobs in some states, in all by default, the one that changed last first.

        Args:
            queue: The queue.
            states: The states.
            max: How many at most, up to 1000.
            skip: How many to pass over.
        """
        whole(skip, "skip", 0, 10_000_000)
        if not all(isinstance(one, State) for one in states):
            raise InvalidArgument(f"states must be of State, not {list(states)!r:.100}")
        return [records.job(one) for one in await self._driver.page(queue, list(states), skip, max)]

    @public("GET", "children", permission="read")
    async def children(self, id: str, *, queue: str = DEFAULT_QUEUE) -> list[Job]:
        """Return the jobs that a job runs after, as far as they are still kept."""
        return [records.job(one) for one in await self._driver.children(queue, id)]

    @public("GET", "logs", permission="read")
    async def logs(self, id: str, *, queue: str = DEFAULT_QUEUE) -> list[str]:
        """Return the lines that a job's handler has logged, and where its attempts failed; 1,000 at most."""
        return await self._driver.logs(queue, id)

    @public("GET", "stats", permission="read")
    async def stats(self, queue: str = DEFAULT_QUEUE) -> JobStats:
        """Return how many jobs of a queue are in each state."""
        counts = await self._driver.counts(queue)
        paused = "pause" in self.capabilities and await self._driver.paused(queue)
        return JobStats(queue=queue, paused=paused, **{state.value: count for state, count in counts.items()})

    @public("GET", "queues", permission="read")
    async def queues(self) -> list[str]:
        """Return the names of the queues that have jobs."""
        return await self._driver.queues()

    @public("POST", "cancel", permission="write", idempotent=True)
    async def cancel(self, id: str, *, queue: str = DEFAULT_QUEUE) -> State:
        """Cancel a job; one that is running is asked to end, and its state is then ``running`` for a moment.

        Returns:
            Its state afterwards.

        Raises:
            NotFound: See ``get``.
        """
        state = await self._driver.cancel(queue, id)
        if state is None:
            raise _unknown(id, queue)
        return state

    @public("POST", "rerun", permission="write", idempotent=True)
    async def rerun(self, id: str, *, queue: str = DEFAULT_QUEUE) -> bool:
        """Run a job now: one that waits for its time, or once more one that failed, was cancelled or has expired.

        Returns:
            Whether it is queued; a job that runs, is queued already, or has succeeded stays as it is, and so does
            one whose unique key another job has.
        """
        return await self._driver.rerun(queue, id)

    @public("DELETE", "job", permission="write")
    async def remove(self, id: str, *, queue: str = DEFAULT_QUEUE) -> bool:
        """Forget a job that is not running; return whether there was one."""
        return await self._driver.remove(queue, id)

    @public("POST", "pause", permission="admin", idempotent=True)
    async def pause(self, queue: str = DEFAULT_QUEUE) -> None:
        """Begin no more jobs of a queue on any worker, until ``resume``; running ones go on."""
        await self._driver.pause(queue)

    @public("POST", "resume", permission="admin", idempotent=True)
    async def resume(self, queue: str = DEFAULT_QUEUE) -> None:
        """Begin jobs again."""
        await self._driver.resume(queue)

    @public("POST", "run", permission="write")
    async def run_script(self, path: str, data: Value = None) -> Ticket:
        """Add a job that runs a Python file of the activities folder: its function ``run(data)``.

        Args:
            path: The file, relative to the folder; whether it is there shows when the job runs.
            data: What the function gets.

        Raises:
            InvalidArgument: The path leads out of the folder.
        """
        scripts.check(path)
        self._serve_scripts()
        spec = JobSpec(
            task=scripts.TASK,
            queue=scripts.QUEUE,
            args=scripts.Run(path=path, data=data),
            timeout=self.options.script_timeout,
        )
        return (await self.add([spec]))[0]

    @public("POST", "claim", permission="write", waits=True, undo="unclaimed")
    async def claim(
        self,
        queue: str,
        worker: str,
        *,
        max: int = 1,
        wait: Seconds | None = None,
        lease: Seconds | None = None,
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
    ) -> list[Held]:
        """Take jobs to run them; what a worker does for you.

        Args:
            queue: The queue.
            worker: Who takes them.
            max: How many at most, up to 1000.
            wait: Seconds to wait for the first one, 2 at most; None returns at once.
            lease: Seconds after which they run elsewhere, unless ``beat`` is called; the option by default.
            bounds: How fast the queue may be worked on, by all workers together.
        """
        whole(max, "max", 1, _MOST_CLAIMED)
        held = seconds(lease, "lease") or self.options.lease
        patience = min(self.slice, pause(wait, "wait"))
        asked = Claim(worker=worker[:200], most=max, lease=held, wait=patience, bounds=records.checked(bounds))
        return [_held(one) for one in await self._driver.claim(queue, asked)]

    @public("POST", "beat", permission="write", idempotent=True)
    async def beat(self, queue: str, holds: Sequence[Hold], lease: Seconds | None = None) -> list[Beat]:
        """Keep claims for another ``lease`` seconds, and learn which are lost or cancelled."""
        return await self._driver.beat(queue, holds, seconds(lease, "lease") or self.options.lease)

    @public("POST", "settle", permission="write", idempotent=True)
    async def settle(self, queue: str, attempts: Sequence[Settled]) -> list[bool]:
        """Tell how attempts ended; return for each whether its claim still stood."""
        return await self._driver.settle(queue, [self._forms.outcome(one) for one in attempts])

    @public("POST", "report", permission="write", idempotent=True)
    async def report(
        self, id: str, *, queue: str = DEFAULT_QUEUE, progress: Value = None, lines: Sequence[str] = ()
    ) -> bool:
        """Store a job's progress and log lines; return whether there is such a job that has not ended."""
        data = self._forms.data(progress, f"the progress of job {id}")
        return await self._driver.report(queue, id, data, [str(line)[:_LINE] for line in lines])

    @public("POST", "sweep", permission="admin", idempotent=True)
    async def sweep(self, queue: str = DEFAULT_QUEUE) -> int:
        """Forget ended jobs past their retention, and end those that nobody has begun in their time.

        Workers do so from time to time.

        Returns:
            How many are forgotten.
        """
        options = self.options
        retention = Retention(succeeded=options.keep_succeeded, others=options.keep_others, most=options.keep_most)
        return await self._driver.sweep(queue, retention)

    async def _record(self, id: str, queue: str, wait: float) -> JobRecord:
        record = await self._driver.wait(queue, id, wait)
        if record is not None and records.overdue(record, self._forms.now()):
            await self.sweep(queue)  # No worker serves the queue, or it would have.
            record = await self._driver.wait(queue, id, 0.0)
        if record is None:
            raise _unknown(id, queue)
        return record

    def _announce(self, new: Sequence[NewJob]) -> None:
        self._analytics.added(new)
        if not self._enqueued.handlers:
            return
        for one in new:
            self._enqueued.emit(events.Enqueued(self.scope.service, self.scope.instance, one.queue, one.id, one.task))


def _held(claimed: Claimed) -> Held:
    job, unreadable = records.job(claimed.job), ""
    if job.args is None:
        try:
            records.value(claimed.job.data, f"the argument of job {job.id}")
        except Damaged as error:
            unreadable = error.message
    return Held(job=job, retrying=claimed.job.retrying, token=claimed.token, fence=claimed.fence, unreadable=unreadable)


def _unknown(id: str, queue: str) -> NotFound:
    return NotFound(
        f"queue {queue!r} has no job {id!r}; it never had, or no longer keeps it, or the job is in another queue: "
        "a task with limits has a queue of its own, so name it"
    )
