#!lua flags=allow-oom
-- A message arrived: take those of its jobs that are queued. A duplicate message takes nothing.
-- The token makes it safe to repeat: a call whose answer got lost is answered with the same jobs again.
--
-- ARGV  prefix, incarnation, pool, batch, first ordinal, last ordinal, ref, token of this call
-- Returns {} when there is nothing to do, {-1} when the incarnation is not alive,
--         else {time ms, ordinal, HGETALL of its record, ordinal, HGETALL of its record, ...}
local prefix, incarnation, pool, batch, ref, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[7], ARGV[8]
if redis.call('HEXISTS', prefix .. 'incarnations', incarnation) == 0 then return {-1} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREM', prefix .. 'sent:' .. pool, ref)
redis.call('ZREM', prefix .. 'hand:' .. pool, ref)
local taken = {}
for ordinal = tonumber(ARGV[5]), tonumber(ARGV[6]) do
  local id = batch .. '.' .. ordinal
  local key = prefix .. 'job:' .. id
  local have = redis.call('HMGET', key, 's', 'p', 'k')
  local mine = have[1] == 'r' and have[3] == token
  if have[1] == 'q' then
    local letter = have[2]
    mine = true
    redis.call('HSET', key, 's', 'r', 'h', incarnation, 't', now, 'k', token)
    redis.call('HINCRBY', key, 'n', 1)
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
