-- Write the records of jobs that are new, before any message of theirs is sent.
-- The only script that a full Redis refuses (the others carry allow-oom): what was accepted can always be finished.
-- A job that exists already is left as it is, so a submission that was cut off can be repeated.
--
-- ARGV  prefix, batch, then for each message: pool letter, pool, ref, number of jobs n,
--       and n times: ordinal, the job as JSON
-- Returns for each message how many of its jobs are new; or, if a job exists with other content, {-1, ordinal}
--         (the messages before it are written).
local prefix, batch = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local key = prefix .. 'batch:' .. batch
if redis.call('HSETNX', key, 'created', now) == 1 then
  redis.call('ZADD', prefix .. 'batches', now, batch)
end
local fresh, at = {}, 3
while at <= #ARGV do
  local letter, pool, ref, count = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  at = at + 4
  local new = 0
  for _ = 1, count do
    local job = prefix .. 'job:' .. batch .. '.' .. ARGV[at]
    local known = redis.call('HGET', job, 'j')
    if not known then
      redis.call('HSET', job, 's', 'q', 'p', letter, 'j', ARGV[at + 1], 'q', now)
      new = new + 1
    elseif known ~= ARGV[at + 1] then
      return {-1, tonumber(ARGV[at])}
    end
    at = at + 2
  end
  if new > 0 then
    redis.call('HINCRBY', key, letter .. 'q', new)
    redis.call('ZADD', prefix .. 'hand:' .. pool, now, ref) -- in the producer's hand until it says that they are sent
  end
  fresh[#fresh + 1] = new
end
return fresh
