#!lua flags=allow-oom
-- End jobs whose time is used up and that nobody runs. Whoever runs one ends it himself; should he die, orphans.lua does.
--
-- ARGV  prefix, jobs to handle in this call, milliseconds after which to look again at those that run
-- Returns how many were ended.
--include final
local prefix = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local pools = {p = 'prefork', t = 'threads', g = 'gevent'}
local count = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'deadlines', '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local key = prefix .. 'job:' .. id
  local have = redis.call('HMGET', key, 's', 'p', 'a', 'q')
  if have[1] == 'r' then
    redis.call('ZADD', prefix .. 'deadlines', now + tonumber(ARGV[3]), id)
  elseif have[1] == 'q' or have[1] == 'w' then
    local doing = have[1] == 'q' and 'queued' or 'waiting'
    local row = '[null,' .. string.format('%d', now - tonumber(have[4])) .. ',0,null,0,null,"deadline","the time for the job was used up while it was ' .. doing .. '"]'
    redis.call('HSET', key, 's', 'f', 'a', have[3] and (have[3] .. ',' .. row) or row)
    redis.call('ZREM', prefix .. 'sent:' .. pools[have[2]], id)
    redis.call('ZREM', prefix .. 'hand:' .. pools[have[2]], id)
    redis.call('ZREM', prefix .. 'due', id)
    ended(prefix, id, have[2], have[1], 'f', now)
    count = count + 1
  else
    redis.call('ZREM', prefix .. 'deadlines', id)
  end
end
return count
