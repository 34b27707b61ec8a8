"""Forgetting ended jobs that were added here; those of Node stay for as long as their own options say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from noobly.clients.redis import Arg, Command, RedisClient, RedisReplyError, RedisScript, Reply
from noobly.working.driver import Retention
from noobly.working.providers import _bullmq_ended as ended
from noobly.working.providers._bullmq_jobs import milliseconds
from noobly.working.providers._bullmq_scripts import BullQueue, evaluated

OURS = RedisScript("""
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[2], ARGV[3], 'LIMIT', ARGV[4], 1000)
local found = {#ids}
for _, id in ipairs(ids) do
  local options = redis.call('HGET', ARGV[1] .. id, 'opts')
  if options and string.find(options, '"noobly":', 1, true) then found[#found + 1] = id end
end
return found
""")
"""Return how many ended jobs were looked at, and the ids of those among them that were added here."""

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
        for ids in await _ours(client, queue, target, since, until):
            total += await _remove(client, queue, ids)
        swept[target] = until
    total += await _over(client, queue, retention.most, swept)
    await client.execute_many(_kept_in_step(queue))
    return total


def _kept_in_step(queue: BullQueue) -> list[Command]:
    """Return the commands that drop ids from our sets which are not any more in BullMQ's."""
    return [
        ("ZINTERSTORE", queue.key(name), 2, queue.key(name), queue.key(there), "WEIGHTS", 1, 0)
        for name, there in _BESIDE
    ]


async def _ours(client: RedisClient, queue: BullQueue, target: str, since: int, until: Arg) -> list[list[str]]:
    """Return the ids of ended jobs that were added here, in pages, the oldest first."""
    pages: list[list[str]] = []
    looked = 0
    while True:
        command = evaluated(OURS, [queue.key(target)], [queue.base, since, until, looked])
        count, *ids = cast("tuple[int, *tuple[bytes, ...]]", await client.execute(*command))
        if ids:
            pages.append([id.decode() for id in ids])
        looked += count
        if count < 1000:
            return pages


async def _over(client: RedisClient, queue: BullQueue, most: int, swept: dict[str, int]) -> int:
    """Forget some of the ended jobs that are too many, succeeded ones first; what was swept before is not ours."""
    since = [(target, swept[target] - _SKEW) for target in ("completed", "failed")]
    sizes = await client.execute_many([("ZCOUNT", queue.key(target), least, "+inf") for target, least in since])
    if sum(cast(int, _good(size)) for size in sizes) <= most:
        return 0
    pages = [page for target, least in since for page in await _ours(client, queue, target, least, "+inf")]
    ours = [id for page in pages for id in page]
    return await _remove(client, queue, ours[: max(0, len(ours) - most)])


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
