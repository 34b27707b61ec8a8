"""Looking at what BullMQ keeps, and tidying it up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import cast

from noobly.clients.redis import Command, RedisClient, RedisReplyError, Reply
from noobly.clients.redis_scan import scan
from noobly.working.driver import FINAL, Hold, JobRecord, Outcome, Retention, State, Verdict
from noobly.working.providers import _bullmq_ended as ended
from noobly.working.providers._bullmq_jobs import ENDED_AS, escaped, place, record, unescaped
from noobly.working.providers._bullmq_scripts import BullQueue

_LISTS = ("wait", "paused", "active")
_SETS = ("prioritized", "delayed", "waiting-children", "completed", "failed")
_HOLDERS = {
    State.QUEUED: ("wait", "paused", "prioritized"),
    State.DELAYED: ("delayed", "waiting-children"),
    State.RUNNING: ("active",),
    State.RETRYING: ("delayed", "prioritized", "wait"),
    State.SUCCEEDED: ("completed",),
    State.FAILED: ("failed",),
    State.CANCELLED: ("failed",),
    State.EXPIRED: ("failed",),
}
_SPECIAL = re.compile(r"([\\*?\[\]])")
_MOST_NAMES = 10_000
_WALKED = 11_000
"""Jobs of one list or set that a page looks at, at most."""


async def get(client: RedisClient, queue: BullQueue, name: str, id: str) -> JobRecord | None:
    """Return a job."""
    found = await _records(client, [(queue, name, escaped(id))])
    return found[0] if found else None


async def _records(client: RedisClient, jobs: Sequence[tuple[BullQueue, str, str]]) -> list[JobRecord]:
    """Return those of some jobs that there are, each with its escaped id."""
    commands: list[Command] = []
    for queue, _, id in jobs:
        commands += [
            ("HGETALL", queue.key(id)),
            queue.command("getStateV2", id, queue.key(id)),
            ("SISMEMBER", queue.key(ended.CANCELLING), id),
            ("SCARD", queue.key(f"{id}:dependencies")),
        ]
    replies = await client.execute_many(commands)
    found: list[JobRecord] = []
    for number, (_, name, id) in enumerate(jobs):
        fields, state, cancelling, pending = map(_good, replies[4 * number : 4 * number + 4])
        if fields:
            given = {**cast("dict[bytes, bytes]", fields), b"pending": str(pending).encode()}
            found.append(record(name, unescaped(id), given, cast(bytes, state), cancelling=bool(cancelling)))
    return found


async def children(client: RedisClient, prefix: str, queue: BullQueue, id: str) -> list[JobRecord]:
    """Return the jobs that a job runs after: those that ended well or badly, and those that have not ended."""
    base = queue.key(escaped(id))
    replies = await client.execute_many(
        [
            ("HKEYS", f"{base}:processed"),
            ("HKEYS", f"{base}:failed"),
            ("ZRANGE", f"{base}:unsuccessful", 0, -1),
            ("SMEMBERS", f"{base}:dependencies"),
        ]
    )
    keys = {key.decode() for reply in replies for key in cast("Iterable[bytes]", _good(reply))}
    jobs: list[tuple[BullQueue, str, str]] = []
    for key in keys:
        name, _, child = key.removeprefix(f"{prefix}:").partition(":")
        jobs.append((BullQueue(prefix, name), unescaped(name), child))
    orders = await client.execute_many([("HGET", place_.key(child), "opts") for place_, _, child in jobs])
    placed = [place({b"opts": cast(bytes, _good(reply) or b"{}")}) for reply in orders]
    found = await _records(client, jobs)
    by_id = {(one.queue, one.id): one for one in found}
    ranked = sorted(zip(placed, jobs, strict=True), key=lambda pair: pair[0])
    ids = [(name, unescaped(child)) for _, (_, name, child) in ranked]
    return [by_id[one] for one in ids if one in by_id]


async def page(
    client: RedisClient, queue: BullQueue, name: str, states: Sequence[State], skip: int, most: int
) -> list[JobRecord]:
    """Return jobs in some states, the one that changed last first."""
    wanted = frozenset(states) or frozenset(State)
    holders = dict.fromkeys(holder for state in wanted for holder in _HOLDERS[state])
    last = min(_WALKED, skip + most) - 1 if wanted <= FINAL and len(holders) == 1 else _WALKED
    replies = await client.execute_many([_walk(queue, holder, last) for holder in holders])
    ids = dict.fromkeys(id.decode() for reply in replies for id in cast("list[bytes]", _good(reply)))
    found = [one for one in await _records(client, [(queue, name, id) for id in ids]) if one.state in wanted]
    found.sort(key=lambda one: one.finished_at or one.started_at or one.created_at, reverse=True)
    return found[skip : skip + most]


def _walk(queue: BullQueue, holder: str, last: int) -> Command:
    return ("LRANGE" if holder in _LISTS else "ZREVRANGE", queue.key(holder), 0, last)


async def counts(client: RedisClient, queue: BullQueue) -> dict[State, int]:
    """Return how many jobs are in each state."""
    commands: list[Command] = [("LLEN", queue.key(name)) for name in _LISTS]
    commands += [("ZCARD", queue.key(name)) for name in _SETS]
    commands += [("ZCARD", queue.key(name)) for name in ended.ENDINGS.values()]
    commands.append(("SCARD", queue.key(ended.RETRYING)))
    replies = [cast(int, _good(reply)) for reply in await client.execute_many(commands)]
    wait, paused, active, prioritized, delayed, blocked, completed, failed, cancelled, expired, retrying = replies
    queued = wait + paused + prioritized
    early = min(retrying, delayed)
    return {
        State.QUEUED: queued,
        State.DELAYED: delayed - early + blocked,
        State.RETRYING: early,
        State.RUNNING: active,
        State.SUCCEEDED: completed,
        State.FAILED: failed - cancelled - expired,
        State.CANCELLED: cancelled,
        State.EXPIRED: expired,
    }


async def queues(client: RedisClient, prefix: str) -> list[str]:
    """Return the names of the queues that BullMQ has made under a prefix."""
    cursor, found, pattern = "", set[str](), _SPECIAL.sub(r"\\\1", prefix)
    while len(found) < _MOST_NAMES:
        cursor, keys = await scan(client, cursor, f"{pattern}:*:meta", 1000)
        names = [key.decode()[len(prefix) + 1 : -len(":meta")] for key in keys]
        held = await client.execute_many([_any(BullQueue(prefix, name)) for name in names])
        found.update(unescaped(name) for name, there in zip(names, held, strict=True) if _good(there))
        if not cursor:
            break
    return sorted(found)[:_MOST_NAMES]


def _any(queue: BullQueue) -> Command:
    """Return what asks whether a queue has jobs, for BullMQ knows also queues that only were looked at."""
    return ("EXISTS", *(queue.key(name) for name in (*_LISTS, *_SETS)))


async def rerun(client: RedisClient, queue: BullQueue, name: str, id: str) -> bool:
    """Queue a job at once."""
    job = escaped(id)
    found = await get(client, queue, name, id)
    if found is None or found.pending or found.state in (State.QUEUED, State.RUNNING, State.SUCCEEDED):
        return False
    if found.state in FINAL:
        again = queue.command("reprocessJob", job, "LPUSH", "failedReason", "failed", "1", "1", JOB=job)
        fresh: list[Command] = [("HDEL", queue.key(job), ENDED_AS, "stc")]
        replies = await client.execute_many([again, *fresh, *_forgotten(queue, [job])])
        return _good(replies[0]) == 1
    promoted = queue.command("promote", queue.base, job)
    replies = await client.execute_many([promoted, ("SREM", queue.key(ended.RETRYING), job)])
    return _good(replies[0]) == 0


async def forget(client: RedisClient, queue: BullQueue, ids: Sequence[str]) -> None:
    """Take ids out of what is ours beside BullMQ's own."""
    if ids:
        await client.execute_many(_forgotten(queue, ids))


def _forgotten(queue: BullQueue, ids: Sequence[str]) -> list[Command]:
    return [
        *(("ZREM", queue.key(name), *ids) for name in ended.ENDINGS.values()),
        ("SREM", queue.key(ended.RETRYING), *ids),
        ("SREM", queue.key(ended.CANCELLING), *ids),
    ]


async def sweep(client: RedisClient, queue: BullQueue, retention: Retention, now: int) -> int:
    """Forget ended jobs past their retention."""
    total = 0
    while True:
        replies = await client.execute_many(ended.sweep(queue, retention, now))
        gone = [id.decode() for reply in replies for id in cast("list[bytes]", _good(reply))]
        gone += await _over(client, queue, retention.most)
        await forget(client, queue, gone)
        total += len(gone)
        if not gone:
            return total


async def _over(client: RedisClient, queue: BullQueue, most: int) -> list[str]:
    """Forget some of the ended jobs that are too many, succeeded ones first."""
    sizes = await client.execute_many([("ZCARD", queue.key("completed")), ("ZCARD", queue.key("failed"))])
    completed, failed = (cast(int, _good(size)) for size in sizes)
    over = min(1000, completed + failed - most)
    if over <= 0:
        return []
    where, count = ("completed", min(over, completed)) if completed else ("failed", min(over, failed))
    ids = cast("list[bytes]", await client.execute("ZRANGE", queue.key(where), 0, count - 1))
    names = [id.decode() for id in ids]
    await client.execute_many([queue.command("removeJob", id, 0, queue.base, JOB=id) for id in names])
    return names


async def pause(client: RedisClient, queue: BullQueue) -> None:
    """Hold a queue back."""
    _good((await client.execute_many([queue.command("pause", "paused", SOURCE="wait", TARGET="paused")]))[0])


async def resume(client: RedisClient, queue: BullQueue) -> None:
    """Hand out again."""
    _good((await client.execute_many([queue.command("pause", "resumed", SOURCE="paused", TARGET="wait")]))[0])


def cancelled(hold: Hold) -> Outcome:
    """Return the end of a job that was cancelled before it ran."""
    return Outcome(hold=hold, verdict=Verdict.CANCELLED, error="somebody cancelled the job")


def _good(reply: Reply | RedisReplyError) -> Reply:
    if isinstance(reply, RedisReplyError):
        raise reply
    return reply
