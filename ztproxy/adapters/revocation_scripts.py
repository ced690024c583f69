"""The Lua scripts of the log of locks; each runs whole or not at all, on the store's clock.

Knows: the keys of `redis_revocations`, whose docstring names them, in the order of `KEYS`. Promises: numbers
without a hole of their own making; an entry once, however often it is sent; that whoever may hold a lease is
in the set of holders before it is answered; that SYNC and COMMIT write something each time, so that a primary
cut off from its replicas refuses them. Leaves sealing to the caller: the scripts never look inside an entry.

The store's time decides what may be forgotten, and never whether a lease is over. A holder is forgotten after
two spans of a minute without a word from it and not one, since the clock may step, and a worker that lives
speaks many times before the second is over.
"""

from __future__ import annotations

BATCH = 1000
"""Entries of the stream in one answer at most."""

_COMMON = """
local GEN, GEN_AT, DATA, SEQ, REV, IDS, HELD, TEXT, LEASE, ACK, ASKED = unpack(KEYS)
local BATCH, SILENT, DIGEST = 1000, 60000, 64

-- A large number would be written as 1.7e+12.
local function whole(number) return string.format('%d', number) end
local function number_of(id) return tonumber(string.match(id, '^%d+')) end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local seq = tonumber(redis.call('GET', SEQ) or 0)
local data = redis.call('GET', DATA)

-- Acknowledgements are of the numbers of one data set, and worth nothing in another.
local function new_data(id)
  redis.call('SET', DATA, id)
  redis.call('SET', GEN_AT, whole(now))
  for _, worker in ipairs(redis.call('HKEYS', ACK)) do redis.call('HSET', ACK, worker, 0) end
end

local function introduce(id)
  if not data then
    new_data(id)
    data = id
  end
  if redis.call('GET', GEN) ~= run or not redis.call('GET', GEN_AT) then
    redis.call('SET', GEN, run)
    redis.call('SET', GEN_AT, whole(now))
  end
end

local function settled() return now - tonumber(redis.call('GET', GEN_AT)) end

local function bury_the_silent()
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', LEASE, '-inf', whole(now - SILENT), 'LIMIT', 0, 100)) do
    if redis.call('HDEL', ACK, worker) == 1 then
      redis.call('ZADD', LEASE, whole(now), worker)
    else
      redis.call('ZREM', LEASE, worker)
      redis.call('HDEL', ASKED, worker)
    end
  end
end

-- Entries beyond the last number are none of ours. They would wake the readers without end, and stand in the
-- way of the next entry.
local function drop_foreign()
  local foreign = redis.call('XRANGE', REV, '(' .. whole(seq) .. '-0', '+', 'COUNT', 100)
  for _, row in ipairs(foreign) do redis.call('XDEL', REV, row[1]) end
  return #foreign
end

local function first_kept()
  local row = redis.call('XRANGE', REV, '-', '+', 'COUNT', 1)[1]
  return row and math.min(number_of(row[1]), seq + 1) or seq + 1
end

local function field(row, name)
  for i = 1, #row[2], 2 do
    if row[2][i] == name then return row[2][i + 1] end
  end
  return ''
end

local function text_of(digest, ms, sealed) return digest .. string.format('%016d', ms) .. sealed end
"""

# Answers the run, the data set, the last number, the first kept, for how long settled (ms), how many foreign
# entries there were, and rows of number and digest, time (ms, 16 digits) and sealed entry in one.
# ARGV: an id for new data, the worker or '', the data it knows, what it has applied, for how many ms it may
# hold a lease, and which it asked for
_SYNC = """
introduce(ARGV[1])
local worker, known, applied = ARGV[2], ARGV[3], tonumber(ARGV[4])
local answered = data
if worker ~= '' then
  bury_the_silent()
  redis.call('ZADD', LEASE, 'GT', whole(now + tonumber(ARGV[5])), worker)
  redis.call('HSETNX', ACK, worker, 0)
  redis.call('HSET', ASKED, worker, ARGV[6])
  if known == data then
    if applied > seq then
      -- An older copy of the store. The worker learns it from the numbers; to all others, who may come back
      -- when these numbers have been given again, the data set must be another one from here.
      new_data(ARGV[1])
    elseif applied > tonumber(redis.call('HGET', ACK, worker)) then
      redis.call('HSET', ACK, worker, whole(applied))
    end
  end
end
local foreign = drop_foreign()
local first, rows = first_kept(), {}
if applied + 1 < first then
  -- All of them at once: who has taken any entry of the stream asks after later ones only.
  local held = {}
  for _, text in ipairs(redis.call('ZRANGEBYSCORE', HELD, '(' .. whole(now), '+inf')) do
    local number = tonumber(text)
    if number > applied and number < first then held[#held + 1] = number end
  end
  table.sort(held)
  for _, number in ipairs(held) do
    local text = redis.call('HGET', TEXT, whole(number))
    if text and #text > DIGEST then rows[#rows + 1] = {whole(number), text} end
  end
end
local from, to = whole(math.max(applied + 1, first)) .. '-0', whole(seq) .. '-0'
for _, row in ipairs(redis.call('XRANGE', REV, from, to, 'COUNT', BATCH)) do
  local text = text_of(field(row, 'i'), tonumber(field(row, 't')) or 0, field(row, 'e'))
  rows[#rows + 1] = {whole(number_of(row[1])), text}
end
return {run, answered, whole(seq), whole(first), whole(settled()), foreign, rows}
"""

# Answers the number, the run, the data set, for how long settled (ms), how many foreign entries there were,
# the holders, and what each holder asked for (ms).
# ARGV: an id for new data, the entry's digest, the sealed entry, its end in ms or 0, the digest of what it
# lifts or '', for how many ms an entry is kept
_COMMIT = """
introduce(ARGV[1])
redis.call('SET', SEQ, whole(seq))
local digest, sealed, until_, lifts, keep = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local number, foreign = tonumber(redis.call('HGET', IDS, digest) or 0), 0

local function append(id, fields)
  local answer = redis.pcall('XADD', REV, id, unpack(fields))
  if type(answer) ~= 'table' or not answer.err then return end
  if not string.find(answer.err, 'smaller', 1, true) then error(answer.err) end
  -- A foreign entry has had a larger number, and the stream remembers: it is written anew without.
  local rows = redis.call('XRANGE', REV, '-', '+')
  redis.call('DEL', REV)
  for _, row in ipairs(rows) do redis.call('XADD', REV, row[1], unpack(row[2])) end
  redis.call('XADD', REV, id, unpack(fields))
end

local function forget_the_old()
  for _ = 1, BATCH do
    local row = redis.call('XRANGE', REV, '-', '+', 'COUNT', 1)[1]
    local at = tonumber(field(row, 't')) or 0
    if row[1] == whole(seq) .. '-0' or at + keep > now then break end
    redis.call('XDEL', REV, row[1])
    if not redis.call('ZSCORE', HELD, whole(number_of(row[1]))) then
      redis.call('HDEL', IDS, field(row, 'i'))
    end
  end
  local first = first_kept()
  for _, text in ipairs(redis.call('ZRANGEBYSCORE', HELD, '-inf', whole(now), 'LIMIT', 0, BATCH)) do
    if tonumber(text) < first then
      redis.call('HDEL', IDS, string.sub(redis.call('HGET', TEXT, text) or '', 1, DIGEST))
    end
    redis.call('ZREM', HELD, text)
    redis.call('HDEL', TEXT, text)
  end
end

if number == 0 then
  foreign = drop_foreign()
  seq = seq + 1
  number = seq
  append(whole(number) .. '-0', {'i', digest, 'e', sealed, 't', whole(now)})
  redis.call('SET', SEQ, whole(seq))
  redis.call('HSET', IDS, digest, whole(number))
  if until_ > now then
    redis.call('ZADD', HELD, whole(until_), whole(number))
    redis.call('HSET', TEXT, whole(number), text_of(digest, now, sealed))
  end
  if lifts ~= '' then
    -- Its id stays as long as it would have stood: sent once more it must not come back.
    local lifted = redis.call('HGET', IDS, lifts)
    if lifted and redis.call('HEXISTS', TEXT, lifted) == 1 then redis.call('HSET', TEXT, lifted, lifts) end
  end
  forget_the_old()
end
bury_the_silent()
local holders, asked = redis.call('ZRANGE', LEASE, 0, -1), redis.call('HVALS', ASKED)
return {whole(number), run, data, whole(settled()), foreign, holders, asked}
"""

_APPLIED = """
return {run, data or '', redis.call('HGETALL', ACK)}
"""

# ARGV: the worker
_LEAVE = """
redis.call('ZREM', LEASE, ARGV[1])
redis.call('HDEL', ASKED, ARGV[1])
return redis.call('HDEL', ACK, ARGV[1])
"""

# ARGV: number, what is there, what is to be there
_RESEAL = """
if redis.call('HGET', TEXT, ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', TEXT, ARGV[1], ARGV[3])
return 1
"""

_BODIES = {"sync": _SYNC, "commit": _COMMIT, "applied": _APPLIED, "leave": _LEAVE, "reseal": _RESEAL}

SCRIPTS = {name: _COMMON + body for name, body in _BODIES.items()}
