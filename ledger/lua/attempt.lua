#!lua flags=allow-oom
-- Note a closed attempt of a job that its holder goes on to try again.
--
-- ARGV  prefix, id, incarnation, claim number, the attempt as a JSON row
-- Returns 1, or 0 when the caller does not hold the job.
local key = ARGV[1] .. 'job:' .. ARGV[2]
local have = redis.call('HMGET', key, 's', 'h', 'n', 'a')
if have[1] ~= 'r' or have[2] ~= ARGV[3] or have[3] ~= ARGV[4] then return 0 end
redis.call('HSET', key, 'a', have[4] and (have[4] .. ',' .. ARGV[5]) or ARGV[5])
return 1
