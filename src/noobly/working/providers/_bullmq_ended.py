"""How attempts end in BullMQ, as commands: its own scripts, with what it has no state for beside them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from noobly.clients.redis import Command
from noobly.working.driver import Outcome, Verdict
from noobly.working.providers._bullmq_jobs import CANCELLING, ENDED_AS, milliseconds
from noobly.working.providers._bullmq_names import held
from noobly.working.providers._bullmq_options import Ending
from noobly.working.providers._bullmq_scripts import FORGO, BullQueue, evaluated, packed

RETRYING = "noobly-retrying"
"""Ids of jobs that wait for their next attempt; those count that are among the delayed ones, too."""

ENDINGS = {"cancelled": "noobly-cancelled", "expired": "noobly-expired"}
"""Where the ids of ended jobs stand; those count that are among the failed ones, as which BullMQ has them, too."""

_ENDED = {
    Verdict.SUCCEEDED: "completed",
    Verdict.FAILED: "failed",
    Verdict.CANCELLED: "failed",
    Verdict.EXPIRED: "failed",
}
_REASONS = {-4: "job {id} has children that have not ended", -9: "job {id} has children that have failed"}


def settle(queue: BullQueue, outcome: Outcome, ending: Ending, now: int) -> list[Command]:
    """Return the commands that end an attempt; the first one's reply tells whether the claim stood."""
    if outcome.verdict in _ENDED:
        return _end(queue, outcome, ending, now)
    again = _again(queue, outcome, ending, now)
    raw, _ = held(outcome.hold)
    return [again, ("ZADD", queue.key(RETRYING), 0, raw)] if outcome.verdict is Verdict.RETRY else [again]


def failing(outcome: Outcome, code: object) -> Outcome | None:
    """Return how an attempt ends whose success BullMQ refused for the sake of its children; None for other answers."""
    reason = _REASONS.get(code) if isinstance(code, int) else None
    if reason is None:
        return None
    text = reason.format(id=outcome.hold.id)
    return msgspec.structs.replace(outcome, verdict=Verdict.FAILED, result=b"", error=text)


def _end(queue: BullQueue, outcome: Outcome, ending: Ending, now: int) -> list[Command]:
    raw, token = held(outcome.hold)
    target = _ENDED[outcome.verdict]
    succeeded = target == "completed"
    fields = [] if succeeded else _failed(outcome, ending)
    kind = ENDINGS.get(outcome.verdict.value)
    if kind is not None:
        fields += [ENDED_AS, f"{outcome.verdict.value}:{now}"]
    keep = msgspec.to_builtins(ending.completed if succeeded else ending.failed)
    options = {"token": token, "keepJobs": keep, "maxMetricsSize": "", **ending.flags}
    ended = queue.command(
        "moveToFinished",
        *(raw, now, "returnvalue" if succeeded else "failedReason"),
        *((outcome.result or b"null") if succeeded else outcome.error, target, "", queue.base),
        *(packed(options), packed(fields) if fields else b""),
        TARGET=target,
        JOB=raw,
        METRICS=f"metrics:{target}",
    )
    return [ended, ("ZADD", queue.key(kind), now, raw)] if kind is not None else [ended]


def forgo(queue: BullQueue, raws: Sequence[str]) -> Command:
    """Return the command that forgets wishes to cancel jobs that have ended."""
    return evaluated(FORGO, [queue.key(raw) for raw in raws], [CANCELLING])


def _failed(outcome: Outcome, ending: Ending) -> list[str]:
    return ["failedReason", outcome.error, "stacktrace", ending.traced(outcome.error)]


def _again(queue: BullQueue, outcome: Outcome, ending: Ending, now: int) -> Command:
    raw, token = held(outcome.hold)
    released = outcome.verdict is Verdict.RELEASE
    fields = b"" if released else packed(_failed(outcome, ending))
    delay = milliseconds(outcome.delay)
    return queue.command(
        *("moveToDelayed", queue.base, now, raw, token, delay, "1" if released else "0", fields, "0"),
        JOB=raw,
    )
