"""How attempts end in BullMQ, as commands: its own scripts, with what it has no state for beside them."""

from __future__ import annotations

from collections.abc import Mapping

from noobly.clients.redis import Command
from noobly.working.driver import Outcome, Retention, Verdict
from noobly.working.providers._bullmq_jobs import ENDED_AS, escaped, milliseconds
from noobly.working.providers._bullmq_scripts import BullQueue, packed

CANCELLING = "noobly-cancelling"
"""Ids of running jobs that somebody wants to end."""

RETRYING = "noobly-retrying"
"""Ids of jobs that wait for their next attempt."""

ENDINGS = {"cancelled": "noobly-cancelled", "expired": "noobly-expired"}
"""Where the ids of ended jobs stand besides that BullMQ counts them as failed."""

_ENDED = {
    Verdict.SUCCEEDED: "completed",
    Verdict.FAILED: "failed",
    Verdict.CANCELLED: "failed",
    Verdict.EXPIRED: "failed",
}


def settle(queue: BullQueue, outcome: Outcome, flags: Mapping[str, bool | int], now: int) -> list[Command]:
    """Return the commands that end an attempt; the first one's reply tells whether the claim stood."""
    id = escaped(outcome.hold.id)
    if outcome.verdict in _ENDED:
        return _end(queue, id, outcome, flags, now)
    again = _again(queue, id, outcome, now)
    return [again, ("SADD", queue.key(RETRYING), id)] if outcome.verdict is Verdict.RETRY else [again]


def _end(queue: BullQueue, id: str, outcome: Outcome, flags: Mapping[str, bool | int], now: int) -> list[Command]:
    target = _ENDED[outcome.verdict]
    succeeded = target == "completed"
    fields = [] if succeeded else ["failedReason", outcome.error, "stacktrace", "[]"]
    kind = ENDINGS.get(outcome.verdict.value)
    if kind is not None:
        fields += [ENDED_AS, outcome.verdict.value]
    options = {"token": outcome.hold.token, "keepJobs": {"count": -1}, "maxMetricsSize": "", **flags}
    ended = queue.command(
        "moveToFinished",
        *(id, now, "returnvalue" if succeeded else "failedReason"),
        *((outcome.result or b"null") if succeeded else outcome.error, target, "", queue.base),
        *(packed(options), packed(fields) if fields else b""),
        TARGET=target,
        JOB=id,
        METRICS=f"metrics:{target}",
    )
    return [ended, ("ZADD", queue.key(kind), now, id)] if kind is not None else [ended]


def _again(queue: BullQueue, id: str, outcome: Outcome, now: int) -> Command:
    released = outcome.verdict is Verdict.RELEASE
    fields = b"" if released else packed(["failedReason", outcome.error])
    delay = milliseconds(outcome.delay)
    return queue.command(
        *("moveToDelayed", queue.base, now, id, outcome.hold.token, delay, "1" if released else "0", fields, "0"),
        JOB=id,
    )


def sweep(queue: BullQueue, retention: Retention, now: int) -> list[Command]:
    """Return the commands that forget ended jobs past their age, succeeded ones first."""
    kept = (("completed", retention.succeeded), ("failed", retention.others))
    return [
        queue.command("cleanJobsInSet", queue.base, now - milliseconds(age), 1000, target, TARGET=target)
        for target, age in kept
    ]
