"""What the Lua scripts of the Redis provider have in common: the keys of a queue, and functions on them.

Each script is one atomic step on one queue, whose keys share a hash slot.

The keys of a queue, in the order of ``KEYS``:

    s  stream   messages without priority, delay, group, tenant or history, read through the consumer group ``g``,
                which keeps the place where reading goes on; what is under way stands in l
    q  hash     ``named``: it is in the list of queues; ``paused``; ``last``: the newest entry of s; ``k``: a counter;
                ``round``: the turn of the tenant served last
    l  zset     receipts of the messages under lease, by the end of the lease
    m  hash     all other messages, by reference
    n  hash     how often each of these was delivered
    r  zset     references that are ready, by priority and turn
    d  zset     references that wait for their time, by that time
    w  zset     references that wait behind the first one of their group, with the group's digest before them
    f  hash     the reference that is the first of its group, by group
    t  zset     tenants by the last turn given to each; those whose turn has passed count like new ones, and are dropped
    k  hash     message ids by dedup key
    e  zset     dedup keys by the end of their window
    z  string   somebody waits; also the channel that wakes who waits

A reference sorts as the message was sent: it begins with the entry of the stream that was the newest then, or else
with the time. Of a new queue, entries and ``k`` begin with the microsecond, so that no reference, and no receipt, is
made twice, not in the millisecond of a purge or after a restart without its data either; and an entry comes after
what the same millisecond brought before it. Times are milliseconds of the server's clock. A message of the hash is a
record (see ``_redis_records``) and the body.
"""

from __future__ import annotations

BASE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local PRIORITY, GROUP, TENANT, FIRST, LAST, ATTEMPTS = 3, 4, 5, 6, 7, 8
local DIED, DUE, SENT, TURN = 9, 10, 11, 12
local PLAIN = 9e14

local function keys(at)
  return {s = KEYS[at], q = KEYS[at + 1], l = KEYS[at + 2], m = KEYS[at + 3], n = KEYS[at + 4], r = KEYS[at + 5],
    d = KEYS[at + 6], w = KEYS[at + 7], f = KEYS[at + 8], t = KEYS[at + 9], k = KEYS[at + 10], e = KEYS[at + 11],
    z = KEYS[at + 12]}
end
local Q = keys(1)

local function wake(Q)
  if redis.call('DEL', Q.z) == 1 then redis.call('PUBLISH', Q.z, '') end
end

local function load(Q, ref)
  local text = redis.call('HGET', Q.m, ref)
  if not text then return nil end
  local size = struct.unpack('>I4', text)
  return cmsgpack.unpack(text:sub(5, 4 + size)), text:sub(5 + size)
end

local function save(Q, ref, record, body)
  local head = cmsgpack.pack(record)
  redis.call('HSET', Q.m, ref, struct.pack('>I4', #head) .. head .. body)
end

local function reference(entry, count)
  local ms, sequence = entry:match('(%d+)-(%d+)')
  return string.format('%014.0f-%010.0f-%012.0f', ms, sequence, count)
end

local function line_up(Q, ref, record)
  local group = record[GROUP]
  if group ~= '' then
    local first = redis.call('HGET', Q.f, group)
    if not first then redis.call('HSET', Q.f, group, ref)
    elseif first ~= ref then return redis.call('ZADD', Q.w, 0, redis.sha1hex(group) .. ref) end
  end
  if record[DUE] > now then redis.call('ZADD', Q.d, record[DUE], ref)
  else redis.call('ZADD', Q.r, (9 - record[PRIORITY]) * 1e14 + record[TURN], ref) end
end

local function drop(Q, ref)
  local group = ref:sub(-1) == 'g' and load(Q, ref)[GROUP]
  redis.call('HDEL', Q.m, ref)
  redis.call('HDEL', Q.n, ref)
  if redis.call('EXISTS', Q.m) == 0 then redis.call('DEL', Q.t) end
  if not group then return end
  local digest = redis.sha1hex(group)
  local following = redis.call('ZRANGEBYLEX', Q.w, '[' .. digest, '(' .. digest .. 'x', 'LIMIT', 0, 1)[1]
  redis.call('HDEL', Q.f, group)
  if following then
    redis.call('ZREM', Q.w, following)
    ref = following:sub(41)
    line_up(Q, ref, (load(Q, ref)))
    wake(Q)
  end
end
"""

ENTRY = """
local function fraction(clock)
  return clock[2] % 1000 * 1e6 + 1
end

local function entry_id(stream, last)
  if last or redis.call('EXISTS', stream) == 1 then return '*' end
  local clock = redis.call('TIME')
  return string.format('%.0f-%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000), fraction(clock))
end
"""

PUT = (
    ENTRY
    + """
local function counted(Q)
  local count = redis.call('HINCRBY', Q.q, 'k', 1)
  return count > 1 and count or redis.call('HINCRBY', Q.q, 'k', string.format('%.0f', fraction(clock)))
end

local function put(Q, record, body)
  record[DUE], record[SENT] = now + record[DUE], now
  if record[TENANT] ~= '' then
    local round = tonumber(redis.call('HGET', Q.q, 'round') or 0)
    record[TURN] = math.max(round, tonumber(redis.call('ZSCORE', Q.t, record[TENANT]) or 0) + 1)
    redis.call('ZADD', Q.t, record[TURN], record[TENANT])
  end
  local newest = redis.call('HGET', Q.q, 'last') or string.format('%.0f-0', now)
  local ref = reference(newest, counted(Q))
  if record[GROUP] ~= '' then ref = ref .. 'g' end
  save(Q, ref, record, body)
  line_up(Q, ref, record)
end
"""
)

LEASES = """
local function standing(receipts)
  local good, seen = {}, {}
  for i, till in ipairs(redis.call('ZMSCORE', Q.l, unpack(receipts))) do
    good[i] = till and tonumber(till) > now and not seen[receipts[i]]
    seen[receipts[i]] = true
  end
  return good
end

-- Return the reference of a message that was leased; one of the stream is moved to the hash.
local function taken(receipt)
  redis.call('ZREM', Q.l, receipt)
  local ref = receipt:match('^m(.*)%.')
  if ref then return ref end
  local entry = receipt:match('^s([^/]*)')
  local found = redis.call('XRANGE', Q.s, entry, entry)[1]
  redis.call('XDEL', Q.s, entry)
  ref = reference(entry, 0)
  if not found then return ref end
  local fields = found[2]
  local sent = tonumber(entry:match('%d+'))
  save(Q, ref, {fields[2], fields[6] or '', 0, '', '', '', '', 0, 0, 0, sent, 0}, fields[4])
  redis.call('HSET', Q.n, ref, 1)
  return ref
end

local function note(record, reason)
  if reason == '' then return end
  if record[FIRST] == '' then record[FIRST] = reason end
  record[LAST] = reason
end
"""

DUE = """
local function head(key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return tonumber(first[2]) or math.huge
end

-- Line up messages whose time has come or whose lease has ended.
local function advance()
  if head(Q.l) <= now then
    for _, receipt in ipairs(redis.call('ZRANGEBYSCORE', Q.l, '-inf', now, 'LIMIT', 0, 1000)) do
      local ref = taken(receipt)
      local record = load(Q, ref)
      if record then
        record[DUE] = 0
        line_up(Q, ref, record)
      end
    end
  end
  if head(Q.d) <= now then
    for _, ref in ipairs(redis.call('ZRANGEBYSCORE', Q.d, '-inf', now, 'LIMIT', 0, 1000)) do
      redis.call('ZREM', Q.d, ref)
      local record = load(Q, ref)
      if record then line_up(Q, ref, record) end
    end
  end
end

local function seen_last()
  local groups = redis.pcall('XINFO', 'GROUPS', Q.s)
  local group = groups[1] or {}
  for i = 1, #group, 2 do
    if group[i] == 'last-delivered-id' then return group[i + 1] end
  end
  return '0-0'
end

-- What is leased and no record is an entry of the stream that was read.
local function unread()
  local waiting = redis.call('ZCARD', Q.r) + redis.call('ZCARD', Q.d) + redis.call('ZCARD', Q.w)
  local records = redis.call('HLEN', Q.m) - waiting
  return redis.call('XLEN', Q.s) - (redis.call('ZCARD', Q.l) - records)
end
"""
