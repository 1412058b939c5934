#!lua flags=allow-oom
-- Note how far a running job is. A holder that lost its job changes nothing.
--
-- ARGV  prefix, id, incarnation, claim number, bytes, announced length or ''
-- Returns 1, or 0 when the caller does not hold the job.
local key = ARGV[1] .. 'job:' .. ARGV[2]
local have = redis.call('HMGET', key, 's', 'h', 'n')
if have[1] ~= 'r' or have[2] ~= ARGV[3] or have[3] ~= ARGV[4] then return 0 end
redis.call('HSET', key, 'b', ARGV[5])
if ARGV[6] ~= '' then redis.call('HSET', key, 'z', ARGV[6]) end
return 1
