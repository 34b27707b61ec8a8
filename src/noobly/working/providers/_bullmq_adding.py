"""Adding jobs to BullMQ, in one transaction and one round trip.

BullMQ adds a job's children also where the job is there already, and lets a job wait for ever where none of its
children could be added. So what is there already is hidden while its children would be added, for without a parent
BullMQ refuses them; and a job whose children have all ended, or are others' children, is lined up at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from noobly.clients.redis import Command, RedisReplyError, RedisScript, Reply
from noobly.working.driver import Added, NewJob
from noobly.working.providers._bullmq_jobs import EXPIRING, add_command, milliseconds, parent_of
from noobly.working.providers._bullmq_names import known, stored
from noobly.working.providers._bullmq_scripts import BullQueue, evaluated

MARK = RedisScript("""
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'noobly-there', 1) end
""")
"""Remember that a parent was there before this transaction."""

HIDE = RedisScript("""
if redis.call('HDEL', KEYS[1], 'noobly-there') == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end
""")
"""Put a parent that was there before aside, until the transaction's end."""

ADOPT = RedisScript("""
local parent, child = KEYS[2], ARGV[1] .. (redis.call('GET', KEYS[1]) or '')
if redis.call('EXISTS', ARGV[1] .. ARGV[2]) == 1 or redis.call('EXISTS', parent) == 0 then return end
if redis.call('EXISTS', child) == 0 or redis.call('HEXISTS', child, 'parentKey') == 1 then return end
local above = parent
for _ = 1, 1000 do
  if above == child then return end
  above = above and redis.call('HGET', above, 'parentKey')
end
if above then return end
redis.call('SADD', parent .. ':dependencies', child)
redis.call('HSET', child, 'parentKey', parent, 'parent', ARGV[3])
""")
"""Let a new parent wait for the job that has its child's key, unless that has a parent, or is above it."""

LINE_UP = RedisScript("""
local parent, waiting, id, now = KEYS[1], KEYS[3], ARGV[1], tonumber(ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 1 then return redis.call('RENAME', KEYS[2], parent) end
if not redis.call('ZSCORE', waiting, id) then return end
local failed = false
for _, child in ipairs(redis.call('SMEMBERS', parent .. ':dependencies')) do
  if redis.call('HEXISTS', child, 'finishedOn') == 1 then
    redis.call('SREM', parent .. ':dependencies', child)
    local base, name = string.match(child, '^(.*:)([^:]*)$')
    local about = redis.call('HMGET', child, 'returnvalue', 'failedReason', 'parent')
    if not redis.call('ZSCORE', base .. 'failed', name) then
      redis.call('HSET', parent .. ':processed', child, about[1] or 'null')
    elseif about[3] and cjson.decode(about[3])['idof'] then
      redis.call('HSET', parent .. ':failed', child, about[2] or '')
    else
      failed = true
      redis.call('ZADD', parent .. ':unsuccessful', now, child)
      redis.call('HSET', parent, 'defa', 'child ' .. child .. ' failed')
    end
  end
end
if not failed and redis.call('SCARD', parent .. ':dependencies') > 0 then return end
redis.call('ZREM', waiting, id)
local about = redis.call('HMGET', parent, 'delay', 'priority')
local delay, priority = tonumber(about[1] or 0), tonumber(about[2] or 0)
if delay > 0 then
  redis.call('ZADD', KEYS[5], (now + delay) * 0x1000, id)
  redis.call('XADD', KEYS[7], '*', 'event', 'delayed', 'jobId', id, 'delay', now + delay)
else
  redis.call('ZADD', KEYS[4], priority * 0x100000000 + redis.call('INCR', KEYS[6]) % 0x100000000, id)
  redis.call('XADD', KEYS[7], '*', 'event', 'waiting', 'jobId', id, 'prev', 'waiting-children')
end
redis.call('ZADD', KEYS[8], 0, '0')
""")
"""Show a parent that was put aside, or line a new one up where nothing is left that it waits for."""

FLOWS = (MARK, HIDE, ADOPT, LINE_UP)

_PLACES = ("waiting-children", "prioritized", "delayed", "pc", "events", "marker")

Queues = Callable[[str], BullQueue]


def add_commands(jobs: Sequence[NewJob], queues: Queues, now: int) -> tuple[list[Command], dict[int, int]]:
    """Return the commands that add jobs, and for the place of each that is sent where its two replies begin.

    A job is not sent that has the id of another one's parent among them.
    """
    parents: dict[tuple[str, str], int] = {}
    for place, new in enumerate(jobs):
        if new.pending:
            parents.setdefault((new.queue, new.id), place)
    kept = [jobs[place] for place in parents.values()]
    commands = [evaluated(MARK, [_key(queues, new)], []) for new in kept]
    sent: dict[int, int] = {}
    for place in _order(jobs):
        new = jobs[place]
        if parents.get((new.queue, new.id), place) == place:
            sent[place] = len(commands)
            commands += _add(new, queues, place, now)
    # From the leaves up, so that a parent's children are to be seen again before it is lined up.
    commands += [_line_up(new, queues, now) for new in kept]
    return commands, sent


def _order(jobs: Sequence[NewJob]) -> list[int]:
    """Return the places of parents, each before those it runs after, as BullMQ wants it; then those of the others."""
    flows = [place for place, new in enumerate(jobs) if new.pending]
    return [*reversed(flows), *(place for place, new in enumerate(jobs) if not new.pending)]


def _add(new: NewJob, queues: Queues, place: int, now: int) -> list[Command]:
    queue, key = queues(new.queue), _key(queues, new)
    parents = queues(new.parent_queue) if new.parent is not None else None
    commands: list[Command] = [("EXISTS", key), add_command(queue, parents, new, place, now)]
    if new.expires:
        ends = now + milliseconds(new.delay + new.expires)
        commands.append(("ZADD", queue.key(EXPIRING), "NX", ends, stored(new.id)))
    if parents is not None and new.unique is not None:
        keys = [queue.key(f"de:{new.unique}"), parents.key(stored(new.parent or ""))]
        parent = msgspec.json.encode(parent_of(new, parents))
        commands.append(evaluated(ADOPT, keys, [queue.base, stored(new.id), parent]))
    if new.pending:
        commands.append(evaluated(HIDE, [key, _aside(key)], []))
    return commands


def _line_up(new: NewJob, queues: Queues, now: int) -> Command:
    queue, key = queues(new.queue), _key(queues, new)
    return evaluated(LINE_UP, [key, _aside(key), *map(queue.key, _PLACES)], [stored(new.id), now])


def _key(queues: Queues, new: NewJob) -> str:
    return queues(new.queue).key(stored(new.id))


def _aside(key: str) -> str:
    return f"{key}:noobly-aside"


def added(jobs: Sequence[NewJob], sent: dict[int, int], reply: Reply | RedisReplyError) -> list[Added]:
    """Return what became of new jobs, by what the transaction answered."""
    replies = cast("list[Reply | RedisReplyError]", _good(reply))
    found: list[Added] = []
    for place, new in enumerate(jobs):
        if place not in sent:
            found.append(Added(new.id, duplicate=True))
            continue
        existed, answer = map(_good, replies[sent[place] : sent[place] + 2])
        # A number says why BullMQ refused it: the parent is not to be seen, or the job has another one.
        raw = answer.decode() if isinstance(answer, bytes) else ""
        found.append(Added(known(raw) if raw else new.id, duplicate=existed != 0 or raw != stored(new.id)))
    return found


def _good(reply: Reply | RedisReplyError) -> Reply:
    if isinstance(reply, RedisReplyError):
        raise reply
    return reply
