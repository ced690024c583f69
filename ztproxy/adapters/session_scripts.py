"""The Lua scripts by which sessions change; each runs whole or not at all, on Redis' clock.

Knows: the keys of `redis_sessions`, whose docstring names them. Promises: every write but `create` first sees
that the session is there, past neither its idle time nor its absolute end; none takes longer than a few
milliseconds, however many sessions there are. Leaves sealing to the caller: the scripts move sealed bytes and
never look inside. ARGV[1] is always the key prefix, the rest as each head says.

KEYS[1] is a key of the prefix, by which a cluster's client finds the server; the others are made here. That
is legal because they all have the one hash tag of the prefix.
"""

from __future__ import annotations

_COMMON = """
local P = ARGV[1]
local ALL, DUE = P .. 'all', P .. 'due'
local function record_of(id) return P .. 's:' .. id end
local function handles_of(id) return P .. 'hs:' .. id end

-- One moment for the whole script: microseconds, and ms.
local TIME = redis.call('TIME')
local MOMENT = TIME[1] * 1000000 + TIME[2]
local NOW = math.floor(MOMENT / 1000)

local function whole(number) return string.format('%d', number) end

-- How long the session may live at most, in ms; 0 if it is not there or its end has come.
local function remaining(id)
  local last = redis.call('HGET', record_of(id), 'a')
  if not last then return 0 end
  return math.max(0, last - NOW)
end

local function drop_handles(id)
  for _, handle in ipairs(redis.call('SMEMBERS', handles_of(id))) do redis.call('DEL', handle) end
  redis.call('DEL', handles_of(id))
end

local function forget(id)
  for _, index in ipairs(redis.call('HMGET', record_of(id), 'u', 'i', 'd')) do
    if index then redis.call('ZREM', index, id) end
  end
  redis.call('ZREM', ALL, id)
  redis.call('ZREM', DUE, id)
  drop_handles(id)
  return redis.call('DEL', record_of(id))
end

local function outlive(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end

-- The place of a new session in every list: no two are alike, so that a place says where to go on.
local function place()
  local at = MOMENT
  while redis.call('ZCOUNT', ALL, whole(at), whole(at)) > 0 do at = at + 1 end
  return whole(at)
end

local function add(index, at, id, ms)
  redis.call('ZADD', index, at, id)
  outlive(index, ms)
end

local function add_handle(id, handle, sealed, ms)
  redis.call('SET', handle, sealed, 'PX', ms)
  redis.call('SADD', handles_of(id), handle)
  outlive(handles_of(id), ms)
end

local function is_gone(id) return redis.call('EXISTS', record_of(id)) == 0 end

-- Sessions that have ended by time alone leave the index here: the oldest, where they are to be found.
local function prune(index)
  for _, id in ipairs(redis.call('ZRANGE', index, 0, 99)) do
    if is_gone(id) then redis.call('ZREM', index, id) end
  end
end

-- And here the list of all.
local function sweep()
  for _, id in ipairs(redis.call('ZRANGE', DUE, '-inf', whole(NOW), 'BYSCORE', 'LIMIT', 0, 100)) do
    if is_gone(id) then
      redis.call('ZREM', ALL, id)
      redis.call('ZREM', DUE, id)
    end
  end
end

-- Compare-and-set: the handle still stands for this session, and nobody wrote since.
local function may_write(id, handle, revision)
  return redis.call('EXISTS', handle) == 1
    and remaining(id) > 0
    and redis.call('HGET', record_of(id), 'r') == revision
end

-- Sees that the session is in the indexes that are its own now, and in no others.
local function enlist(id, ms, indexes)
  local at = redis.call('ZSCORE', ALL, id)
  at = at and whole(tonumber(at)) or place()
  add(ALL, at, id, ms)
  for field, index in pairs(indexes) do
    local former = redis.call('HGET', record_of(id), field)
    if former and former ~= index then
      redis.call('ZREM', former, id)
      redis.call('HDEL', record_of(id), field)
    end
    if index ~= '' and former ~= index then
      redis.call('HSET', record_of(id), field, index)
      prune(index)
      add(index, at, id, ms)
    end
  end
end

-- Whether the log of locks is the one a sign-in began under, and has come to the number it began after. '' is
-- that of a session on record, which is under this log or gone with the other.
local function of_this_log(log, as_of)
  return log == '' or (redis.call('GET', P .. 'data') == log
    and tonumber(redis.call('GET', P .. 'seq') or '0') >= tonumber(as_of))
end

local function write(id, ms, revision, s, k, f, as_of, user, provider, device, idle)
  redis.call('HSET', record_of(id), 's', s, 'k', k, 'f', f, 'o', as_of, 'r', whole(revision))
  if idle == '' then
    redis.call('HDEL', record_of(id), 'm')
  else
    redis.call('HSET', record_of(id), 'm', idle)
  end
  enlist(id, ms, {u = user, i = provider, d = device})
end

-- The session's own idle time in ms, if it has one.
local function own_idle(id)
  local ms = redis.call('HGET', record_of(id), 'm')
  return ms and tonumber(ms)
end

-- INVARIANT: done last, for a time to live of 0 deletes, and a field written after that would be a record
-- without an end.
local function ends_in(id, ms)
  redis.call('ZADD', DUE, whole(NOW + ms), id)
  redis.call('PEXPIRE', record_of(id), whole(ms))
end

-- It was used now.
local function arm(id, idle)
  redis.call('HSET', record_of(id), 'l', whole(NOW))
  ends_in(id, math.min(own_idle(id) or idle, idle, remaining(id)))
end

-- It was written but not used: what is left may become less, and never more.
local function cut_short(id)
  local own = own_idle(id)
  if own then ends_in(id, math.min(own, redis.call('PTTL', record_of(id)))) end
end
"""

# WRITTEN: s, k, f, as_of, user index, provider index or '', device index or '', own idle or '', log or ''
_BODIES = {
    # id, old id or '', handle key, sealed handle, absolute, idle, sealed place or '', WRITTEN
    "create": """
local id, old, handle, sealed = unpack(ARGV, 2, 5)
local absolute, idle, began = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
if not of_this_log(ARGV[17], ARGV[12]) then return -1 end
if old ~= '' then forget(old) end
sweep()
redis.call('HSET', record_of(id), 'a', whole(NOW + absolute))
if began ~= '' then redis.call('HSET', record_of(id), 'b', began) end
write(id, absolute, 0, unpack(ARGV, 9, 16))
add_handle(id, handle, sealed, absolute)
arm(id, idle)
outlive(DUE, absolute)
return 1
""",
    # id, handle key, further handle key, sealed further handle
    "attach": """
local id, handle, further, sealed = unpack(ARGV, 2, 5)
local ms = remaining(id)
if ms == 0 or redis.call('EXISTS', handle) == 0 then return 0 end
add_handle(id, further, sealed, ms)
return 1
""",
    # id, handle key, revision, new handle key, sealed new handle, idle, WRITTEN
    "replace": """
local id, handle, revision, fresh, sealed = unpack(ARGV, 2, 6)
if not may_write(id, handle, revision) then return 0 end
if not of_this_log(ARGV[16], ARGV[11]) then return -1 end
write(id, remaining(id), revision + 1, unpack(ARGV, 8, 15))
drop_handles(id)
add_handle(id, fresh, sealed, remaining(id))
arm(id, tonumber(ARGV[7]))
return 1
""",
    # id, the group's index, how many may be in it, absolute; answers who is too many
    "join": """
local id, index, most = ARGV[2], ARGV[3], tonumber(ARGV[4])
if remaining(id) == 0 then return {} end
prune(index)
redis.call('ZADD', index, 'NX', place(), id)
outlive(index, tonumber(ARGV[5]))
local over, found = redis.call('ZCARD', index) - most, {}
if over <= 0 then return found end
for _, other in ipairs(redis.call('ZRANGE', index, 0, over - 1)) do
  if other ~= id then found[#found + 1] = other end
end
return found
""",
    # id, handle key, revision, WRITTEN
    "update": """
local id, handle, revision = unpack(ARGV, 2, 4)
if not may_write(id, handle, revision) then return 0 end
write(id, remaining(id), revision + 1, unpack(ARGV, 5, 12))
cut_short(id)
return 1
""",
    # id, handle key, idle, sealed place or ''
    "touch": """
local id, handle = ARGV[2], ARGV[3]
if remaining(id) == 0 or redis.call('EXISTS', handle) == 0 then return 0 end
if ARGV[5] ~= '' then redis.call('HSET', record_of(id), 'n', ARGV[5]) end
arm(id, tonumber(ARGV[4]))
return 1
""",
    # id
    "end": """
return forget(ARGV[2])
""",
    # number, ids…; how many were there and began after no lock of that number
    "clear": """
local cleared = 0
for n = 3, #ARGV do
  local id = ARGV[n]
  if tonumber(redis.call('HGET', record_of(id), 'o') or 0) < tonumber(ARGV[2]) then
    cleared = cleared + forget(id)
  end
end
return cleared
""",
    # index, 'REV' or '', the bound to begin at, how many; answers rows of id, place, f, l, b, n
    "list": """
local index, order, bound, count = unpack(ARGV, 2, 5)
local question = {'ZRANGE', index, bound, order == 'REV' and '-inf' or '+inf', 'BYSCORE'}
if order == 'REV' then question[#question + 1] = 'REV' end
for _, word in ipairs({'LIMIT', 0, count, 'WITHSCORES'}) do question[#question + 1] = word end
sweep()
local found, rows = redis.call(unpack(question)), {}
for n = 1, #found, 2 do
  local id = found[n]
  if is_gone(id) then redis.call('ZREM', index, id) end
  rows[#rows + 1] = {id, found[n + 1], unpack(redis.call('HMGET', record_of(id), 'f', 'l', 'b', 'n'))}
end
return rows
""",
    "count": """
return redis.call('ZCOUNT', DUE, '(' .. whole(NOW), '+inf')
""",
}

SCRIPTS = {name: _COMMON + body for name, body in _BODIES.items()}
