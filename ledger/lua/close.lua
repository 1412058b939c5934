#!lua flags=allow-oom
-- The holder lets go of a job: done, failed, cancelled, waiting for a retry, or back on its queue.
-- The claim number makes it safe to repeat: the second call of the same holder changes nothing and is told so.
--
-- ARGV  prefix, id, incarnation, claim number, new state's letter, the attempt as a JSON row,
--       milliseconds until due (state w) or 0, then pairs of record fields to set
-- Returns 1 recorded, 2 recorded before by this very claim, 0 the caller does not hold the job,
--         3 recorded, and somebody waits for the slot of its host that this frees.
--include final
local prefix, id, incarnation, claim, state = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local key = prefix .. 'job:' .. id
local have = redis.call('HMGET', key, 's', 'h', 'n', 'a', 'p', 'x', 'm')
if not have[1] then -- removed with its batch
  redis.call('SREM', prefix .. 'held:' .. incarnation, id)
  redis.call('SREM', prefix .. 'cancel:' .. incarnation, id)
end
if have[2] ~= incarnation or have[3] ~= claim then return 0 end
if have[1] ~= 'r' then return 2 end
-- A cancel that came after the last look wins over going round again.
if have[6] and (state == 'w' or state == 'q') then state = 'c' end
-- What goes, goes first: what comes takes its room, and the record does not keep more than it needs.
redis.call('HDEL', key, 't', 'x', 'k')
if state == 'd' then redis.call('HDEL', key, 'e', 'z') end -- the announced length is the length
redis.call('HSET', key, 's', state, 'a', have[4] and (have[4] .. ',' .. ARGV[6]) or ARGV[6])
for at = 8, #ARGV, 2 do redis.call('HSET', key, ARGV[at], ARGV[at + 1]) end
local batch = prefix .. 'batch:' .. string.match(id, '^(.*)%.')
local pools = {p = 'prefork', t = 'threads', g = 'gevent'}
local letter = have[5]
redis.call('SREM', prefix .. 'held:' .. incarnation, id)
redis.call('SREM', prefix .. 'cancel:' .. incarnation, id)
redis.call('SREM', batch .. ':running', id)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if state == 'd' then
  redis.call('HINCRBY', batch, letter .. 'b', redis.call('HGET', key, 'b') or 0)
end
if state ~= 'w' and state ~= 'q' then
  ended(prefix, id, letter, 'r', state, now)
else
  redis.call('HINCRBY', batch, letter .. 'r', -1)
  redis.call('HINCRBY', batch, letter .. state, 1)
  if state == 'w' then
    redis.call('ZADD', prefix .. 'due', now + tonumber(ARGV[7]), id)
  else
    redis.call('ZADD', prefix .. 'hand:' .. pools[letter], now, id)
    redis.call('RPUSH', prefix .. 'resend:' .. pools[letter], id)
  end
end
if have[7] then
  local host = prefix .. 'host:' .. have[7]
  redis.call('HDEL', key, 'm')
  redis.call('ZREM', host .. ':slots', id)
  if redis.call('ZCARD', host .. ':queue') > 0 then return 3 end
end
return 1
