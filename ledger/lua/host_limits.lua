-- How many downloads a host takes now, over all workers together.
--
-- host:HOST        hash  cool: until when none starts; tat: until when its rate is spent; both by the ledger clock, ms
-- host:HOST:slots  zset  ids of the jobs that download from it, by when they began
-- host:HOST:queue  zset  ids of the jobs that wait for it, by when they were submitted
-- host:HOST:woken  zset  ids that were taken off that queue and have not come yet, by when they are given up
--include common

local function host_key(host) return prefix .. 'host:' .. host end

-- Note something of a host, for longer than any pause that it may ask for.
local function note(host, field, value)
  redis.call('HSET', host_key(host), field, value)
  redis.call('EXPIRE', host_key(host), 90000)
end

-- A slot belongs to a running job and ends with its claim. Only a record that was removed can leave one behind.
local function heal(host)
  if now < tonumber(redis.call('HGET', host_key(host), 'healed') or 0) + 1000 then return end
  note(host, 'healed', now)
  local slots = host_key(host) .. ':slots'
  for _, id in ipairs(redis.call('ZRANGE', slots, 0, -1)) do
    local have = redis.call('HMGET', job_key(id), 's', 'm')
    if have[1] ~= 'r' or have[2] ~= host then redis.call('ZREM', slots, id) end
  end
end

-- Until when the host's rate is spent.
local function spent(host) return math.max(now, tonumber(redis.call('HGET', host_key(host), 'tat') or 0)) end

local function spend(host, rate)
  if rate > 0 then note(host, 'tat', string.format('%.3f', spent(host) + 1000 / rate)) end
end

-- How many downloads may start now. A second's worth may start at once; at less than one per second, one.
local function starts(host, limit, rate)
  local slots, room = host_key(host) .. ':slots', 1e6
  if now < tonumber(redis.call('HGET', host_key(host), 'cool') or 0) then return 0 end
  if limit > 0 then
    if redis.call('ZCARD', slots) >= limit then heal(host) end
    room = limit - redis.call('ZCARD', slots)
  end
  if rate > 0 then
    local burst = math.max(1000, 1000 / rate)
    room = math.min(room, math.floor((now + burst - spent(host)) * rate / 1000 + 1e-6))
  end
  return room
end

-- May a claimed job start a download from this host now? If not, it goes back: waiting, in the host's queue.
-- Safe to repeat, like a claim: the second call is answered as the first.
--
-- ARGV  id, incarnation, claim number, host, downloads at once or 0, downloads per second or 0
-- Returns 1 it may, and has a slot; 0 it waits now, the claim is over; -1 the caller does not hold the job.
function commands.acquire()
  local id, incarnation, host = ARGV[3], ARGV[4], ARGV[6]
  local limit, rate = tonumber(ARGV[7]), tonumber(ARGV[8])
  local have = read(id, 's', 'h', 'n', 'p', 'x', 'm', 'q', 'a')
  if have.h ~= incarnation or have.n ~= ARGV[5] then return -1 end
  if have.s == 'w' and have.m == host then return 0 end
  if have.s ~= 'r' then return -1 end
  if have.x or have.m == host then return 1 end -- cancelled: it ends before it connects
  if have.m then redis.call('ZREM', host_key(have.m) .. ':slots', id) end -- it goes on to another host
  if starts(host, limit, rate) >= 1 then
    redis.call('HSET', job_key(id), 'm', host)
    redis.call('ZADD', host_key(host) .. ':slots', now, id)
    redis.call('ZREM', host_key(host) .. ':woken', id)
    spend(host, rate)
    return 1
  end
  redis.call('HSET', job_key(id), 's', 'w', 'm', host)
  redis.call('HDEL', job_key(id), 't', 'k', 'w')
  if not have.a then -- its time has not begun: standing in line is not the server's fault, nor the job's
    redis.call('HDEL', job_key(id), 'e')
    redis.call('ZREM', prefix .. 'deadlines', id)
  end
  redis.call('SREM', prefix .. 'held:' .. incarnation, id)
  redis.call('SREM', batch_key(id) .. ':running', id)
  count(id, have.p, 'r', 'w')
  redis.call('ZADD', host_key(host) .. ':queue', have.q, id) -- woken and too late, it has its old place
  redis.call('ZREM', host_key(host) .. ':woken', id) -- ... and may be woken again at once
  redis.call('SADD', prefix .. 'hosts', host)
  return 0
end

-- A host asked for a pause: no download starts before then. And what a retry inside a job takes of the host's rate.
--
-- ARGV  host, milliseconds of the pause or 0, downloads per second or 0
-- Returns milliseconds until the host may be asked again.
function commands.cool()
  local host = ARGV[3]
  local cool = math.max(now + ARGV[4], tonumber(redis.call('HGET', host_key(host), 'cool') or 0))
  note(host, 'cool', cool)
  spend(host, tonumber(ARGV[5]))
  return cool - now
end

-- Put the first jobs of a host's queue back on their pools' queues, as many as there is room for now.
-- A wake-up reserves nothing: the first job to ask gets the slot, the others return to their position in the queue. So a
-- host is never idle while the woken stand behind a long queue. Wake-ups that led to nothing are repeated after 10 s.
--
-- ARGV  host, downloads at once or 0, downloads per second or 0, 1 if the sweep is to send the messages
-- Returns id, pool, id, pool, ...; unless the sweep sends them, they count as in the caller's hand.
function commands.wake()
  local host = ARGV[3]
  local key = host_key(host)
  for _, id in ipairs(redis.call('ZRANGE', key .. ':woken', 0, -1)) do
    local state = guarded(id, function() return read(id, 's').s end)
    local comes = (state == 'q' or state == 'r') and tonumber(redis.call('ZSCORE', key .. ':woken', id)) > now
    if not comes then redis.call('ZREM', key .. ':woken', id) end -- too late, or cancelled on its way
  end
  local room = math.min(100, starts(host, tonumber(ARGV[4]), tonumber(ARGV[5])))
  room = room - redis.call('ZCARD', key .. ':woken')
  local woken = {}
  while room > 0 do
    local id = redis.call('ZRANGE', key .. ':queue', 0, 0)[1]
    if not id then break end
    redis.call('ZREM', key .. ':queue', id)
    local letter = guarded(id, function()
      local have = read(id, 's', 'p', 'm')
      if have.s ~= 'w' or have.m ~= host then return nil end -- cancelled, or removed
      requeue(id, have.p)
      redis.call('HDEL', job_key(id), 'm')
      redis.call('ZADD', key .. ':woken', now + 10000, id)
      if ARGV[6] == '1' then needs_message(id, have.p) else in_hand(id, have.p) end
      return have.p
    end)
    if letter then
      woken[#woken + 1], woken[#woken + 2] = id, POOLS[letter]
      room = room - 1
    end
  end
  if redis.call('ZCARD', key .. ':queue') == 0 then redis.call('SREM', prefix .. 'hosts', host) end
  return woken
end

return commands[ARGV[2]]()
