-- Write the records of jobs that are new, before any message of theirs is sent.
-- Only this script and send.lua are refused by a full Redis: what was accepted can always be finished.
-- A job that exists already is left as it is, so a submission that was cut off can be repeated.
--
-- ARGV  prefix, batch, milliseconds that each of its jobs may take from its first claim on or '',
--       then for each message: pool's letter, pool, ref, first ordinal, number of jobs n, and n times the job as JSON
-- Returns for each message how many of its jobs are new; or, if a job exists with other content, {-1, ordinal}
--         (those before it are written); or {-2}: the batch is being removed.
local prefix, batch = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local key = prefix .. 'batch:' .. batch
if redis.call('HSETNX', key, 'created', now) == 1 then
  redis.call('ZADD', prefix .. 'batches', now, batch)
elseif redis.call('HEXISTS', key, 'pruning') == 1 then
  return {-2}
end
if ARGV[3] ~= '' then redis.call('HSET', key, 'deadline', ARGV[3]) end
local fresh, at = {}, 4
while at <= #ARGV do
  local letter, pool, ref, first, count = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local new, other = 0, nil
  for number = 0, count - 1 do
    local job = prefix .. 'job:' .. batch .. '.' .. first + number
    local asked = ARGV[at + 5 + number]
    if redis.call('HSETNX', job, 'j', asked) == 1 then
      redis.call('HSET', job, 's', 'q', 'p', letter, 'q', now)
      new = new + 1
    elseif redis.call('HGET', job, 'j') ~= asked then
      other = first + number
      break
    end
  end
  if new > 0 then
    redis.call('HINCRBY', key, letter .. 'q', new)
    redis.call('ZADD', prefix .. 'hand:' .. pool, now, ref) -- in the producer's hand until it is sent
  end
  if other then return {-1, other} end
  fresh[#fresh + 1] = new
  at = at + 5 + count
end
return fresh
