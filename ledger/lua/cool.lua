#!lua flags=allow-oom
-- A host asked for quiet: nobody starts before then. And what a retry inside a job takes of the host's rate.
--
-- ARGV  prefix, host, milliseconds of quiet or 0, downloads per second or 0
-- Returns milliseconds until the host may be asked again.
--include host
local prefix, host = ARGV[1], ARGV[2]
local key = prefix .. 'host:' .. host
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local cool = math.max(now + tonumber(ARGV[3]), tonumber(redis.call('HGET', key, 'cool') or 0))
redis.call('HSET', key, 'cool', cool)
redis.call('EXPIRE', key, 3600)
spend(prefix, host, tonumber(ARGV[4]), now)
return cool - now
