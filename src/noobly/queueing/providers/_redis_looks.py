"""The scripts that look at a queue, empty it, or hold it back; see ``_redis_lua``."""

from __future__ import annotations

from noobly.clients.redis import RedisScript
from noobly.queueing.providers._redis_lua import BASE, DUE, LEASES

PEEK = RedisScript(
    BASE
    + LEASES
    + DUE
    + """
advance()
local skip, most, out, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), {}, 0

local function show(receipt, head, body, headers)
  local at = #out
  out[at + 1], out[at + 2], out[at + 3], out[at + 4] = receipt, head, body, headers
  bytes = bytes + #body
end

-- How many to show yet: none where their size fills an answer.
local function left()
  return bytes < 16777216 and most - #out / 4 or 0
end

local function show_refs(refs, cut)
  for _, ref in ipairs(refs) do
    if left() == 0 then return end
    ref = ref:sub(cut)
    local text = redis.call('HGET', Q.m, ref)
    local size = struct.unpack('>I4', text)
    local deliveries = redis.call('HGET', Q.n, ref) or 0
    show('m' .. ref .. '.' .. deliveries, text:sub(5, 4 + size), text:sub(5 + size), '')
  end
end

local function range(key, from, count, cut)
  local first = from + math.min(skip, count)
  local last = math.min(from + count, first + left()) - 1
  if last >= first then show_refs(redis.call('ZRANGE', key, first, last), cut) end
  skip = math.max(0, skip - count)
end

-- A few at a time, for what is passed over comes with its bodies.
local function entries()
  local after = seen_last()
  while left() > 0 do
    local count = math.min(skip > 0 and 100 or 10, skip + left())
    local found = redis.call('XRANGE', Q.s, '(' .. after, '+', 'COUNT', count)
    for i = skip + 1, #found do
      local fields = found[i][2]
      show('s' .. found[i][1] .. '/', fields[2], fields[4], fields[6] or '')
    end
    skip = math.max(0, skip - #found)
    if #found < count then return end
    after = found[#found][1]
  end
end

local ready, early = redis.call('ZCARD', Q.r), redis.call('ZCOUNT', Q.r, '-inf', 9e14)
range(Q.r, 0, early, 1)
entries()
range(Q.r, early, ready - early, 1)
range(Q.w, 0, redis.call('ZCARD', Q.w), 41)
range(Q.d, 0, redis.call('ZCARD', Q.d), 1)
return out
"""
)
"""Show messages that are not leased: how many to pass over, how many to show, fewer where they are large.

Gives what ``CLAIM`` does.
"""

COUNTS = RedisScript(
    BASE
    + LEASES
    + DUE
    + """
advance()
local left, oldest = unread(), math.huge
if left > 0 then
  local first = redis.call('XRANGE', Q.s, '(' .. seen_last(), '+', 'COUNT', 1)[1]
  if first then oldest = tonumber(first[1]:match('%d+')) end
end
for rank = 0, 9 do
  local ref = redis.call('ZRANGEBYSCORE', Q.r, rank * 1e14, '(' .. (rank + 1) * 1e14, 'LIMIT', 0, 1)[1]
  if ref then oldest = math.min(oldest, load(Q, ref)[SENT]) end
end
return {left + redis.call('ZCARD', Q.r) + redis.call('ZCARD', Q.w), redis.call('ZCARD', Q.d), redis.call('ZCARD', Q.l),
  oldest == math.huge and -1 or math.max(0, now - oldest), redis.call('HEXISTS', Q.q, 'paused')}
"""
)
"""Gives how many are ready, delayed and leased, the milliseconds since the oldest ready one was sent, and paused."""

PURGE = RedisScript(
    BASE
    + LEASES
    + DUE
    + """
while head(Q.l) <= now or head(Q.d) <= now do advance() end
redis.call('HDEL', Q.q, 'named')
local count = unread() + redis.call('ZCARD', Q.r) + redis.call('ZCARD', Q.w) + redis.call('ZCARD', Q.d)
if redis.call('EXISTS', Q.l) == 0 then
  redis.call('UNLINK', Q.s, Q.l, Q.m, Q.n, Q.r, Q.d, Q.w, Q.f, Q.t, Q.k, Q.e)
  redis.call('HDEL', Q.q, 'last', 'k', 'round')
  return count
end

local function forget(ref)
  if ref:sub(-1) == 'g' then
    local group = load(Q, ref)[GROUP]
    if redis.call('HGET', Q.f, group) == ref then redis.call('HDEL', Q.f, group) end
  end
  redis.call('HDEL', Q.m, ref)
  redis.call('HDEL', Q.n, ref)
end

for _, key in ipairs({Q.r, Q.d}) do
  for _, ref in ipairs(redis.call('ZRANGE', key, 0, -1)) do forget(ref) end
end
for _, ref in ipairs(redis.call('ZRANGE', Q.w, 0, -1)) do forget(ref:sub(41)) end
redis.call('DEL', Q.r, Q.d, Q.w, Q.k, Q.e)
while unread() > 0 do
  local entries = redis.call('XRANGE', Q.s, '(' .. seen_last(), '+', 'COUNT', 1000)
  if not entries[1] then break end
  for i, entry in ipairs(entries) do entries[i] = entry[1] end
  redis.call('XDEL', Q.s, unpack(entries))
end
return count
"""
)
"""Delete what is not leased. Gives how many there were."""

PAUSE = RedisScript("redis.call('HDEL', KEYS[2], 'paused') return redis.call('HSET', KEYS[2], 'paused', '1')")
"""As with EXTEND, what makes room comes first, so that a server whose memory is full can be told to wait."""

RESUME = RedisScript(BASE + "redis.call('HDEL', Q.q, 'paused') wake(Q) return 1")
