#!lua flags=allow-oom
-- A worker has these messages in hand: they exist, and are not on the queue.
--
-- ARGV  prefix, pool, refs ...
-- Returns how many of them the ledger waits for.
local sent, hand = ARGV[1] .. 'sent:' .. ARGV[2], ARGV[1] .. 'hand:' .. ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = 0
for at = 3, #ARGV do
  if redis.call('ZREM', sent, ARGV[at]) == 1 or redis.call('ZSCORE', hand, ARGV[at]) then
    redis.call('ZADD', hand, now, ARGV[at])
    known = known + 1
  end
end
return known
