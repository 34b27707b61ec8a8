"""What ties an attempt to the adding of its job; see ``noobly.core.following``."""

from __future__ import annotations

from contextlib import AbstractContextManager

from noobly.core import following
from noobly.core.following import Spanned
from noobly.working.records import Job


def followed(job: Job, *, traced: bool) -> AbstractContextManager[object] | None:
    """Return the context to run a job in; None where it is the present one.

    Args:
        job: The job.
        traced: Spans are recorded, so the attempt gets one, linked to the span the job was added in.
    """
    return following.followed(job.correlation_id, job.traceparent, _span(job) if traced else None)


def _span(job: Job) -> Spanned:
    about: dict[str, str | int] = {
        "messaging.destination.name": job.queue,
        "messaging.message.id": job.id,
        "noobly.task": job.task,
        "noobly.attempt": job.attempts,
    }
    return Spanned("working.process", about)
