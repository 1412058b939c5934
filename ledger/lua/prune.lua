#!lua flags=allow-oom
-- Remove a batch, some jobs at a time. From the first call on it takes no more jobs; the last call removes its name.
-- Safe to repeat from any place, also after whoever pruned it died.
--
-- ARGV  prefix, batch, first ordinal, jobs to handle in this call, 1 to remove unfinished jobs too,
--       milliseconds that must have passed since its last job ended, or 0
-- Returns jobs left to remove; -1 there is no such batch, -2 it has not finished, -3 it ended too lately.
local prefix, batch, first = ARGV[1], ARGV[2], tonumber(ARGV[3])
local key = prefix .. 'batch:' .. batch
local fields, have = redis.call('HGETALL', key), {}
if #fields == 0 then return -1 end
for at = 1, #fields, 2 do have[fields[at]] = fields[at + 1] end
local known, final = 0, 0
for name, value in pairs(have) do
  if string.match(name, '^[ptg][qwrdfc]$') then known = known + value end
  if string.match(name, '^[ptg][dfc]$') then final = final + value end
end
if not have.pruning then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  if ARGV[5] ~= '1' and (not have.sealed or final < tonumber(have.sealed)) then return -2 end
  if now - tonumber(have.ended or have.created) < tonumber(ARGV[6]) then return -3 end
  redis.call('HSET', key, 'pruning', now)
end
local pools = {p = 'prefork', t = 'threads', g = 'gevent'}
local last = math.min(first + tonumber(ARGV[4]), known) - 1
for ordinal = first, last do
  local id = batch .. '.' .. ordinal
  local job = prefix .. 'job:' .. id
  if final < known then -- then some of them are in other books
    local record = redis.call('HMGET', job, 'p', 'h')
    if record[1] then
      redis.call('ZREM', prefix .. 'sent:' .. pools[record[1]], id)
      redis.call('ZREM', prefix .. 'hand:' .. pools[record[1]], id)
      redis.call('ZREM', prefix .. 'due', id)
      redis.call('ZREM', prefix .. 'deadlines', id)
    end
    if record[2] then redis.call('SREM', prefix .. 'held:' .. record[2], id) end
  end
  redis.call('UNLINK', job)
end
if last + 1 < known then return known - last - 1 end
redis.call('UNLINK', key, key .. ':running', key .. ':names')
redis.call('ZREM', prefix .. 'batches', batch)
return 0
