#!lua flags=allow-oom
-- The holder lets go of jobs: done, failed, cancelled, waiting for a retry, or back on their queues.
-- Each is judged on its own; what they share (counters, sets) is written once.
-- The claim number makes it safe to repeat: the second call of the same holder changes nothing and is told so.
--
-- ARGV  prefix, then for each job: how many arguments follow, id, incarnation, claim number, new state's letter,
--       the attempt as a JSON row, milliseconds until due (state w) or 0, then pairs of record fields to set
-- Returns for each 1 recorded, 2 recorded before by this very claim, 0 the caller does not hold the job,
--         3 recorded, and somebody waits for the slot of its host that this frees.
--include many
local prefix = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local pools = {p = 'prefork', t = 'threads', g = 'gevent'}
local gone = {} -- key of a set: its members that go
local count = {} -- key of a batch: counter: how much it grows
local over = {} -- ids that have ended

local function put(lists, key, value)
  if not lists[key] then lists[key] = {} end
  table.insert(lists[key], value)
end

local function add(batch, counter, amount)
  if not count[batch] then count[batch] = {} end
  count[batch][counter] = (count[batch][counter] or 0) + amount
end

local function close(at, last)
  local id, incarnation, claim, state, row = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local key = prefix .. 'job:' .. id
  local have = redis.call('HMGET', key, 's', 'h', 'n', 'a', 'p', 'x', 'm', 'b')
  if not have[1] then -- removed with its batch
    put(gone, prefix .. 'held:' .. incarnation, id)
    put(gone, prefix .. 'cancel:' .. incarnation, id)
  end
  if have[2] ~= incarnation or have[3] ~= claim then return 0 end
  if have[1] ~= 'r' then return 2 end
  -- A cancel that came after the last look wins over going round again.
  if have[6] and (state == 'w' or state == 'q') then state = 'c' end
  -- What goes, goes first: what comes takes its room, and the record does not keep more than it needs.
  if state == 'd' then
    redis.call('HDEL', key, 't', 'x', 'k', 'm', 'e', 'z') -- the announced length is the length
  elseif state == 'w' or state == 'q' then
    redis.call('HDEL', key, 't', 'x', 'k', 'm')
  else
    redis.call('HDEL', key, 't', 'x', 'k', 'm', 'e')
  end
  redis.call('HSET', key, 's', state, 'a', have[4] and (have[4] .. ',' .. row) or row, unpack(ARGV, at + 6, last))
  local batch, letter = prefix .. 'batch:' .. string.match(id, '^(.*)%.'), have[5]
  put(gone, prefix .. 'held:' .. incarnation, id)
  put(gone, prefix .. 'cancel:' .. incarnation, id)
  put(gone, batch .. ':running', id)
  add(batch, letter .. 'r', -1)
  add(batch, letter .. state, 1)
  if state == 'd' then add(batch, letter .. 'b', ARGV[at + 6] == 'b' and ARGV[at + 7] or have[8] or 0) end
  if state == 'w' then
    redis.call('ZADD', prefix .. 'due', now + tonumber(ARGV[at + 5]), id)
  elseif state == 'q' then
    redis.call('ZADD', prefix .. 'hand:' .. pools[letter], now, id)
    redis.call('RPUSH', prefix .. 'resend:' .. pools[letter], id)
  else
    over[#over + 1] = id
    count[batch].ended = now
  end
  if have[7] then
    local host = prefix .. 'host:' .. have[7]
    redis.call('ZREM', host .. ':slots', id)
    if redis.call('ZCARD', host .. ':queue') > 0 then return 3 end
  end
  return 1
end

local closed, at = {}, 2
while at <= #ARGV do
  local last = at + tonumber(ARGV[at])
  closed[#closed + 1] = close(at + 1, last)
  at = last + 1
end
many('ZREM', prefix .. 'deadlines', over)
for key, ids in pairs(gone) do many('SREM', key, ids) end
for batch, counters in pairs(count) do
  if counters.ended then redis.call('HSET', batch, 'ended', counters.ended) end
  counters.ended = nil
  for counter, amount in pairs(counters) do redis.call('HINCRBY', batch, counter, amount) end
end
return closed
