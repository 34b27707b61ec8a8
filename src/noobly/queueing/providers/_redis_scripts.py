"""The scripts that move messages: sending, claiming, and what becomes of what was claimed; see ``_redis_lua``."""

from __future__ import annotations

from noobly.clients.redis import RedisScript
from noobly.queueing.providers._redis_lua import BASE, DUE, ENTRY, LEASES, PUT

SEND_PLAIN = RedisScript(
    ENTRY
    + """
local last, named = unpack(redis.call('HMGET', KEYS[2], 'last', 'named'))
local entry = entry_id(KEYS[1], last)
for i = 1, #ARGV, 3 do
  if ARGV[i + 2] == '' then last = redis.call('XADD', KEYS[1], entry, 'id', ARGV[i], 'body', ARGV[i + 1])
  else last = redis.call('XADD', KEYS[1], entry, 'id', ARGV[i], 'body', ARGV[i + 1], 'headers', ARGV[i + 2]) end
  entry = '*'
end
redis.call('HSET', KEYS[2], 'last', last)
if redis.call('DEL', KEYS[3]) == 1 then redis.call('PUBLISH', KEYS[3], '') end
return named and 1 or 0
"""
)
"""Store plain messages, with the keys s, q and z: id, body and headers of each. Gives whether the queue is listed."""

SEND = RedisScript(
    BASE
    + PUT
    + """
local function earlier(key)
  local till = redis.call('ZSCORE', Q.e, key)
  return till and tonumber(till) > now and redis.call('HGET', Q.k, key)
end

local function remember(key, id, window)
  local old = redis.call('ZRANGEBYSCORE', Q.e, '-inf', now, 'LIMIT', 0, 100)
  if old[1] then
    redis.call('ZREM', Q.e, unpack(old))
    redis.call('HDEL', Q.k, unpack(old))
  end
  redis.call('ZADD', Q.e, now + window, key)
  redis.call('HSET', Q.k, key, id)
end

local out, last = {}, redis.call('HGET', Q.q, 'last')
for i = 1, #ARGV, 6 do
  local id, body, headers, record, key, window = unpack(ARGV, i, i + 5)
  local before = key ~= '' and earlier(key)
  if not before then
    if key ~= '' then remember(key, id, window) end
    if record ~= '' then put(Q, cmsgpack.unpack(record), body)
    else
      last = redis.call('XADD', Q.s, entry_id(Q.s, last), 'id', id, 'body', body, 'headers', headers)
      redis.call('HSET', Q.q, 'last', last)
    end
  end
  out[#out + 1] = before or ''
end
wake(Q)
out[#out + 1] = redis.call('HEXISTS', Q.q, 'named')
return out
"""
)
"""Store messages: id, body, headers, record (empty of a plain one), dedup key and window of each.

Gives for each the id of the earlier message that it repeats, or nothing; and whether the queue is in the list.
"""

_READ = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local most, lease, salt, waits = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local out, leases, found, bytes = {0}, {}, 0, 0
local till = string.format('%.0f', now + lease)  -- as text, for each number would be formatted anew

local function give(receipt, head, body, headers)
  local at, pair = found * 4, found * 2
  out[at + 2], out[at + 3], out[at + 4], out[at + 5] = receipt, head, body, headers
  leases[pair + 1], leases[pair + 2] = till, receipt
  found, bytes = found + 1, bytes + #body
end

local function group_read(count)
  local reply = redis.pcall('XREADGROUP', 'GROUP', 'g', 'c', 'COUNT', count, 'NOACK', 'STREAMS', KEYS[1], '>')
  if not reply or not reply.err then return reply end
  if redis.call('EXISTS', KEYS[1]) == 0 then return false end
  redis.call('XGROUP', 'CREATE', KEYS[1], 'g', '0')
  return redis.call('XREADGROUP', 'GROUP', 'g', 'c', 'COUNT', count, 'NOACK', 'STREAMS', KEYS[1], '>')
end

-- How many of the messages to take next: a few at first, then as many as their size lets fit into an answer.
local function portion(wanted)
  if found == 0 then return math.min(wanted, 10) end
  return math.max(1, math.min(wanted, 100, math.floor((16777216 - bytes) * found / math.max(1, bytes))))
end

local function read(wanted)
  while wanted > 0 and bytes < 16777216 do
    local count = portion(wanted)
    local reply = group_read(count)
    local entries = reply and reply[1][2] or {}
    for i = 1, #entries do
      local entry = entries[i]
      local fields = entry[2]
      give('s' .. entry[1] .. salt, fields[2], fields[4], fields[6] or '')
    end
    wanted = wanted - #entries
    if #entries < count then return end
  end
end

local function head(key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return tonumber(first[2]) or math.huge
end

local function finish()
  if found > 0 then redis.call('ZADD', KEYS[3], unpack(leases)) end
  if found == most then return out end
  local soonest = math.min(head(KEYS[3]), head(KEYS[7]))
  out[1] = soonest == math.huge and -1 or math.max(1, soonest - now)
  if bytes >= 16777216 then out[1] = 1 end
  if waits == '1' then redis.call('SET', KEYS[13], '1', 'PX', 5000) end
  return out
end

local paused = redis.call('HEXISTS', KEYS[2], 'paused') == 1
if redis.call('EXISTS', KEYS[6]) == 0 and head(KEYS[3]) > now and head(KEYS[7]) > now then
  if not paused then read(most) end
  return finish()
end
"""
"""The quick way: nothing is ready besides the stream, so nothing else need be looked at."""

CLAIM = RedisScript(
    _READ
    + BASE
    + LEASES
    + DUE
    + """
local function pop(count)
  local popped = redis.call('ZPOPMIN', Q.r, count)
  local round = tonumber(redis.call('HGET', Q.q, 'round') or 0)
  local turn = round
  for i = 1, #popped, 2 do
    local ref = popped[i]
    local text = redis.call('HGET', Q.m, ref)
    if text then
      local size = struct.unpack('>I4', text)
      local deliveries = redis.call('HINCRBY', Q.n, ref, 1)
      give('m' .. ref .. '.' .. deliveries .. salt, text:sub(5, 4 + size), text:sub(5 + size), '')
    end
    turn = math.max(turn, tonumber(popped[i + 1]) % 1e14)
  end
  if turn > round then
    redis.call('HSET', Q.q, 'round', turn)
    redis.call('ZREMRANGEBYSCORE', Q.t, '-inf', '(' .. turn)
  end
end

-- Take one message of equal rank, or those of the stream that were sent before it.
local function merge(ref, wanted)
  local bound = string.format('%.0f-%.0f', ref:sub(1, 14), ref:sub(16, 25))
  local before = redis.call('XRANGE', Q.s, '(' .. seen_last(), bound, 'COUNT', portion(wanted))
  if before[1] then read(#before) else pop(1) end
end

local function take()
  while found < most and bytes < 16777216 do
    local wanted = most - found
    local first = redis.call('ZRANGE', Q.r, 0, 0, 'WITHSCORES')
    local score = tonumber(first[2])
    if not score then return read(wanted) end
    if score < PLAIN then pop(math.min(portion(wanted), redis.call('ZCOUNT', Q.r, '-inf', '(9e14')))
    elseif redis.call('XLEN', Q.s) == 0 then pop(portion(wanted))
    elseif score == PLAIN then merge(first[1], wanted)
    else
      read(wanted)
      if found < most and bytes < 16777216 then pop(portion(most - found)) end
    end
  end
end

advance()
if not paused then take() end
return finish()
"""
)
"""Lease messages: how many, milliseconds, what makes receipts this queue's, and whether somebody waits.

Gives the milliseconds until more may come due, or -1, and receipt, head, body and headers of each message; the head is
the id of a message of the stream, the record of another.
"""

ACK = RedisScript(
    """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local call, leases, salt, count = redis.call, KEYS[3], ARGV[1], #ARGV - 1
local first = tonumber(call('ZRANGE', leases, 0, 0, 'WITHSCORES')[2])
local ended = first and first <= now
local out, entries, refs = {}, {}, {}

for i = 1, count do
  local receipt = ARGV[i + 1]
  if receipt:byte() ~= 115 or ended then entries = nil break end
  entries[i] = receipt:sub(2, -10)
end
if entries then
  if call('ZREM', leases, unpack(ARGV, 2)) == count then
    call('XDEL', KEYS[1], unpack(entries))
    return string.rep('1', count)
  end
  -- Of those whose lease was not there the entry is gone as well, unless the receipt is another queue's.
  for i = 1, count do out[i] = ARGV[i + 1]:sub(-9) == salt and call('XDEL', KEYS[1], entries[i]) or 0 end
  return table.concat(out)
end

local function stood(receipt)
  if ended and tonumber(call('ZSCORE', leases, receipt) or 0) <= now then return false end
  return call('ZREM', leases, receipt) == 1
end

for i = 1, count do
  local receipt = ARGV[i + 1]
  out[i] = stood(receipt) and '1' or '0'
  if out[i] == '1' then
    if receipt:byte() == 115 then call('XDEL', KEYS[1], receipt:sub(2, -10))
    else refs[#refs + 1] = receipt:match('^m(.*)%.') end
  end
end
if not refs[1] then return table.concat(out) end
"""
    + BASE
    + """
for _, ref in ipairs(refs) do drop(Q, ref) end
return table.concat(out)
"""
)
"""Delete messages: what makes receipts this queue's, and receipts, 1000 at most. Gives 1 or 0 for each."""

NACK = RedisScript(
    BASE
    + LEASES
    + """
local receipts, out = {}, {}
for i = 1, #ARGV, 4 do receipts[#receipts + 1] = ARGV[i] end
for i, stands in ipairs(standing(receipts)) do
  out[i] = stands and '1' or '0'
  if stands then
    local ref = taken(receipts[i])
    local record, body = load(Q, ref)
    note(record, ARGV[i * 4 - 1])
    record[DUE] = now + ARGV[i * 4 - 2]
    if ARGV[i * 4] == '0' and record[ATTEMPTS] <= 0 then record[ATTEMPTS] = record[ATTEMPTS] - 1 end
    save(Q, ref, record, body)
    line_up(Q, ref, record)
  end
end
wake(Q)
return table.concat(out)
"""
)
"""Give messages back: receipt, delay, reason, and 0 where the delivery does not count, of each, 1000 at most.

Deliveries are part of a receipt, so they are never counted back: ``ATTEMPTS`` of a message that is no dead letter is 0,
or less by each delivery that does not count. Gives 1 or 0 for each.
"""

EXTEND = RedisScript(
    BASE
    + """
local lease, out = tonumber(ARGV[1]), {}
for i = 2, #ARGV do
  local till = tonumber(redis.call('ZSCORE', Q.l, ARGV[i]) or 0)
  out[i - 1] = till > now and '1' or '0'
  if till > now then
    redis.call('ZREM', Q.l, ARGV[i])  -- A server whose memory is full takes no ZADD first, but goes on with a script.
    redis.call('ZADD', Q.l, now + lease, ARGV[i])
  end
  if till > now + lease then wake(Q) end
end
return table.concat(out)
"""
)
"""Let leases end so many milliseconds from now: those, and receipts. Gives 1 or 0 for each."""

BURY = RedisScript(
    BASE
    + PUT
    + LEASES
    + """
local receipt, reason, dead = ARGV[1], ARGV[2], keys(14)
if not standing({receipt})[1] then return -1 end
local ref = taken(receipt)
local record, body = load(Q, ref)
note(record, reason)
local uncounted = math.min(0, record[ATTEMPTS])
record[ATTEMPTS], record[DIED] = tonumber(redis.call('HGET', Q.n, ref)) + uncounted, now
drop(Q, ref)
record[DUE], record[TURN] = 0, 0
put(dead, record, body)
wake(dead)
return redis.call('HEXISTS', dead.q, 'named')
"""
)
"""Move a message to another queue of the same slot: receipt and reason; -1 where the receipt is no good."""

HELD = RedisScript(
    BASE
    + LEASES
    + """
local receipt = ARGV[1]
if not standing({receipt})[1] then return {} end
local ref = receipt:match('^m(.*)%.')
if ref then
  local text = redis.call('HGET', Q.m, ref)
  local size = struct.unpack('>I4', text)
  return {receipt, text:sub(5, 4 + size), text:sub(5 + size), ''}
end
local entry = receipt:match('^s([^/]*)')
local fields = redis.call('XRANGE', Q.s, entry, entry)[1][2]
return {receipt, fields[2], fields[4], fields[6] or ''}
"""
)
"""Show the message of a receipt, as ``CLAIM`` does; nothing where the receipt is no good."""
