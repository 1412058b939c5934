#!lua flags=allow-oom
-- Before anybody is judged: time in which nobody could renew is given back to every lease. Leases are keys with a moment
-- at which they go, and that moment comes also while Redis is away; so what an absence took is added when it is over.
-- It lasted at most as long as no sweep has looked. Who died before it is taken over that much later, and no later.
--
-- A sweep that was away itself costs nobody anything: workers renew without it. Nor does one that is slow.
--
-- ARGV  prefix, Redis' run id, lease in ms, 1 if the caller found Redis away since it last called
-- Returns milliseconds given to each lease.
local prefix, run, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local had = redis.call('HMGET', prefix .. 'looked', 'at', 'run')
redis.call('HSET', prefix .. 'looked', 'at', now, 'run', run)
if had[2] == run and ARGV[4] ~= '1' then return 0 end
local given = math.min(lease, now - tonumber(had[1] or 0))
if given < 0 then given = lease end -- the clock went back
if given == 0 then return 0 end
for at, incarnation in ipairs(redis.call('HGETALL', prefix .. 'incarnations')) do
  if at % 2 == 1 then
    local left = math.max(0, redis.call('PTTL', prefix .. 'lease:' .. incarnation))
    redis.call('SET', prefix .. 'lease:' .. incarnation, 1, 'PX', math.min(lease, left + given))
  end
end
return given
