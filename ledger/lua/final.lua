-- Included by other scripts: what goes when a job reaches its end.
--
-- state is the letter of the final state, had that of the state before, letter the pool's.
local function ended(prefix, id, letter, had, state, now)
  local key, batch = prefix .. 'job:' .. id, prefix .. 'batch:' .. string.match(id, '^(.*)%.')
  redis.call('HDEL', key, 't', 'x', 'k', 'e', 'm')
  redis.call('ZREM', prefix .. 'deadlines', id)
  redis.call('HINCRBY', batch, letter .. had, -1)
  redis.call('HINCRBY', batch, letter .. state, 1)
  redis.call('HSET', batch, 'ended', now)
end
