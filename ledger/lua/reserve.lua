#!lua flags=allow-oom
-- Give a running job's file a name that no other job of its batch has; what it has once got, it keeps.
-- A folder and a file cannot have one name: folders belong to nobody and everybody ("-").
--
-- ARGV  prefix, id, incarnation, claim number, then candidates, the best first
-- Returns the name, '' when all candidates are taken, or 0 when the caller does not hold the job.
local prefix, id = ARGV[1], ARGV[2]
local key = prefix .. 'job:' .. id
local have = redis.call('HMGET', key, 's', 'h', 'n', 'f')
if have[1] ~= 'r' or have[2] ~= ARGV[3] or have[3] ~= ARGV[4] then return 0 end
if have[4] then return have[4] end
local batch, ordinal = string.match(id, '^(.*)%.(.*)$')
local names = prefix .. 'batch:' .. batch .. ':names'
for at = 5, #ARGV do
  local name, free = ARGV[at], true
  local owner = redis.call('HGET', names, name)
  free = not owner or owner == ordinal
  for slash in string.gmatch(name, '()/') do
    owner = redis.call('HGET', names, string.sub(name, 1, slash - 1))
    free = free and (not owner or owner == '-')
  end
  if free then
    for slash in string.gmatch(name, '()/') do redis.call('HSET', names, string.sub(name, 1, slash - 1), '-') end
    redis.call('HSET', names, name, ordinal)
    redis.call('HSET', key, 'f', name)
    return name
  end
end
return ''
