"""From specifications to jobs ready to be stored, with those they run after."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from noobly.core.checks import Limits, Text, whole
from noobly.core.clock import fresh_id
from noobly.core.errors import InvalidArgument, TooLarge
from noobly.core.following import origin
from noobly.working.driver import NewJob, Retrying
from noobly.working.records import UNLIMITED, Forms, JobSpec

_TEXT = Text(1, 200).compile
_QUEUE, _ID, _TASK, _KEY = (_TEXT(name, Limits()) for name in ("queue", "id", "task", "unique"))
_MOST = 10_000
_DEEPEST = 50


def new_jobs(specs: Sequence[JobSpec], forms: Forms) -> list[NewJob]:
    """Return jobs ready to be stored, each after those it runs after, with what ties them to who adds them now.

    Raises:
        InvalidArgument: A field is bad.
        TooLarge: There are too many, or an argument is over the limit.
    """
    found = [job for spec in specs for job in _flow(spec, forms, None, 0)]
    if len(found) > _MOST:
        raise TooLarge(f"{len(found)} jobs are too many for one call; {_MOST} is the most")
    if len(found) > 1:
        _check_flows(found)
    identity, traceparent = origin()
    if not identity and not traceparent:
        return found
    return [replace(job, correlation_id=identity, traceparent=traceparent) for job in found]


def _check_flows(jobs: Sequence[NewJob]) -> None:
    """Refuse flows that no store keeps: a job runs before one other at most, and after those it is added with."""
    known: dict[tuple[str, str, str], NewJob] = {}
    for job in jobs:
        for kind, name in (("id", job.id), ("key", job.unique)):
            first = known.setdefault((kind, job.queue, name), job) if name is not None else job
            if first is not job:
                _check_again(first, job, f"the {kind} {name!r} of queue {job.queue!r}")


def _check_again(first: NewJob, again: NewJob, what: str) -> None:
    if first.pending or again.pending:
        raise InvalidArgument(f"{what} stands twice in one call, and for a job that runs after others; add it once")
    parents = {(job.parent_queue, job.parent) for job in (first, again) if job.parent is not None}
    if len(parents) > 1:
        raise InvalidArgument(f"{what} stands below two jobs of one call; a job can run before one other only")


def _flow(spec: JobSpec, forms: Forms, parent: NewJob | None, depth: int) -> Iterator[NewJob]:
    if depth > _DEEPEST:
        raise InvalidArgument(f"jobs run after jobs more than {_DEEPEST} levels deep")
    job = _new(spec, forms, parent)
    for child in spec.after:
        yield from _flow(child, forms, job, depth + 1)
    yield job


def _new(spec: JobSpec, forms: Forms, parent: NewJob | None) -> NewJob:
    check(spec)
    return NewJob(
        id=spec.id if spec.id is not None else fresh_id(),
        queue=spec.queue,
        task=spec.task,
        data=forms.data(spec.args, f"the argument of task {spec.task!r}") or b"null",
        priority=spec.priority,
        delay=spec.delay,
        retrying=Retrying(attempts=spec.retries + 1, base=spec.backoff, cap=max(spec.backoff, spec.backoff_cap)),
        timeout=UNLIMITED if spec.timeout == 0 else spec.timeout or 0.0,
        expires=spec.expires,
        unique=spec.unique,
        unique_for=spec.unique_for,
        parent=parent.id if parent else None,
        parent_queue=parent.queue if parent else "",
        pending=len(spec.after),
        lenient=spec.lenient,
    )


def check(spec: JobSpec) -> None:
    """Refuse a bad specification.

    Raises:
        InvalidArgument: A field is bad.
    """
    _QUEUE(spec.queue)
    _TASK(spec.task)
    if spec.id is not None:
        _ID(spec.id)
    if spec.unique is not None:
        _KEY(spec.unique)
    whole(spec.priority, "priority", 0, 9)
    whole(spec.retries, "retries", 0, 10_000)
    for name in ("delay", "backoff", "backoff_cap", "timeout", "expires", "unique_for"):
        length = getattr(spec, name)
        if length is None and name == "timeout":
            continue
        if isinstance(length, bool) or not isinstance(length, int | float) or not 0 <= length < 1e10:
            raise InvalidArgument(f"{name} must be 0 or more and less than 1e10 seconds, not {length!r}")


def key_of(task: str, data: bytes) -> str:
    """Return the key under which jobs with equal arguments, as canonical JSON, are one."""
    return f"{task[:100]}:{hashlib.sha256(data).hexdigest()}"
