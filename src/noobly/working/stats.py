"""What became of jobs: attempts by task, and how many jobs are in each state, as gauges that a scrape has asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence

from noobly.core.lines import Merge
from noobly.core.looking import Looking
from noobly.core.scope import Scope
from noobly.working.driver import NewJob, State
from noobly.working.records import Job, JobStats

__all__ = ["Analytics", "Attempts"]

_ADDED = "Jobs that were added here."
_ATTEMPTS = "Duration of the attempts that workers of this process ended, by how they ended."
_JOBS = "Jobs of a queue by state, as its store says."
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


class Attempts:
    """The attempts that a worker ends."""

    def __init__(self, scope: Scope) -> None:
        labels = ("instance", "queue", "task", "verdict")
        self._instance = scope.instance
        self._durations = scope.environment.meter.histogram("noobly_job_duration_seconds", _ATTEMPTS, labels, _BOUNDS)

    def ended(self, job: Job, verdict: str, took: float) -> None:
        """Count an attempt that took so many seconds."""
        cell = self._durations.one((self._instance, job.queue, job.task, verdict))
        cell.total += took
        cell.counts[bisect_left(_BOUNDS, took)] += 1


class Analytics:
    """The metrics of one instance.

    Args:
        scope: The instance.
        names: Names its queues.
        ask: Tells of one queue.
        most: Queues whose jobs are asked for; 0 for none.
    """

    def __init__(
        self,
        scope: Scope,
        names: Callable[[], Awaitable[list[str]]],
        ask: Callable[[str], Awaitable[JobStats]],
        most: int,
    ) -> None:
        self._instance = scope.instance
        meter = scope.environment.meter
        self._added = meter.counter("noobly_jobs_added", _ADDED, ("instance", "queue", "task"))
        self._jobs = meter.gauge("noobly_jobs", _JOBS, ("instance", "queue", "state"), Merge.MOSTRECENT)
        self._ends: list[Callable[[], None]] = []
        if most:
            look = Looking(names, ask, self._show, nothing=lambda queue: JobStats(queue=queue), most=most)
            self._ends.append(meter.watch(look))

    def close(self) -> None:
        """Ask for nothing more."""
        for end in self._ends:
            end()

    def added(self, jobs: Sequence[NewJob]) -> None:
        """Count jobs that were added."""
        for job in jobs:
            self._added.one((self._instance, job.queue, job.task)).value += 1

    def _show(self, stats: JobStats) -> None:
        for state in State:
            count: int = getattr(stats, state.value)
            self._jobs.labels(self._instance, stats.queue, state.value).set(count)
