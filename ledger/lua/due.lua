#!lua flags=allow-oom
-- Put waiting jobs whose time has come back on their queues.
--
-- ARGV  prefix, jobs to handle in this call
-- Returns how many were put back.
local prefix = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local pools = {p = 'prefork', t = 'threads', g = 'gevent'}
local ids = redis.call('ZRANGEBYSCORE', prefix .. 'due', '-inf', now, 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do
  local key = prefix .. 'job:' .. id
  local have = redis.call('HMGET', key, 's', 'p')
  if have[1] == 'w' then
    local batch = prefix .. 'batch:' .. string.match(id, '^(.*)%.')
    redis.call('HSET', key, 's', 'q')
    redis.call('HINCRBY', batch, have[2] .. 'w', -1)
    redis.call('HINCRBY', batch, have[2] .. 'q', 1)
    redis.call('ZADD', prefix .. 'hand:' .. pools[have[2]], now, id)
    redis.call('RPUSH', prefix .. 'resend:' .. pools[have[2]], id)
  end
  redis.call('ZREM', prefix .. 'due', id)
end
return #ids
