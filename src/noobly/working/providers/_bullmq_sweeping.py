"""Forgetting ended jobs that were added here; those of Node stay for as long as their own options say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from noobly.clients.redis import Arg, Command, RedisClient, RedisReplyError, RedisScript, Reply
from noobly.working.driver import Retention
from noobly.working.providers import _bullmq_ended as ended
from noobly.working.providers._bullmq_jobs import milliseconds
from noobly.working.providers._bullmq_scripts import BullQueue, evaluated

OURS = RedisScript("""
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[2], ARGV[3], 'LIMIT', ARGV[4], 1000)
local kept, oldest, found = 0, '', {}
for _, id in ipairs(ids) do
  local about = redis.call('HMGET', ARGV[1] .. id, 'opts', 'parentKey', 'finishedOn')
  if about[1] and string.find(about[1], '"noobly":', 1, true) then
    local later = about[2]
    if later and redis.call('EXISTS', later) == 1 and redis.call('HEXISTS', later, 'finishedOn') == 0 then
      if kept == 0 then oldest = about[3] or ARGV[2] end
      kept = kept + 1
    else
      found[#found + 1] = id
    end
  end
end
return {#ids, kept, oldest, unpack(found)}
""")
"""Return how many ended jobs were looked at, and the ids of those that were added here, the oldest first.

Those are left out whose parent has not ended and may want to see them: how many, and when the first of them ended.
"""

_SKEW = 3_600_000
"""Milliseconds by which the clocks of workers may differ."""

_BESIDE = (
    *((name, "failed") for name in ended.ENDINGS.values()),
    (ended.RETRYING, "delayed"),
)


async def sweep(client: RedisClient, queue: BullQueue, retention: Retention, now: int, swept: dict[str, int]) -> int:
    """Forget ended jobs past their retention.

    Args:
        client: The connection.
        queue: The queue.
        retention: How long jobs are kept.
        now: Milliseconds since the epoch.
        swept: Up to when each set has been swept before, so that what is not ours is passed over once; kept up here.

    Returns:
        How many.
    """
    total = 0
    for target, age in (("completed", retention.succeeded), ("failed", retention.others)):
        until = now - milliseconds(age)
        since = min(swept.get(target, 0), until) - _SKEW
        ours = await _ours(client, queue, target, since, until)
        total += await _remove(client, queue, ours.free)
        swept[target] = until if ours.oldest is None else min(until, ours.oldest)
    total += await _over(client, queue, retention.most, swept)
    await client.execute_many(_kept_in_step(queue))
    return total


def _kept_in_step(queue: BullQueue) -> list[Command]:
    """Return the commands that drop ids from our sets which are not any more in BullMQ's."""
    return [
        ("ZINTERSTORE", queue.key(name), 2, queue.key(name), queue.key(there), "WEIGHTS", 1, 0)
        for name, there in _BESIDE
    ]


class _Ours(NamedTuple):
    """Ended jobs that were added here: the ids of those that may leave, how many may not, and when the first ended."""

    free: list[str]
    kept: int
    oldest: int | None


async def _ours(client: RedisClient, queue: BullQueue, target: str, since: int, until: Arg) -> _Ours:
    """Return the ended jobs that were added here, the oldest first."""
    free: list[str] = []
    looked, kept = 0, 0
    oldest: int | None = None
    while True:
        command = evaluated(OURS, [queue.key(target)], [queue.base, since, until, looked])
        reply = cast("tuple[int, int, bytes, *tuple[bytes, ...]]", await client.execute(*command))
        count, more, first, *ids = reply
        free += [id.decode() for id in ids]
        oldest = int(first) if oldest is None and first else oldest
        looked, kept = looked + count, kept + more
        if count < 1000:
            return _Ours(free, kept, oldest)


async def _over(client: RedisClient, queue: BullQueue, most: int, swept: dict[str, int]) -> int:
    """Forget some of the ended jobs that are too many, succeeded ones first; what was swept before is not ours."""
    since = [(target, swept[target] - _SKEW) for target in ("completed", "failed")]
    sizes = await client.execute_many([("ZCOUNT", queue.key(target), least, "+inf") for target, least in since])
    if sum(cast(int, _good(size)) for size in sizes) <= most:
        return 0
    found = [await _ours(client, queue, target, least, "+inf") for target, least in since]
    ours = [id for one in found for id in one.free]
    return await _remove(client, queue, ours[: max(0, len(ours) + sum(one.kept for one in found) - most)])


async def _remove(client: RedisClient, queue: BullQueue, ids: Sequence[str]) -> int:
    removed = 0
    for begin in range(0, len(ids), 1000):
        page = ids[begin : begin + 1000]
        replies = await client.execute_many([queue.command("removeJob", id, 0, queue.base, JOB=id) for id in page])
        removed += sum(_good(reply) == 1 for reply in replies)
    return removed


def _good(reply: Reply | RedisReplyError) -> Reply:
    if isinstance(reply, RedisReplyError):
        raise reply
    return reply
