-- Included by other scripts: how many downloads a host takes now.
--
-- host:HOST        hash  cool: until when nobody starts, ms; tat: until when its rate is spent, ms
-- host:HOST:slots  zset  ids of the jobs that download from it, by when they began
-- host:HOST:queue  zset  ids of the jobs that wait for it, by when they were submitted
-- host:HOST:woken  zset  ids that were taken off that queue and have not come yet, by when they are given up

-- A slot belongs to a running job and ends with its claim. Only a record that was removed can leave one behind.
local function heal(prefix, host, now)
  local key, slots = prefix .. 'host:' .. host, prefix .. 'host:' .. host .. ':slots'
  if now < tonumber(redis.call('HGET', key, 'healed') or 0) + 1000 then return end
  redis.call('HSET', key, 'healed', now)
  redis.call('EXPIRE', key, 3600)
  for _, id in ipairs(redis.call('ZRANGE', slots, 0, -1)) do
    local have = redis.call('HMGET', prefix .. 'job:' .. id, 's', 'm')
    if have[1] ~= 'r' or have[2] ~= host then redis.call('ZREM', slots, id) end
  end
end

-- A second's worth may start at once; at less than one per second, one.
local function burst(rate) return math.max(1000, 1000 / rate) end

local function starts(prefix, host, limit, rate, now)
  local key, room = prefix .. 'host:' .. host, 1e6
  local have = redis.call('HMGET', key, 'cool', 'tat')
  if now < tonumber(have[1] or 0) then return 0 end
  if limit > 0 then
    if redis.call('ZCARD', key .. ':slots') >= limit then heal(prefix, host, now) end
    room = limit - redis.call('ZCARD', key .. ':slots')
  end
  if rate > 0 then
    local spent = math.max(now, tonumber(have[2] or 0))
    room = math.min(room, math.floor((now + burst(rate) - spent) * rate / 1000 + 1e-6))
  end
  return room
end

local function spend(prefix, host, rate, now)
  if rate <= 0 then return end
  local key = prefix .. 'host:' .. host
  local spent = math.max(now, tonumber(redis.call('HGET', key, 'tat') or 0))
  redis.call('HSET', key, 'tat', string.format('%.3f', spent + 1000 / rate))
  redis.call('EXPIRE', key, 3600)
end
