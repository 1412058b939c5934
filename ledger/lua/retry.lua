-- Put jobs of a batch that have ended back on their queues, with their attempts as history and a new count of losses.
-- Safe to repeat: the second call finds them queued. A full Redis refuses it, as it refuses new jobs.
--
-- ARGV  prefix, batch, first ordinal, last ordinal, letters of the states to take,
--       then the kinds of failure to take; none: all of them
-- Returns id, pool, id, pool, ...: messages in the caller's hand; or {-1}: there is no such batch, or it is being removed
local prefix, batch = ARGV[1], ARGV[2]
local counters = prefix .. 'batch:' .. batch
local known = redis.call('HMGET', counters, 'created', 'pruning')
if not known[1] or known[2] then return {-1} end
local kinds = {}
for at = 6, #ARGV do kinds[ARGV[at]] = true end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local pools = {p = 'prefork', t = 'threads', g = 'gevent'}
local back = {}
for ordinal = tonumber(ARGV[3]), tonumber(ARGV[4]) do
  local id = batch .. '.' .. ordinal
  local key = prefix .. 'job:' .. id
  local have = redis.call('HMGET', key, 's', 'p', 'a', 'b')
  local state = have[1]
  if state and string.find('dfc', state, 1, true) and string.find(ARGV[5], state, 1, true) then
    local rows = cjson.decode('[' .. (have[3] or '') .. ']')
    local last = rows[#rows] or {}
    if state ~= 'f' or not next(kinds) or kinds[last[7]] then
      redis.call('HSET', key, 's', 'q', 'v', #rows)
      redis.call('HDEL', key, 'l', 'm', 'x', 'e', 'o', 'd', 'u', 'b', 'z')
      redis.call('HINCRBY', counters, have[2] .. state, -1)
      redis.call('HINCRBY', counters, have[2] .. 'q', 1)
      if state == 'd' then redis.call('HINCRBY', counters, have[2] .. 'b', -(have[4] or 0)) end
      redis.call('ZADD', prefix .. 'hand:' .. pools[have[2]], now, id)
      back[#back + 1] = id
      back[#back + 1] = pools[have[2]]
    end
  end
end
if #back > 0 then redis.call('HDEL', counters, 'ended') end
return back
