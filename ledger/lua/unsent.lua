-- Which refs of a pool need a message now: those put back, and those whose message vanished.
--
-- The queue is first in, first out, so when the ledger waits for more messages than the queue holds, the surplus is
-- its oldest ones: reserved by a worker, which touches them every second, or vanished (popped by a worker that died
-- before it noted them). A wrong guess sends a duplicate, and a duplicate is a no-op.
--
-- ARGV  prefix, pool, queue's key, grace in ms, most refs to return
-- Returns the refs; each counts as sent now.
local prefix, pool, most = ARGV[1], ARGV[2], tonumber(ARGV[5])
local sent = prefix .. 'sent:' .. pool
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local refs, seen = {}, {}
for _ = 1, most do
  local id = redis.call('LPOP', prefix .. 'resend:' .. pool)
  if not id then break end
  if not seen[id] and redis.call('ZSCORE', sent, id) then
    refs[#refs + 1] = id
    seen[id] = true
  end
end
local surplus = redis.call('ZCARD', sent) - redis.call('LLEN', ARGV[3]) - #refs
local room = math.min(surplus, most - #refs)
if room > 0 then
  for _, ref in ipairs(redis.call('ZRANGEBYSCORE', sent, '-inf', now - tonumber(ARGV[4]), 'LIMIT', 0, room)) do
    if not seen[ref] then refs[#refs + 1] = ref end
  end
end
for order, ref in ipairs(refs) do redis.call('ZADD', sent, now + order / 1000, ref) end
return refs
