"""Jobs in a queue that their task does not use, and queues without a task: what a worker says of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from noobly.working.driver import Bounds
from noobly.working.records import Job
from noobly.working.tasks import Tasks

_log = logging.getLogger("noobly.working")


class Misplaced:
    """Looks where jobs are, for limits hold in the queue of their task alone.

    Args:
        tasks: The tasks of a worker.
        queues: The queues that it serves.

    Attributes:
        possible: There are limits that may be missed.
    """

    def __init__(self, tasks: Tasks, queues: Sequence[str]) -> None:
        self._tasks, self._queues = tasks, queues
        self._bounded = {one.name: one.rules.queue for one in tasks if one.rules.bounds != Bounds()}
        self.possible = bool(self._bounded)

    def unused(self) -> None:
        """Say which queues no task uses."""
        used = self._tasks.queues()
        for queue in self._queues:
            if queue not in used:
                _log.warning("no task of this worker uses queue %r; the tasks use %s", queue, ", ".join(used) or "none")

    def look(self, job: Job) -> None:
        """Say that the limits of a job's task do not hold for it, once for each task."""
        queue = self._bounded.get(job.task, job.queue)
        if queue != job.queue:
            del self._bounded[job.task]
            _log.warning(
                "job %s of task %r is in queue %r and runs without the limits of its task, which hold in queue %r; "
                "add such jobs with the task itself, or name its queue",
                *(job.id, job.task, job.queue, queue),
            )
