#!lua flags=allow-oom
-- A message arrived: take those of its jobs that are queued. A duplicate message takes nothing.
-- The token makes it safe to repeat: a call whose answer got lost is answered with the same jobs again.
--
-- While the pool is paused, or the worker drained, it takes nothing; the message counts as lost and is sent again later.
--
-- ARGV  prefix, incarnation, pool, batch, first ordinal, last ordinal, ref, token of this call,
--       milliseconds that a job may take from its first claim on, unless its batch says otherwise
-- Returns {} when there is nothing to do, {-1} when the incarnation is not alive,
--         else {time ms, ordinal, its record as HGETALL gives it, with what changed at the end, ordinal, ...}
--include many
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
local counters = prefix .. 'batch:' .. batch
local limit = tonumber(redis.call('HGET', counters, 'deadline') or ARGV[9])
local taken, begun, deadlines, letters = {now}, {}, {}, {}
for ordinal = tonumber(ARGV[5]), tonumber(ARGV[6]) do
  local id = batch .. '.' .. ordinal
  local key = prefix .. 'job:' .. id
  local record, have = redis.call('HGETALL', key), {}
  for at = 1, #record, 2 do have[record[at]] = record[at + 1] end
  local mine = have.s == 'r' and have.k == token
  -- One whose time is used up stays queued; overdue.lua ends it.
  if have.s == 'q' and now < tonumber(have.e or math.huge) then
    mine = true
    local change = {'s', 'r', 'h', incarnation, 't', now, 'k', token, 'n', (have.n or 0) + 1}
    if not have.e then
      change[11], change[12] = 'e', now + limit
      deadlines[#deadlines + 1], deadlines[#deadlines + 2] = now + limit, id
    end
    redis.call('HSET', key, unpack(change))
    for _, each in ipairs(change) do record[#record + 1] = each end
    begun[#begun + 1] = id
    letters[have.p] = (letters[have.p] or 0) + 1
  end
  if mine then
    taken[#taken + 1] = ordinal
    taken[#taken + 1] = record
  end
end
many('ZADD', prefix .. 'deadlines', deadlines)
many('SADD', prefix .. 'held:' .. incarnation, begun)
many('SADD', counters .. ':running', begun)
for letter, count in pairs(letters) do
  redis.call('HINCRBY', counters, letter .. 'q', -count)
  redis.call('HINCRBY', counters, letter .. 'r', count)
end
return #taken > 1 and taken or {}
