#!lua flags=allow-oom
-- A message arrived: take those of its jobs that are queued. A duplicate message takes nothing.
-- The token makes it safe to repeat: a call whose answer got lost is answered with the same jobs again.
--
-- While the pool is paused, or the worker drained, it takes nothing; the message counts as lost and is sent again later.
--
-- ARGV  prefix, incarnation, pool, batch, first ordinal, last ordinal, ref, token of this call,
--       milliseconds that a job may take from its first claim on, unless its batch says otherwise
-- Returns {} when there is nothing to do, {-1} when the incarnation is not alive,
--         else {time ms, ordinal, HGETALL of its record, ordinal, HGETALL of its record, ...}
local prefix, incarnation, pool, batch, ref, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[7], ARGV[8]
local who = redis.call('HGET', prefix .. 'incarnations', incarnation)
if not who then return {-1} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREM', prefix .. 'sent:' .. pool, ref)
redis.call('ZREM', prefix .. 'hand:' .. pool, ref)
if redis.call('SISMEMBER', prefix .. 'paused', pool) == 1
  or (redis.call('EXISTS', prefix .. 'drained') == 1
    and redis.call('SISMEMBER', prefix .. 'drained', cjson.decode(who).worker) == 1) then
  redis.call('ZADD', prefix .. 'hand:' .. pool, now, ref)
  redis.call('RPUSH', prefix .. 'resend:' .. pool, ref)
  return {}
end
local limit = redis.call('HGET', prefix .. 'batch:' .. batch, 'deadline') or ARGV[9]
local taken = {}
for ordinal = tonumber(ARGV[5]), tonumber(ARGV[6]) do
  local id = batch .. '.' .. ordinal
  local key = prefix .. 'job:' .. id
  local have = redis.call('HMGET', key, 's', 'p', 'k', 'e')
  local mine = have[1] == 'r' and have[3] == token
  -- One whose time is used up stays queued; overdue.lua ends it.
  if have[1] == 'q' and now < tonumber(have[4] or math.huge) then
    local letter = have[2]
    mine = true
    redis.call('HSET', key, 's', 'r', 'h', incarnation, 't', now, 'k', token)
    redis.call('HINCRBY', key, 'n', 1)
    if not have[4] then
      redis.call('HSET', key, 'e', now + tonumber(limit))
      redis.call('ZADD', prefix .. 'deadlines', now + tonumber(limit), id)
    end
    redis.call('HINCRBY', prefix .. 'batch:' .. batch, letter .. 'q', -1)
    redis.call('HINCRBY', prefix .. 'batch:' .. batch, letter .. 'r', 1)
    redis.call('SADD', prefix .. 'held:' .. incarnation, id)
    redis.call('SADD', prefix .. 'batch:' .. batch .. ':running', id)
  end
  if mine then
    if #taken == 0 then taken[1] = now end
    taken[#taken + 1] = ordinal
    taken[#taken + 1] = redis.call('HGETALL', key)
  end
end
return taken
