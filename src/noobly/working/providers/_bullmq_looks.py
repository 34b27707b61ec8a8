"""Looking at what BullMQ keeps, and tidying it up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import cast

from noobly.clients.redis import Command, RedisClient, RedisReplyError, Reply
from noobly.clients.redis_scan import scan
from noobly.working.driver import FINAL, JobRecord, State
from noobly.working.providers import _bullmq_ended as ended
from noobly.working.providers._bullmq_jobs import CANCELLING, ENDED_AS, EXPIRING, LASTING, place, record
from noobly.working.providers._bullmq_names import known, stored, unescaped
from noobly.working.providers._bullmq_scripts import AGAIN, OVERLAPS, REPORT, BullQueue, evaluated

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
_AGAIN = "noobly-again"
"""Where a job stands, within one transaction, that runs again."""

_MOST_NAMES = 10_000
_WALKED = 11_000
"""Jobs of one list or set that a page looks at, at most."""


async def find(client: RedisClient, queue: BullQueue, id: str) -> str:
    """Return the stored id of a job that users know by an id: added here, or else, where there is one, in Node."""
    own = stored(id)
    if own == id:
        return own
    # Only a job has a timestamp; what else has such a name gives an error.
    there = await client.execute_many([("HEXISTS", queue.key(name), "timestamp") for name in (own, id)])
    return id if there[0] != 1 and there[1] == 1 else own


async def get(client: RedisClient, queue: BullQueue, name: str, raw: str) -> JobRecord | None:
    """Return a job by its stored id."""
    found = await _records(client, [(queue, name, raw)])
    return found[0] if found else None


async def _records(client: RedisClient, jobs: Sequence[tuple[BullQueue, str, str]]) -> list[JobRecord]:
    """Return those of some jobs that there are, each with its stored id."""
    commands: list[Command] = []
    for queue, _, raw in jobs:
        commands += [
            ("HGETALL", queue.key(raw)),
            queue.command("getStateV2", raw, queue.key(raw)),
            ("SCARD", queue.key(f"{raw}:dependencies")),
        ]
    replies = await client.execute_many(commands)
    found: list[JobRecord] = []
    for number, (_, name, raw) in enumerate(jobs):
        fields, state, pending = map(_good, replies[3 * number : 3 * number + 3])
        if fields:
            given = {**cast("dict[bytes, bytes]", fields), b"pending": str(pending).encode()}
            found.append(record(name, known(raw), given, cast(bytes, state)))
    return found


async def children(client: RedisClient, prefix: str, queue: BullQueue, raw: str) -> list[JobRecord]:
    """Return the jobs that a job runs after: those that ended well or badly, and those that have not ended."""
    base = queue.key(raw)
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
    ids = [(name, known(child)) for _, (_, name, child) in ranked]
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
    pairs = [("failed", name) for name in ended.ENDINGS.values()] + [("delayed", ended.RETRYING)]
    commands.append(evaluated(OVERLAPS, [queue.key(name) for pair in pairs for name in pair], []))
    *sizes, overlaps = [_good(reply) for reply in await client.execute_many(commands)]
    wait, paused, active, prioritized, delayed, blocked, completed, failed = cast("list[int]", sizes)
    cancelled, expired, retrying = cast("list[int]", overlaps)
    return {
        State.QUEUED: wait + paused + prioritized,
        State.DELAYED: max(0, delayed - retrying) + blocked,
        State.RETRYING: retrying,
        State.RUNNING: active,
        State.SUCCEEDED: completed,
        State.FAILED: max(0, failed - cancelled - expired),
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


async def rerun(client: RedisClient, queue: BullQueue, name: str, raw: str) -> bool:
    """Queue a job at once."""
    found = await get(client, queue, name, raw)
    if found is None or found.pending or found.state in (State.QUEUED, State.RUNNING, State.SUCCEEDED):
        return False
    if found.state in FINAL:
        # What counts its claims goes on, for it is the fence.
        again = queue.command("reprocessJob", raw, "LPUSH", "failedReason", "failed", "1", "0", JOB=raw, failed=_AGAIN)
        replies = await client.execute_many([("MULTI",), _set_apart(queue, raw), again, ("EXEC",)])
        done = cast("list[Reply | RedisReplyError]", _good(replies[-1]))
        return [_good(reply) for reply in done][-1] == 1
    promoted = queue.command("promote", queue.base, raw)
    replies = await client.execute_many([promoted, ("ZREM", queue.key(ended.RETRYING), raw)])
    return _good(replies[0]) == 0


def _set_apart(queue: BullQueue, raw: str) -> Command:
    """Return the command that lets a failed job run again which has its key, and nothing of how it ended."""
    keys = [raw, "failed", _AGAIN, *ended.ENDINGS.values(), ended.RETRYING, EXPIRING]
    args = [queue.base, raw, LASTING, ENDED_AS, CANCELLING, "stc"]
    return evaluated(AGAIN, [queue.key(name) for name in keys], args)


async def report(client: RedisClient, queue: BullQueue, raw: str, progress: bytes, lines: Sequence[str]) -> bool:
    """Store what a handler reports of a job that has not ended."""
    keys = [queue.key(name) for name in (raw, "events", "meta", f"{raw}:logs")]
    return await client.execute(*evaluated(REPORT, keys, [raw, progress, *lines])) == 1


async def remove(client: RedisClient, queue: BullQueue, raw: str) -> bool:
    """Forget a job that is not running."""
    command = queue.command("removeJob", raw, 0, queue.base, JOB=raw)
    existed, removed = await client.execute_many([("EXISTS", queue.key(raw)), command])
    if _good(existed) != 1 or _good(removed) != 1:
        return False
    await client.execute_many(_forgotten(queue, raw))
    return True


def _forgotten(queue: BullQueue, raw: str) -> list[Command]:
    """Return the commands that take a job out of what is ours beside BullMQ's own."""
    return [("ZREM", queue.key(name), raw) for name in (*ended.ENDINGS.values(), ended.RETRYING)]


async def pause(client: RedisClient, queue: BullQueue) -> None:
    """Hold a queue back."""
    _good((await client.execute_many([queue.command("pause", "paused", SOURCE="wait", TARGET="paused")]))[0])


async def resume(client: RedisClient, queue: BullQueue) -> None:
    """Hand out again."""
    _good((await client.execute_many([queue.command("pause", "resumed", SOURCE="paused", TARGET="wait")]))[0])


def _good(reply: Reply | RedisReplyError) -> Reply:
    if isinstance(reply, RedisReplyError):
        raise reply
    return reply
