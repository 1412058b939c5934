#!lua flags=allow-oom
-- Which refs of a pool need a message now: those put back, and those whose message vanished.
--
-- The queue is first in, first out. When more messages were sent than it holds, the oldest of them were taken off: by a
-- worker that has them in hand and touches them every second, or by one that died before it noted them. So they count as
-- in hand from now, and what nobody touches for the grace time has vanished. The same goes for messages that a producer
-- had in hand when it died. A wrong guess sends a duplicate, and a duplicate is a no-op.
--
-- While the pool is paused nothing needs a message.
--
-- ARGV  prefix, pool, queue's key, grace in ms, most refs to handle
-- Returns the refs; they count as in the caller's hand.
local prefix, pool, most = ARGV[1], ARGV[2], tonumber(ARGV[5])
if redis.call('SISMEMBER', prefix .. 'paused', pool) == 1 then return {} end
local sent, hand = prefix .. 'sent:' .. pool, prefix .. 'hand:' .. pool
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local taken = math.min(redis.call('ZCARD', sent) - redis.call('LLEN', ARGV[3]), most)
if taken > 0 then
  for _, ref in ipairs(redis.call('ZRANGE', sent, 0, taken - 1)) do
    redis.call('ZREM', sent, ref)
    redis.call('ZADD', hand, now, ref)
  end
end
local refs = {}
while #refs < most do
  local id = redis.call('LPOP', prefix .. 'resend:' .. pool)
  if not id then break end
  if redis.call('ZSCORE', hand, id) then refs[#refs + 1] = id end
end
for _, ref in ipairs(redis.call('ZRANGEBYSCORE', hand, '-inf', now - tonumber(ARGV[4]), 'LIMIT', 0, most - #refs)) do
  refs[#refs + 1] = ref
end
for _, ref in ipairs(refs) do redis.call('ZADD', hand, now, ref) end
return refs
