"""One job in memory."""

from __future__ import annotations

import msgspec

from noobly.working.driver import JobRecord, NewJob, Retention, State


class Stored(msgspec.Struct, kw_only=True):
    """A job and what only the store knows of it; ``changed`` tells entries of the heaps that are out of date.

    Its times are of a clock that never goes back, those of the record of the wall clock.
    """

    record: JobRecord
    order: tuple[int, int]
    lenient: bool
    key: str | None
    due: float
    expires: float
    changed: int
    token: str = ""
    fence: int = 0
    until: float = 0.0
    ended: float = 0.0
    size: int = 0
    lines: list[str] = []
    children: list[tuple[str, str]] = []

    def set(self, **changes: object) -> None:
        """Change fields of the record."""
        self.record = msgspec.structs.replace(self.record, **changes)

    def kept_until(self, retention: Retention) -> float:
        """Return when it leaves, once it has ended."""
        kept = retention.succeeded if self.record.state is State.SUCCEEDED else retention.others
        return self.ended + kept

    def late(self, now: float) -> bool:
        """Return whether nobody has begun it in its time."""
        return 0 < self.expires <= now and self.fence == 0 and not self.record.state.final

    def weight(self) -> int:
        """Return the bytes of what users and workers have put into it."""
        record = self.record
        content = len(record.data) + len(record.result) + len(record.progress) + len(record.error)
        return content + sum(map(len, self.lines))


def fresh(new: NewJob, number: int, now: float, wall: float) -> Stored:
    """Return a new job as it is stored.

    Args:
        new: The job.
        number: Its place among the jobs of its queue.
        now: The time of the clock that never goes back.
        wall: The time of the wall clock.
    """
    record = JobRecord(
        id=new.id,
        queue=new.queue,
        task=new.task,
        data=new.data,
        state=State.DELAYED if new.delay > 0 or new.pending > 0 else State.QUEUED,
        priority=new.priority,
        retrying=new.retrying,
        timeout=new.timeout,
        created_at=wall,
        run_at=wall + new.delay,
        expires_at=wall + new.delay + new.expires if new.expires else 0.0,
        parent=new.parent,
        parent_queue=new.parent_queue,
        pending=new.pending,
    )
    if new.correlation_id or new.traceparent:  # Apart, for two names more would double what each job costs here.
        record = msgspec.structs.replace(record, correlation_id=new.correlation_id, traceparent=new.traceparent)
    return Stored(
        record=record,
        order=(-new.priority, number),
        lenient=new.lenient,
        key=new.unique,
        due=now + new.delay,
        expires=now + new.delay + new.expires if new.expires else 0.0,
        changed=number,
    )
