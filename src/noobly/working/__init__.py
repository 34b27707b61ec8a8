"""Working: background jobs with retries, progress and results, run by workers here or elsewhere."""

from noobly.working.context import JobContext, JobInfo, ProcessContext, ThreadContext
from noobly.working.driver import Bounds, Can, State, Verdict
from noobly.working.handle import JobHandle
from noobly.working.jobs import Jobs
from noobly.working.opening import open_jobs
from noobly.working.options import JobOptions
from noobly.working.records import Job, JobFailed, JobSpec, JobStats, Ticket
from noobly.working.tasks import Task, TaskOptions, Tasks

__all__ = [
    "Bounds",
    "Can",
    "Job",
    "JobContext",
    "JobFailed",
    "JobHandle",
    "JobInfo",
    "JobOptions",
    "JobSpec",
    "JobStats",
    "Jobs",
    "ProcessContext",
    "State",
    "Task",
    "TaskOptions",
    "Tasks",
    "ThreadContext",
    "Ticket",
    "Verdict",
    "open_jobs",
]
