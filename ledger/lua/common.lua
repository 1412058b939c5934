-- Included first by every library: names, the two clocks, and the ways in which a job changes its state.
-- ARGV[1] is the prefix of all keys, ARGV[2] the command; the command's own arguments begin at ARGV[3].
local prefix = ARGV[1]
local POOLS = {p = 'prefork', t = 'threads', g = 'gevent'}
local SPAN = 10000 -- jobs that one call may name; more would hold up everything else on this Redis
local GAP = 2000 -- milliseconds without any call, after which the ledger clock has stood still
local commands = {}

local function job_key(id) return prefix .. 'job:' .. id end
local function batch_key(id) return prefix .. 'batch:' .. string.match(id, '^(.*)%.') end

-- A command with a list of arguments, however long; Lua passes some thousands at once.
local function many(command, key, list)
  for at = 1, #list, 1000 do redis.call(command, key, unpack(list, at, math.min(at + 999, #list))) end
end

-- Milliseconds. `wall` is Redis' own clock, for the times that people read. `now` is the ledger clock, by which
-- leases, deadlines, due times and messages in hand are judged: it follows `wall`, never goes back, and leaves out each
-- gap in which nothing was asked of the ledger, because Redis was away, its machine slept, or its clock was set.
local function clocks()
  local time = redis.call('TIME')
  local wall = time[1] * 1000 + math.floor(time[2] / 1000)
  local have = redis.call('HMGET', prefix .. 'clock', 'shift', 'last', 'gap')
  local shift, last = tonumber(have[1] or 0), tonumber(have[2] or wall)
  local now = wall + shift
  if now < last or now > last + tonumber(have[3] or GAP) then
    now = last
    redis.call('HSET', prefix .. 'clock', 'shift', last - wall, 'last', last)
  elseif not have[2] or now >= last + 100 then -- not each call writes
    redis.call('HSET', prefix .. 'clock', 'last', now)
  end
  return wall, now
end
local wall, now = clocks()

-- Fields of a record, by name; those that it does not have are nil.
local function read(id, ...)
  local have = {}
  for at, value in ipairs(redis.call('HMGET', job_key(id), ...)) do
    if value then have[select(at, ...)] = value end
  end
  return have
end

local function ordinals(first, last)
  first, last = tonumber(first), tonumber(last)
  if not first or not last or last - first >= SPAN then error('expected at most ' .. SPAN .. ' jobs in one call') end
  return first, last
end

local function count(id, letter, from, to)
  local batch = batch_key(id)
  redis.call('HINCRBY', batch, letter .. from, -1)
  redis.call('HINCRBY', batch, letter .. to, 1)
end

-- A queued job's message is in the caller's hand.
local function in_hand(id, letter) redis.call('ZADD', prefix .. 'hand:' .. POOLS[letter], now, id) end

-- A queued job needs a message; the sweep sends it in its next round.
local function needs_message(id, letter)
  in_hand(id, letter)
  redis.call('RPUSH', prefix .. 'resend:' .. POOLS[letter], id)
end

-- A waiting job is queued again. Its message is the caller's affair.
local function requeue(id, letter)
  redis.call('HSET', job_key(id), 's', 'q')
  count(id, letter, 'w', 'q')
end

-- A queued or waiting job leaves all lists in which it waits.
local function unlist(id, letter)
  for _, list in ipairs({'sent:', 'hand:', 'suspects:'}) do redis.call('ZREM', prefix .. list .. POOLS[letter], id) end
  redis.call('ZREM', prefix .. 'due', id)
end

-- How much its losses weigh against a job: one that counts as much as two in company. `have` needs the fields l y.
-- With 0 or 1 it runs as any other, also in a group. With 2 it is a suspect, with more it is tried alone.
local function weight(have) return 2 * (have.l or 0) + (have.y or 0) end

-- A job reaches its end. `from` is the letter of the state before.
local function end_job(id, letter, from, state)
  redis.call('HDEL', job_key(id), 't', 'x', 'k', 'e', 'm', 'w')
  redis.call('ZREM', prefix .. 'deadlines', id)
  count(id, letter, from, state)
  redis.call('HSET', batch_key(id), 'ended', wall)
end

-- A job that no process runs ends. `have` needs the fields s p.
local function end_idle(id, have, state)
  redis.call('HSET', job_key(id), 's', state)
  unlist(id, have.p)
  end_job(id, have.p, have.s, state)
end

-- The row of an attempt that its holder did not close.
local function row(begun, took, kind, reason)
  return string.format('[null,%d,%d,null,0,null,%s,%s]', begun, math.max(0, took), cjson.encode(kind), cjson.encode(reason))
end

-- A running job leaves a process that did not close it, and goes to state q, f or c. Without a kind there is no attempt.
-- `have` needs the fields p m h, and for an attempt t q a.
local function take_back(id, have, state, kind, reason)
  redis.call('HSET', job_key(id), 's', state)
  if kind then
    local started = tonumber(have.t)
    local closed = row(started - tonumber(have.q), wall - started, kind, reason)
    redis.call('HSET', job_key(id), 'a', have.a and (have.a .. ',' .. closed) or closed)
  end
  redis.call('SREM', prefix .. 'cancel:' .. have.h, id .. ' ' .. (redis.call('HGET', job_key(id), 'n') or ''))
  redis.call('HDEL', job_key(id), 't', 'x', 'k', 'h', 'm', 'w') -- without h, the former holder is not believed
  if have.m then redis.call('ZREM', prefix .. 'host:' .. have.m .. ':slots', id) end -- the sweep wakes the next one
  redis.call('SREM', prefix .. 'held:' .. have.h, id)
  redis.call('SREM', batch_key(id) .. ':running', id)
  if state == 'q' then count(id, have.p, 'r', 'q') else end_job(id, have.p, 'r', state) end
end

-- A record that cannot be read must not stop the others: it ends as failed, as far as that can be written.
local function quarantine(id, why)
  local key = job_key(id)
  for letter in pairs(POOLS) do unlist(id, letter) end
  redis.call('ZREM', prefix .. 'deadlines', id)
  if redis.call('TYPE', key).ok ~= 'hash' then return end
  local have = read(id, 's', 'p', 'h', 'q', 'a')
  if have.s and string.find('dfc', have.s, 1, true) then return end
  local queued = tonumber(have.q)
  local attempts = have.a and pcall(cjson.decode, '[' .. have.a .. ']') and have.a .. ',' or ''
  if not queued then
    queued, attempts = wall, ''
    redis.call('HSET', key, 'q', queued)
  end
  redis.call('HSET', key, 's', 'f', 'a', attempts .. row(wall - queued, 0, 'internal', 'its record cannot be read: ' .. why))
  redis.call('HDEL', key, 't', 'x', 'k', 'h', 'm', 'e', 'w')
  if have.h then redis.call('SREM', prefix .. 'held:' .. have.h, id) end
  if string.find(id, '.', 1, true) then
    redis.call('SREM', batch_key(id) .. ':running', id)
    if POOLS[have.p] and have.s and string.find('qwr', have.s, 1, true) then
      count(id, have.p, have.s, 'f')
      redis.call('HSET', batch_key(id), 'ended', wall)
    end
  end
end

-- Returns what the action on one of several jobs returns; nil if its record cannot be read.
local function guarded(id, action, ...)
  local good, answer = pcall(action, id, ...)
  if good then return answer end
  quarantine(id, type(answer) == 'table' and answer.err or tostring(answer))
end
