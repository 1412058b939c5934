#!lua flags=allow-oom
-- The heartbeat of an incarnation.
--
-- ARGV  prefix, incarnation, lease in ms
-- Returns {1, ids of its jobs that should stop ...}, or {0}: it was declared dead and must not go on under this name.
local prefix, incarnation = ARGV[1], ARGV[2]
if redis.call('HEXISTS', prefix .. 'incarnations', incarnation) == 0 then return {0} end
redis.call('SET', prefix .. 'lease:' .. incarnation, 1, 'PX', ARGV[3])
local stop = redis.call('SMEMBERS', prefix .. 'cancel:' .. incarnation)
table.insert(stop, 1, 1)
return stop
