"""How attempts end in BullMQ, as commands: its own scripts, with what it has no state for beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import msgspec

from noobly.clients.redis import Command, RedisClient, RedisReplyError, Reply
from noobly.working.driver import Hold, Outcome, Verdict
from noobly.working.providers._bullmq_jobs import CANCELLING, ENDED_AS, milliseconds
from noobly.working.providers._bullmq_names import held
from noobly.working.providers._bullmq_options import Ending
from noobly.working.providers._bullmq_scripts import FORGO, HALT, UNCOUNT, BullQueue, evaluated, packed
from noobly.working.providers._outcomes import error_after, state_after

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


class Steps(NamedTuple):
    """The commands that end an attempt: with the last of ``end`` it ends, and ``beside`` follows where the claim stood.

    Before the last one there may be one that keeps the job from running again; see ``HALT``.
    """

    end: list[Command]
    beside: list[Command]


def steps(queue: BullQueue, outcome: Outcome, ending: Ending, now: int) -> Steps:
    """Return the commands that end an attempt."""
    if outcome.verdict in _ENDED:
        return _end(queue, outcome, ending, now)
    raw, token = held(outcome.hold)
    halt = evaluated(HALT, [queue.key(raw)], [token, held(_halted(outcome.hold))[1], CANCELLING])
    retrying: list[Command] = [("ZADD", queue.key(RETRYING), 0, raw)]
    return Steps([halt, _again(queue, outcome, ending, now)], retrying if outcome.verdict is Verdict.RETRY else [])


async def tell(client: RedisClient, ends: Sequence[Sequence[Command]]) -> list[list[Reply]]:
    """Send the commands that end attempts; return the replies to each attempt's."""
    commands = [command for end in ends for command in end]
    if len(commands) == len(ends):
        return [[_good(reply)] for reply in await client.execute_many(commands)]
    done = _good((await client.execute_many([("MULTI",), *commands, ("EXEC",)]))[-1])
    replies = iter(cast("list[Reply | RedisReplyError]", done))
    return [[_good(next(replies)) for _ in end] for end in ends]


def otherwise(outcome: Outcome, replies: Sequence[Reply]) -> Outcome | None:
    """Return how an attempt ends instead: as asked for, or without the success that its children do not allow it.

    Returns:
        None where BullMQ did not refuse it, or for good.
    """
    *halted, code = replies
    if halted == [1]:
        state = state_after(outcome, True)
        error = error_after(outcome, state)
        return Outcome(hold=_halted(outcome.hold), verdict=Verdict(state.value), error=error)
    reason = _REASONS.get(code) if isinstance(code, int) else None
    if reason is None:
        return None
    text = reason.format(id=outcome.hold.id)
    return msgspec.structs.replace(outcome, verdict=Verdict.FAILED, result=b"", error=text)


def _halted(hold: Hold) -> Hold:
    return msgspec.structs.replace(hold, token=f"{hold.token}:halted")


def uncounted(queue: BullQueue, claim: Hold) -> Command:
    """Return the command that takes back the attempt which BullMQ counts when a job ends that was not begun."""
    raw, token = held(claim)
    return evaluated(UNCOUNT, [queue.key(raw)], [token])


def _end(queue: BullQueue, outcome: Outcome, ending: Ending, now: int) -> Steps:
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
    return Steps([ended], [("ZADD", queue.key(kind), now, raw)] if kind is not None else [])


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


def _good(reply: Reply | RedisReplyError) -> Reply:
    if isinstance(reply, RedisReplyError):
        raise reply
    return reply
