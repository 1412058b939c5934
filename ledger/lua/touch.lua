#!lua flags=allow-oom
-- A worker has these messages in hand: they exist, and are not on the queue.
--
-- ARGV  prefix, pool, worker, refs ...
-- Returns 1 if it may take more, 0 while the pool is paused or the worker drained.
local prefix, pool = ARGV[1], ARGV[2]
local sent, hand = prefix .. 'sent:' .. pool, prefix .. 'hand:' .. pool
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 4, #ARGV do
  if redis.call('ZREM', sent, ARGV[at]) == 1 or redis.call('ZSCORE', hand, ARGV[at]) then
    redis.call('ZADD', hand, now, ARGV[at])
  end
end
if redis.call('SISMEMBER', prefix .. 'paused', pool) == 1 then return 0 end
return 1 - redis.call('SISMEMBER', prefix .. 'drained', ARGV[3])
