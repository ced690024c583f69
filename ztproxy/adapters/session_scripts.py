"""The Lua scripts by which sessions change; each runs whole or not at all, on Redis' clock.

Knows: the keys of `redis_sessions`, whose docstring names them. Promises: every write but `create` first sees
that the session is there, past neither its idle time nor its absolute end. Leaves sealing to the caller: the
scripts move sealed bytes and never look inside. ARGV[1] is always the key prefix, the rest as each head says.
"""

from __future__ import annotations

_COMMON = """
local P = ARGV[1]
local function record_of(digest) return P .. 's:{' .. digest .. '}' end
local function handles_of(digest) return P .. 'hs:{' .. digest .. '}' end

local function clock()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- How long the session may live at most, in ms; 0 if it is not there or its end has come.
local function remaining(digest)
  local last = redis.call('HGET', record_of(digest), 'a')
  if not last then return 0 end
  return math.max(0, last - clock())
end

local function drop_handles(digest)
  for _, handle in ipairs(redis.call('SMEMBERS', handles_of(digest))) do redis.call('DEL', handle) end
  redis.call('DEL', handles_of(digest))
end

local function forget(digest)
  for _, index in ipairs(redis.call('HMGET', record_of(digest), 'u', 'i')) do
    if index then redis.call('SREM', index, digest) end
  end
  drop_handles(digest)
  return redis.call('DEL', record_of(digest))
end

local function add(set, member, ms)
  redis.call('SADD', set, member)
  if redis.call('PTTL', set) < ms then redis.call('PEXPIRE', set, ms) end
end

local function add_handle(digest, handle, sealed, ms)
  redis.call('SET', handle, sealed, 'PX', ms)
  add(handles_of(digest), handle, ms)
end

-- Members whose session has ended by time alone leave the index here.
local function prune(index)
  local live = {}
  for _, digest in ipairs(redis.call('SMEMBERS', index)) do
    if redis.call('EXISTS', record_of(digest)) == 1 then
      live[#live + 1] = digest
    else
      redis.call('SREM', index, digest)
    end
  end
  return live
end

-- Compare-and-set: the handle still stands for this session, and nobody wrote since.
local function may_write(digest, handle, revision)
  return redis.call('EXISTS', handle) == 1
    and remaining(digest) > 0
    and redis.call('HGET', record_of(digest), 'r') == revision
end

local function write(digest, revision, s, k, f)
  redis.call('HSET', record_of(digest), 's', s, 'k', k, 'f', f, 'r', string.format('%d', revision))
end

local function arm(digest, idle)
  redis.call('PEXPIRE', record_of(digest), math.min(idle, remaining(digest)))
end
"""

_BODIES = {
    # digest, old digest or '', user index, provider index or '', handle key, sealed handle, absolute, idle,
    # s, k, f
    "create": """
local digest, old, user, provider, handle, sealed = unpack(ARGV, 2, 7)
local absolute, idle = tonumber(ARGV[8]), tonumber(ARGV[9])
if old ~= '' then forget(old) end
write(digest, 0, ARGV[10], ARGV[11], ARGV[12])
redis.call('HSET', record_of(digest), 'a', string.format('%d', clock() + absolute), 'u', user)
prune(user)
add(user, digest, absolute)
if provider ~= '' then
  redis.call('HSET', record_of(digest), 'i', provider)
  prune(provider)
  add(provider, digest, absolute)
end
add_handle(digest, handle, sealed, absolute)
arm(digest, idle)
return 1
""",
    # digest, handle key, further handle key, sealed further handle
    "attach": """
local digest, handle, further, sealed = unpack(ARGV, 2, 5)
local ms = remaining(digest)
if ms == 0 or redis.call('EXISTS', handle) == 0 then return 0 end
add_handle(digest, further, sealed, ms)
return 1
""",
    # digest, handle key, revision, new handle key, sealed new handle, idle, s, k, f
    "replace": """
local digest, handle, revision, fresh, sealed = unpack(ARGV, 2, 6)
if not may_write(digest, handle, revision) then return 0 end
write(digest, revision + 1, ARGV[8], ARGV[9], ARGV[10])
drop_handles(digest)
add_handle(digest, fresh, sealed, remaining(digest))
arm(digest, tonumber(ARGV[7]))
return 1
""",
    # digest, handle key, revision, s, k, f
    "update": """
local digest, handle, revision = unpack(ARGV, 2, 4)
if not may_write(digest, handle, revision) then return 0 end
write(digest, revision + 1, ARGV[5], ARGV[6], ARGV[7])
return 1
""",
    # digest, handle key, idle
    "touch": """
local digest, handle = ARGV[2], ARGV[3]
if remaining(digest) == 0 or redis.call('EXISTS', handle) == 0 then return 0 end
arm(digest, tonumber(ARGV[4]))
return 1
""",
    # digest
    "end": """
return forget(ARGV[2])
""",
    # index
    "end_of_index": """
local ended = 0
for _, digest in ipairs(redis.call('SMEMBERS', ARGV[2])) do ended = ended + forget(digest) end
redis.call('DEL', ARGV[2])
return ended
""",
    # index; answers rows of digest and f
    "list": """
local rows = {}
for _, digest in ipairs(prune(ARGV[2])) do
  rows[#rows + 1] = {digest, redis.call('HGET', record_of(digest), 'f')}
end
return rows
""",
}

SCRIPTS = {name: _COMMON + body for name, body in _BODIES.items()}
