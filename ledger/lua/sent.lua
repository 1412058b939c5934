#!lua flags=allow-oom
-- These messages were put on the queue, in this order.
--
-- ARGV  prefix, pool, refs ...
-- Returns how many of them the ledger still waits for; the others were claimed already.
local sent, hand = ARGV[1] .. 'sent:' .. ARGV[2], ARGV[1] .. 'hand:' .. ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local waiting = 0
for at = 3, #ARGV do
  if redis.call('ZREM', hand, ARGV[at]) == 1 then
    redis.call('ZADD', sent, now + at / 1000, ARGV[at]) -- a thousandth of a millisecond apart: the queue's order
    waiting = waiting + 1
  end
end
return waiting
