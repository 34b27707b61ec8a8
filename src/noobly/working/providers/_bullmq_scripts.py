"""BullMQ's own Lua scripts, taken from its Python package, with the keys each wants; and a few of ours beside them.

The scripts are the protocol: Node's BullMQ runs the same ones, so a queue may be shared with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec

from noobly.clients.redis import Arg, Command, RedisScript

_pack = msgspec.msgpack.Encoder().encode

_KEYS: dict[str, tuple[str, ...]] = {
    "addStandardJob": ("wait", "paused", "meta", "id", "completed", "delayed", "active", "events", "marker"),
    "addDelayedJob": ("marker", "meta", "id", "delayed", "completed", "events"),
    "addPrioritizedJob": (
        *("marker", "meta", "id", "prioritized", "delayed"),
        *("completed", "active", "events", "pc"),
    ),
    "addParentJob": ("meta", "id", "delayed", "waiting-children", "completed", "events"),
    "moveToActive": (
        *("wait", "active", "prioritized", "events", "stalled", "limiter"),
        *("delayed", "paused", "meta", "pc", "marker"),
    ),
    "moveToFinished": (
        *("wait", "active", "prioritized", "events", "stalled", "limiter", "delayed", "paused", "meta", "pc"),
        *("TARGET", "JOB", "METRICS", "marker"),
    ),
    "moveToDelayed": (
        *("marker", "active", "prioritized", "delayed", "JOB", "events", "meta", "stalled", "wait"),
        *("limiter", "pc"),
    ),
    "moveStalledJobsToWait": (
        *("stalled", "wait", "active", "stalled-check", "meta", "paused", "marker", "events", "repeat"),
    ),
    "extendLocks": ("stalled",),
    "getStateV2": (*("completed", "failed", "delayed", "active", "wait", "paused", "waiting-children", "prioritized"),),
    "promote": ("delayed", "wait", "paused", "meta", "prioritized", "active", "pc", "events", "marker"),
    "reprocessJob": ("JOB", "events", "failed", "wait", "meta", "active", "marker", "prioritized", "pc"),
    "removeJob": ("JOB", "repeat"),
    "updateJobScheduler": (
        *("repeat", "delayed", "wait", "paused", "meta", "prioritized", "marker", "id", "events", "pc", "JOB"),
        *("active",),
    ),
    "pause": ("SOURCE", "TARGET", "meta", "prioritized", "events", "delayed", "marker"),
}

_SEIZE = """
local function seize(id, job, token)
  local taken = 0
  for i = 5, 7 do taken = taken + redis.call('ZREM', KEYS[i], id) end
  for i = 3, 4 do
    if taken == 0 then taken = redis.call('LREM', KEYS[i], 1, id) end
  end
  if taken == 0 then return false end
  redis.call('LPUSH', KEYS[2], id)
  redis.call('SET', job .. ':lock', token, 'PX', 60000)
  redis.call('HINCRBY', job, 'atm', -1)
  return true
end
"""
# Takes a job that waits into our hands, so that BullMQ's own script can end it, which then counts an attempt.

SEIZED_FROM = ("active", "wait", "paused", "prioritized", "delayed", "waiting-children")
"""The keys that ``CANCEL`` and ``EXPIRE`` want behind their first one."""

CANCEL = RedisScript(f"""{_SEIZE}
if redis.call('EXISTS', KEYS[1]) == 0 then return 'missing' end
if redis.call('EXISTS', KEYS[1] .. ':lock') == 0 then
  if seize(ARGV[1], KEYS[1], ARGV[2]) then return 'held' end
  if redis.call('HEXISTS', KEYS[1], 'finishedOn') == 1 then return 'ended' end
end
redis.call('HSET', KEYS[1], ARGV[3], 1)
return 'running'
""")
"""Take a job that waits into our hands, or ask for the end of one that runs."""

EXPIRE = RedisScript(f"""{_SEIZE}
local now, seized = tonumber(ARGV[2]), {{}}
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 500)
for _, id in ipairs(ids) do
  local job, ends = ARGV[1] .. id, 0
  local about = redis.call('HMGET', job, 'opts', 'timestamp', 'ats', 'finishedOn', ARGV[4])
  if about[1] and not (about[3] or about[4] or about[5]) then
    local options = cjson.decode(about[1])
    local own = type(options['noobly']) == 'table' and tonumber(options['noobly']['expires'])
    ends = own and tonumber(about[2]) + (tonumber(options['delay']) or 0) + 1000 * own or 0
  end
  if ends > now then
    redis.call('ZADD', KEYS[1], ends, id)
  elseif ends > 0 and redis.call('EXISTS', job .. ':lock') == 1 then
    redis.call('ZADD', KEYS[1], now + 60000, id)
  elseif ends > 0 and seize(id, job, ARGV[3]) then
    redis.call('ZADD', KEYS[1], now + 60000, id)
    seized[#seized + 1] = id
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return {{#ids, unpack(seized)}}
""")
"""Take jobs into our hands that nobody has begun in their time; return how many were looked at, and which."""

UNCOUNT = RedisScript("""
if redis.call('GET', KEYS[1] .. ':lock') == ARGV[1] then redis.call('HINCRBY', KEYS[1], 'atm', -1) end
""")
"""Take back the attempt that BullMQ is about to count where a job ends that was claimed and not begun."""

# With another token in its lock the job is not moved by what follows, and can be ended by whoever knows of it.
HALT = RedisScript("""
local lock = redis.call('GET', KEYS[1] .. ':lock')
if (lock ~= ARGV[1] and lock ~= ARGV[2]) or redis.call('HEXISTS', KEYS[1], ARGV[3]) == 0 then return 0 end
redis.call('SET', KEYS[1] .. ':lock', ARGV[2], 'KEEPTTL')
return 1
""")
"""Keep a job from running again whose end somebody wants; return whether that is so."""

AGAIN = RedisScript("""
local job, failed, id = KEYS[1], KEYS[2], ARGV[2]
if redis.call('EXISTS', job) == 0 or not redis.call('ZSCORE', failed, id) then return end
local unique = redis.call('HGET', job, 'deid')
if unique then
  local key = ARGV[1] .. 'de:' .. unique
  local holder = redis.call('GET', key)
  local stale = holder and redis.call('PTTL', key) == -1 and redis.call('EXISTS', ARGV[1] .. holder) == 0
  if holder and holder ~= id and not stale then return end
  if holder ~= id then redis.call('SET', key, id) end
end
redis.call('ZREM', failed, id)
redis.call('ZADD', KEYS[3], 0, id)
for i = 4, #KEYS do redis.call('ZREM', KEYS[i], id) end
redis.call('HSET', job, ARGV[3], 1)
redis.call('HDEL', job, unpack(ARGV, 4))
""")
"""Put a failed job, unless another one has its key, where BullMQ's script then finds it that lets it run again."""

REPORT = RedisScript("""
local about = redis.call('HMGET', KEYS[1], 'timestamp', 'finishedOn')
if not about[1] or about[2] then return 0 end
if ARGV[2] ~= '' then
  local most = redis.call('HGET', KEYS[3], 'opts.maxLenEvents') or 10000
  redis.call('HSET', KEYS[1], 'progress', ARGV[2])
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', most, '*', 'event', 'progress', 'jobId', ARGV[1], 'data', ARGV[2])
end
for i = 3, #ARGV do redis.call('RPUSH', KEYS[4], ARGV[i]) end
redis.call('LTRIM', KEYS[4], -1000, -1)
return 1
""")
"""Do what BullMQ's scripts for progress and log lines do, unless the job has ended; return whether it has not."""

FORGO = RedisScript("""
for _, job in ipairs(KEYS) do redis.call('HDEL', job, ARGV[1]) end
""")
"""Forget that somebody wanted the end of jobs, which have ended now."""

# A token bucket as a single time, the generic cell rate algorithm of ITU-T I.371: the key holds when the bucket is full
# again, and one start costs ARGV[2] microseconds.
TAKE = RedisScript("""
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local cost, full = tonumber(ARGV[2]), tonumber(redis.call('GET', KEYS[1]) or '0')
if full < now then full = now end
local left = math.floor((tonumber(ARGV[1]) * cost - (full - now)) / cost)
local taken = math.min(left, tonumber(ARGV[3]))
if taken <= 0 then return {0, string.format('%.0f', full - (tonumber(ARGV[1]) - 1) * cost - now)} end
full = full + taken * cost
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1000)
return {taken, '0'}
""")

GIVE_BACK = RedisScript("""
local full = redis.call('GET', KEYS[1])
if full then
  redis.call('SET', KEYS[1], string.format('%.0f', tonumber(full) - tonumber(ARGV[1])), 'KEEPTTL')
end
""")

# Node may set a bound, too; the narrower one holds, and what was there before us comes back.
BOUND = RedisScript("""
local wanted, now = tonumber(ARGV[1]), tonumber(ARGV[2])
local about = redis.call('HMGET', KEYS[1], 'concurrency', 'noobly-concurrency', 'noobly-before', 'noobly-until')
local stands, ours, before, till = about[1], about[2], about[3], tonumber(about[4] or '0')
if ours and wanted == 0 and till > now then return end
if not ours and wanted == 0 then return end
if stands ~= ours then before = stands end
if wanted == 0 then
  redis.call('HDEL', KEYS[1], 'noobly-concurrency', 'noobly-before', 'noobly-until')
  if before then redis.call('HSET', KEYS[1], 'concurrency', before) else redis.call('HDEL', KEYS[1], 'concurrency') end
  return redis.call('ZADD', KEYS[2], 0, '0')
end
if before and tonumber(before) < wanted then wanted = tonumber(before) end
till = now + tonumber(ARGV[3])
redis.call('HDEL', KEYS[1], 'noobly-before')
redis.call('HSET', KEYS[1], 'concurrency', wanted, 'noobly-concurrency', wanted, 'noobly-until', till)
if before then redis.call('HSET', KEYS[1], 'noobly-before', before) end
""")
"""Say how many may run at once, until somebody says otherwise or nobody has said it again in time; 0 for any number."""

# Only such jobs go by BullMQ's rule as have no options of ours, for of those our workers count and decide.
DOOM = RedisScript("""
if redis.call('EXISTS', KEYS[3]) == 1 then return end
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local job = ARGV[1] .. id
  if redis.call('EXISTS', job .. ':lock') == 0 then
    local about = redis.call('HMGET', job, 'opts', 'stc', 'rjk')
    local node = about[1] and not string.find(about[1], '"noobly":', 1, true) and not about[3]
    if node and tonumber(about[2] or '0') >= tonumber(ARGV[2]) and redis.call('LPOS', KEYS[2], id) then
      redis.call('HSET', job, 'defa', 'job stalled more than allowable limit')
    end
  end
end
""")
"""Let jobs of Node fail whose workers have vanished too often, when they are handed out next."""

OVERLAPS = RedisScript("""
local found = {}
for i = 1, #KEYS, 2 do
  local count = redis.pcall('ZINTERCARD', 2, KEYS[i], KEYS[i + 1])
  if type(count) == 'table' then count = #redis.call('ZINTER', 2, KEYS[i], KEYS[i + 1]) end
  found[#found + 1] = count
end
return found
""")
"""Return how much each two sets have in common, also on servers before Redis 7, which cannot count that."""

_FILE = re.compile(r"(\w+)-(\d+)\.lua")


def _load() -> dict[str, RedisScript]:
    spec = find_spec("bullmq")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'bullmq'", name="bullmq")
    found: dict[str, RedisScript] = {}
    for file in (Path(spec.submodule_search_locations[0]) / "commands").glob("*.lua"):
        match = _FILE.fullmatch(file.name)
        if match is None or match[1] not in _KEYS:
            continue
        if int(match[2]) != len(_KEYS[match[1]]):
            raise ImportError(f"this release of bullmq has another script {file.name}; use one that is supported")
        found[match[1]] = RedisScript(file.read_text(encoding="utf-8"))
    if missing := _KEYS.keys() - found.keys():
        raise ImportError(f"this release of bullmq lacks {', '.join(sorted(missing))}; use one that is supported")
    return found


SCRIPTS = _load()
"""The scripts by name."""

_OURS = (CANCEL, EXPIRE, UNCOUNT, HALT, AGAIN, REPORT, FORGO, TAKE, GIVE_BACK, BOUND, DOOM, OVERLAPS)

ALL = (*SCRIPTS.values(), *_OURS)


def packed(value: object) -> bytes:
    """Return a value as the scripts read it."""
    return _pack(value)


class BullQueue:
    """The keys of one queue.

    Args:
        prefix: What all keys of BullMQ begin with; ``bull`` by default.
        name: The queue's name as BullMQ has it.
    """

    def __init__(self, prefix: str, name: str) -> None:
        self.name = name
        self.base = f"{prefix}:{name}:"
        self._keys: dict[str, list[str]] = {}

    def key(self, name: str) -> str:
        """Return the key of a name or of a job's id."""
        return self.base + name

    def command(self, script: str, *args: Arg, **places: str) -> Command:
        """Return one of BullMQ's scripts as a command; ``places`` are the keys that differ from call to call."""
        names, keys = _KEYS[script], self._keys.get(script)
        if keys is None:
            keys = self._keys[script] = [self.base + name for name in names]
        if places:
            keys = keys.copy()
            for name, place in places.items():
                keys[names.index(name)] = self.base + place
        return evaluated(SCRIPTS[script], keys, args)


def evaluated(script: RedisScript, keys: Sequence[str], args: Sequence[Arg]) -> Command:
    """Return a script that the server knows as a command."""
    return ("EVALSHA", script.sha, len(keys), *keys, *args)
