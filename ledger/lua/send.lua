-- Put messages on a queue and note them, at once: whoever looks sees both or neither.
-- A message that nobody waits for any more (claimed, cancelled, sent by somebody else meanwhile) stays unsent.
-- A full Redis refuses it; the jobs stay in the ledger, and the sweep sends their messages when there is room.
--
-- In front they are next, before all that waits: jobs that were running once must not wait behind a backlog.
-- Their scores are negative and fall, so `sent` keeps the queue's order: what is taken next stands first.
--
-- ARGV  prefix, pool, queue's key, 1 for in front or 0, then pairs of ref and message
-- Returns how many were sent.
local prefix, pool, queue, front = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local sent, hand = prefix .. 'sent:' .. pool, prefix .. 'hand:' .. pool
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local count = 0
for at = 5, #ARGV, 2 do
  if redis.call('ZREM', hand, ARGV[at]) == 1 then
    local score = now + at / 2000
    redis.call(front and 'RPUSH' or 'LPUSH', queue, ARGV[at + 1])
    redis.call('ZADD', sent, front and -score or score, ARGV[at]) -- fractions of a millisecond apart: the queue's order
    count = count + 1
  end
end
return count
