#!lua flags=allow-oom
-- May a claimed job start a download from this host now? If not, it goes back: waiting, in the host's queue.
-- Safe to repeat, like a claim: the second call is answered as the first.
--
-- ARGV  prefix, id, incarnation, claim number, host, downloads at once or 0, downloads per second or 0
-- Returns 1 it may, and has a slot; 0 it waits now, the claim is over; -1 the caller does not hold the job.
--include host
local prefix, id, incarnation, claim, host = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local limit, rate = tonumber(ARGV[6]), tonumber(ARGV[7])
local key = prefix .. 'job:' .. id
local have = redis.call('HMGET', key, 's', 'h', 'n', 'p', 'x', 'm', 'q', 'a')
if have[2] ~= incarnation or have[3] ~= claim then return -1 end
if have[1] == 'w' and have[6] == host then return 0 end
if have[1] ~= 'r' then return -1 end
if have[5] or have[6] == host then return 1 end -- cancelled: it ends before it asks anybody
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if have[6] then -- it goes on to another host
  redis.call('ZREM', prefix .. 'host:' .. have[6] .. ':slots', id)
end
if starts(prefix, host, limit, rate, now) >= 1 then
  redis.call('HSET', key, 'm', host)
  redis.call('ZADD', prefix .. 'host:' .. host .. ':slots', now, id)
  redis.call('ZREM', prefix .. 'host:' .. host .. ':woken', id)
  spend(prefix, host, rate, now)
  return 1
end
local batch = prefix .. 'batch:' .. string.match(id, '^(.*)%.')
redis.call('HSET', key, 's', 'w', 'm', host)
redis.call('HDEL', key, 't', 'k')
if not have[8] then -- its time has not begun: standing in line is not the server's fault, nor the job's
  redis.call('HDEL', key, 'e')
  redis.call('ZREM', prefix .. 'deadlines', id)
end
redis.call('SREM', prefix .. 'held:' .. incarnation, id)
redis.call('SREM', batch .. ':running', id)
redis.call('HINCRBY', batch, have[4] .. 'r', -1)
redis.call('HINCRBY', batch, have[4] .. 'w', 1)
redis.call('ZADD', prefix .. 'host:' .. host .. ':queue', have[7], id) -- woken and too late, it has its old place
redis.call('SADD', prefix .. 'hosts', host)
return 0
