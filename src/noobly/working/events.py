"""What happens to jobs, as events; they carry names and ids, never arguments or results."""

from __future__ import annotations

from noobly.core.events import Event


class JobEvent(Event, frozen=True):
    """Base of the events of one job."""

    queue: str
    job: str
    task: str


class Enqueued(JobEvent, frozen=True):
    """A job was added here."""


class Started(JobEvent, frozen=True):
    """A worker of this process began an attempt."""

    attempt: int


class Ended(JobEvent, frozen=True):
    """A worker of this process ended an attempt.

    Args:
        verdict: ``succeeded``, ``failed``, ``retry``, ``cancelled``, ``expired`` or ``release``;
            ``lost`` where its lease had ended before, so that another worker tells of its end.
        seconds: How long it took.
    """

    verdict: str
    seconds: float


class Blocked(JobEvent, frozen=True):
    """A handler held the event loop of its worker for ``seconds``."""

    seconds: float
