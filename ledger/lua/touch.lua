-- A worker has these messages in hand: they exist.
--
-- ARGV  prefix, pool, refs ...
-- Returns how many of them the ledger waits for.
local key = ARGV[1] .. 'sent:' .. ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = 0
for at = 3, #ARGV do
  if redis.call('ZSCORE', key, ARGV[at]) then
    redis.call('ZADD', key, now, ARGV[at])
    known = known + 1
  end
end
return known
