"""The Lua scripts by which the inventory of devices changes; each runs whole or not at all.

Knows: the keys of `redis_devices`, whose docstring names them. Promises: every write first sees that the
record is at the revision it was read at, and leaves the indexes exact. Leaves sealing to the caller: the
scripts move sealed bytes and never look inside. ARGV[1] is always the key prefix, the rest as each head says.

KEYS[1] is a key of the prefix, by which a cluster's client finds the server; the others are made here. That
is legal because they all have the one hash tag of the prefix.
"""

from __future__ import annotations

_COMMON = """
local P = ARGV[1]
local ALL, CERTIFICATES, DIGESTS = P .. 'devices', P .. 'device-certificates', P .. 'device-keys'
local function record_of(id) return P .. 'device:' .. id end
local function owner_of(digest) return P .. 'device-owner:' .. digest end
local function each(words) return string.gmatch(words or '', '%S+') end

-- Whether one of these is registered with another device, which is there.
local function taken(index, words, id)
  for word in each(words) do
    local other = redis.call('HGET', index, word)
    if other and other ~= id and redis.call('EXISTS', record_of(other)) == 1 then return true end
  end
  return false
end

local function leave(index, words, id)
  for word in each(words) do
    if redis.call('HGET', index, word) == id then redis.call('HDEL', index, word) end
  end
end

local function leave_all(id)
  local c, k, o = unpack(redis.call('HMGET', record_of(id), 'c', 'k', 'o'))
  leave(CERTIFICATES, c, id)
  leave(DIGESTS, k, id)
  for owner in each(o) do redis.call('ZREM', owner_of(owner), id) end
end
"""

_BODIES = {
    # id, revision, new revision, sealed, thumbprints, digests of keys, digests of owners; 0 where somebody
    # wrote since, -1 where a certificate or key is another device's
    "put": """
local id, revision, fresh, sealed, certificates, digests, owners = unpack(ARGV, 2, 8)
local r, v = unpack(redis.call('HMGET', record_of(id), 'r', 'v'))
-- This very write, sent again over a fresh connection: no two seals are alike.
if v == sealed and r == fresh then return 1 end
if (r or '0') ~= revision then return 0 end
if taken(CERTIFICATES, certificates, id) or taken(DIGESTS, digests, id) then return -1 end
leave_all(id)
redis.call('HSET', record_of(id), 'v', sealed, 'r', fresh, 'c', certificates, 'k', digests, 'o', owners)
for word in each(certificates) do redis.call('HSET', CERTIFICATES, word, id) end
for word in each(digests) do redis.call('HSET', DIGESTS, word, id) end
for owner in each(owners) do redis.call('ZADD', owner_of(owner), 0, id) end
redis.call('ZADD', ALL, 0, id)
return 1
""",
    # id
    "remove": """
leave_all(ARGV[2])
redis.call('ZREM', ALL, ARGV[2])
return redis.call('DEL', record_of(ARGV[2]))
""",
    # index, name; answers id, v, r
    "find": """
local id = redis.call('HGET', ARGV[2], ARGV[3])
if not id then return false end
return {id, unpack(redis.call('HMGET', record_of(id), 'v', 'r'))}
""",
    # ids…; answers rows of v, r
    "read": """
local rows = {}
for n = 2, #ARGV do rows[n - 1] = redis.call('HMGET', record_of(ARGV[n]), 'v', 'r') end
return rows
""",
    # (id, revision, new revision, sealed)…; answers which were written. The indexes stay: they are the same.
    "write": """
local done = {}
for n = 2, #ARGV, 4 do
  local id, revision, fresh, sealed = unpack(ARGV, n, n + 3)
  local same = redis.call('HGET', record_of(id), 'r') == revision
  if same then redis.call('HSET', record_of(id), 'v', sealed, 'r', fresh) end
  done[#done + 1] = same and 1 or 0
end
return done
""",
    # index, the bound to begin behind, how many; answers rows of id, v, r
    "list": """
local rows = {}
for n, id in ipairs(redis.call('ZRANGE', ARGV[2], ARGV[3], '+', 'BYLEX', 'LIMIT', 0, ARGV[4])) do
  rows[n] = {id, unpack(redis.call('HMGET', record_of(id), 'v', 'r'))}
end
return rows
""",
}

SCRIPTS = {name: _COMMON + body for name, body in _BODIES.items()}
