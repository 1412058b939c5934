#!lua flags=allow-oom
-- A submission is complete: its batch has this many jobs, and the ledger knows each of them.
--
-- ARGV  prefix, batch, number of jobs
-- Returns how many jobs the ledger knows, -1 if it does not know the batch; only if it is that number was it sealed.
local key = ARGV[1] .. 'batch:' .. ARGV[2]
local fields, known = redis.call('HGETALL', key), 0
for at = 1, #fields, 2 do
  if string.match(fields[at], '^[ptg][qwrdfc]$') then known = known + fields[at + 1] end
end
if redis.call('HEXISTS', key, 'created') == 0 then return -1 end
if known == tonumber(ARGV[3]) then redis.call('HSET', key, 'sealed', ARGV[3]) end
return known
