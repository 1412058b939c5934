#!lua flags=allow-oom
-- Put those at the head of a host's queue back on their pools' queues for whom there is room now.
-- The woken have no claim on that room: whoever comes first takes it, and the late go back to their place. So a host
-- is never idle while the woken stand behind a long queue. Wakes that brought nobody are repeated after ten seconds.
--
-- ARGV  prefix, host, downloads at once or 0, downloads per second or 0, 1 if the sweep is to send the messages
-- Returns id, pool, id, pool, ...; unless the sweep sends them, they count as in the caller's hand.
--include host
local prefix, host = ARGV[1], ARGV[2]
local key = prefix .. 'host:' .. host
local pools = {p = 'prefork', t = 'threads', g = 'gevent'}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key .. ':woken', '-inf', now)) do
  redis.call('ZREM', key .. ':woken', id)
end
local room = math.min(100, starts(prefix, host, tonumber(ARGV[3]), tonumber(ARGV[4]), now))
room = room - redis.call('ZCARD', key .. ':woken')
local woken = {}
while room > 0 do
  local id = redis.call('ZRANGE', key .. ':queue', 0, 0)[1]
  if not id then break end
  redis.call('ZREM', key .. ':queue', id)
  local job = prefix .. 'job:' .. id
  local have = redis.call('HMGET', job, 's', 'p', 'm')
  if have[1] == 'w' and have[3] == host then -- not cancelled, not removed
    local batch = prefix .. 'batch:' .. string.match(id, '^(.*)%.')
    redis.call('HSET', job, 's', 'q')
    redis.call('HDEL', job, 'm')
    redis.call('HINCRBY', batch, have[2] .. 'w', -1)
    redis.call('HINCRBY', batch, have[2] .. 'q', 1)
    redis.call('ZADD', key .. ':woken', now + 10000, id)
    redis.call('ZADD', prefix .. 'hand:' .. pools[have[2]], now, id)
    if ARGV[5] == '1' then redis.call('RPUSH', prefix .. 'resend:' .. pools[have[2]], id) end
    woken[#woken + 1] = id
    woken[#woken + 1] = pools[have[2]]
    room = room - 1
  end
end
if redis.call('ZCARD', key .. ':queue') == 0 then redis.call('SREM', prefix .. 'hosts', host) end
return woken
