#!lua flags=allow-oom
-- Declare an incarnation dead whose lease has expired, and put its jobs back on their queues.
-- Safe to run twice, or by two sweeps at once: a job changes hands only while the dead one still holds it.
--
-- ARGV  prefix, incarnation, losses that make a job poison, jobs to handle in this call
-- Returns {-1} while it is alive, else {jobs left, ids put back ..., 'poison', ids that ended as failed ...}
--include final
local prefix, incarnation = ARGV[1], ARGV[2]
if redis.call('EXISTS', prefix .. 'lease:' .. incarnation) == 1 then return {-1} end
redis.call('SADD', prefix .. 'dead', incarnation)
redis.call('HDEL', prefix .. 'incarnations', incarnation)
local held = prefix .. 'held:' .. incarnation
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local pools = {p = 'prefork', t = 'threads', g = 'gevent'}
local back, poisoned = {}, {}
for _, id in ipairs(redis.call('SPOP', held, ARGV[4])) do
  local key = prefix .. 'job:' .. id
  local have = redis.call('HMGET', key, 's', 'h', 'p', 't', 'a', 'x', 'm', 'q', 'e')
  if have[1] == 'r' and have[2] == incarnation then
    local batch = prefix .. 'batch:' .. string.match(id, '^(.*)%.')
    local losses = redis.call('HINCRBY', key, 'l', 1)
    local state, kind, reason = 'q', '"lost"', '"its holder ' .. incarnation .. ' was not heard of any more"'
    if have[6] then state = 'c' end
    if state == 'q' and have[9] and tonumber(have[9]) <= now then
      state, kind, reason = 'f', '"deadline"', '"the time for the job was used up when its holder died"'
    elseif state == 'q' and losses >= tonumber(ARGV[3]) then
      state, kind, reason = 'f', '"poison"', '"its holder died ' .. losses .. ' times"'
    end
    local begun = string.format('%d', tonumber(have[4]) - tonumber(have[8]))
    local row = '[null,' .. begun .. ',' .. string.format('%d', now - tonumber(have[4])) .. ',null,0,null,' .. kind .. ',' .. reason .. ']'
    redis.call('HSET', key, 's', state, 'a', have[5] and (have[5] .. ',' .. row) or row)
    redis.call('HDEL', key, 't', 'x', 'k', 'h') -- without h, nothing the dead one still says is believed
    if have[7] then -- its host's slot; the sweep wakes who waits for it
      redis.call('HDEL', key, 'm')
      redis.call('ZREM', prefix .. 'host:' .. have[7] .. ':slots', id)
    end
    redis.call('SREM', batch .. ':running', id)
    if state == 'q' then
      redis.call('HINCRBY', batch, have[3] .. 'r', -1)
      redis.call('HINCRBY', batch, have[3] .. 'q', 1)
      redis.call('ZADD', prefix .. 'hand:' .. pools[have[3]], now, id)
      redis.call('RPUSH', prefix .. 'resend:' .. pools[have[3]], id)
      back[#back + 1] = id
    else
      ended(prefix, id, have[3], 'r', state, now)
      if state == 'f' then poisoned[#poisoned + 1] = id end
    end
  end
end
local left = redis.call('SCARD', held)
if left == 0 then
  redis.call('SREM', prefix .. 'dead', incarnation)
  redis.call('DEL', prefix .. 'cancel:' .. incarnation)
end
local answer = {left}
for _, id in ipairs(back) do answer[#answer + 1] = id end
answer[#answer + 1] = 'poison'
for _, id in ipairs(poisoned) do answer[#answer + 1] = id end
return answer
