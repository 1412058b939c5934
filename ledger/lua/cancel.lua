#!lua flags=allow-oom
-- Cancel a run of jobs: queued and waiting ones at once, running ones by telling their holder.
--
-- ARGV  prefix, batch, first ordinal, last ordinal
-- Returns {cancelled now, asked to stop, final before, unknown}
--include final
local prefix, batch = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local moment = time[1] * 1000 + math.floor(time[2] / 1000)
local pools = {p = 'prefork', t = 'threads', g = 'gevent'}
local now, asked, final, unknown = 0, 0, 0, 0
for ordinal = tonumber(ARGV[3]), tonumber(ARGV[4]) do
  local id = batch .. '.' .. ordinal
  local key = prefix .. 'job:' .. id
  local have = redis.call('HMGET', key, 's', 'p', 'h')
  if have[1] == 'q' or have[1] == 'w' then
    redis.call('HSET', key, 's', 'c')
    redis.call('ZREM', prefix .. 'sent:' .. pools[have[2]], id)
    redis.call('ZREM', prefix .. 'hand:' .. pools[have[2]], id)
    redis.call('ZREM', prefix .. 'due', id)
    ended(prefix, id, have[2], have[1], 'c', moment)
    now = now + 1
  elseif have[1] == 'r' then
    redis.call('HSET', key, 'x', 1)
    redis.call('SADD', prefix .. 'cancel:' .. have[3], id)
    asked = asked + 1
  elseif have[1] then
    final = final + 1
  else
    unknown = unknown + 1
  end
end
return {now, asked, final, unknown}
