#!lua flags=allow-oom
-- Which of these claims still stand.
--
-- ARGV  prefix, then for each: id, incarnation, claim number
-- Returns for each 1 or 0.
local stands = {}
for at = 2, #ARGV, 3 do
  local have = redis.call('HMGET', ARGV[1] .. 'job:' .. ARGV[at], 's', 'h', 'n')
  local good = have[1] == 'r' and have[2] == ARGV[at + 1] and have[3] == ARGV[at + 2]
  stands[#stands + 1] = good and 1 or 0
end
return stands
