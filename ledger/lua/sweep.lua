-- Leases, messages in hand, and what the sweep repairs. Every command may be repeated, and run by two sweeps at once.
--include common

-- Begin or renew the lease of a worker process. It lies in a hash and has no time to live of Redis' own: a Redis that
-- evicts keys evicts those that have one, and their end does not wait while Redis is away.
--
-- ARGV  incarnation, lease in ms, its identity as JSON to begin it, or '' to renew it
-- Returns {1, how many jobs the ledger says it runs, "id number" of its claims that should stop ...},
--         or {0}: it was declared dead and must not go on under this name.
function commands.renew()
  local incarnation = ARGV[3]
  if ARGV[5] ~= '' then
    redis.call('HSET', prefix .. 'incarnations', incarnation, ARGV[5])
  else
    local ends = redis.call('HGET', prefix .. 'leases', incarnation)
    if redis.call('HEXISTS', prefix .. 'incarnations', incarnation) == 0 or (ends and not tonumber(ends)) then return {0} end
  end
  redis.call('HSET', prefix .. 'leases', incarnation, now + ARGV[4])
  local answer = redis.call('SMEMBERS', prefix .. 'cancel:' .. incarnation)
  table.insert(answer, 1, redis.call('SCARD', prefix .. 'held:' .. incarnation))
  table.insert(answer, 1, 1)
  return answer
end

-- A worker process ends. What it still holds is taken over in the next round of a sweep.
--
-- ARGV  incarnation, "ended" (by its own will) or "died" (its parent has waited for it)
-- Returns 1, or 0 if it is not known.
function commands.leave()
  if redis.call('HEXISTS', prefix .. 'incarnations', ARGV[3]) == 0 then return 0 end
  redis.call('HSET', prefix .. 'leases', ARGV[3], ARGV[4])
  return 1
end

-- How much of its lease each worker process has left.
--
-- Returns incarnation, its identity, milliseconds left or "ended" or "died", how many jobs it holds, incarnation, ...
function commands.leases()
  local answer = {}
  local known = redis.call('HGETALL', prefix .. 'incarnations')
  for at = 1, #known, 2 do
    local incarnation = known[at]
    local ends = redis.call('HGET', prefix .. 'leases', incarnation)
    if not ends then -- begun by an earlier version, which renews a key with a time to live
      ends = redis.call('EXISTS', prefix .. 'lease:' .. incarnation) == 1 and now + 1 or 'ended'
    end
    local held = redis.pcall('SCARD', prefix .. 'held:' .. incarnation)
    answer[#answer + 1] = incarnation
    answer[#answer + 1] = known[at + 1]
    answer[#answer + 1] = tonumber(ends) and string.format('%.0f', ends - now) or (ends == 'died' and ends or 'ended')
    answer[#answer + 1] = type(held) == 'number' and held or 0 -- no set: it holds none
  end
  return answer
end

-- A worker has these messages in hand: they exist, and are not on the queue.
--
-- ARGV  pool, worker, refs ...
-- Returns 1 if it may take more, 0 while the pool is paused or the worker drained; and 1 if faults of machines are noted.
function commands.touch()
  local pool = ARGV[3]
  local sent, hand = prefix .. 'sent:' .. pool, prefix .. 'hand:' .. pool
  for at = 5, #ARGV do
    if redis.call('ZREM', sent, ARGV[at]) == 1 or redis.call('ZSCORE', hand, ARGV[at]) then
      redis.call('ZADD', hand, now, ARGV[at])
    end
  end
  local stop = redis.call('SISMEMBER', prefix .. 'paused', pool) + redis.call('SISMEMBER', prefix .. 'drained', ARGV[4])
  return {stop == 0 and 1 or 0, redis.call('EXISTS', prefix .. 'unwell')}
end

-- A queued job that was lost goes to its queue, or to the suspects. There those that are tried together come first, then
-- those with counted losses.
local function lost_before(id, letter)
  local have = read(id, 'l', 'y')
  local weighs, first = weight(have), tonumber(have.l or 0)
  if weighs < 2 then return needs_message(id, letter) end
  if weighs == 2 then first = 1000 end
  redis.call('ZADD', prefix .. 'suspects:' .. POOLS[letter], now - first * 1e12, id)
end

-- The ref of the message by which a job was claimed, or which led its group: Flower's id of the row.
local function row_of(id, call)
  local row = string.match(call or '', ':(.+)$')
  if row and not string.find(row, '.', 1, true) then row = string.match(id, '^(.*%.)') .. row end
  return row or id
end

local COMPANY = 3 -- so many losses with a whole worker weigh, on trial, as much as one that counts
local TOGETHER = 16 -- suspects that are tried together

-- Take one job over from a worker process that is dead. Returns the letter of the state that it has then, and the ref
-- of the message by which the process had claimed it.
local function orphan(id, incarnation, evidence, most_losses)
  local have = read(id, 's', 'h', 'p', 't', 'a', 'x', 'm', 'q', 'e', 'k', 'l', 'y')
  if have.s ~= 'r' or have.h ~= incarnation then return nil end
  local losses, company, trial = 0, 0, prefix .. 'trial:' .. POOLS[have.p]
  local on_trial = redis.call('HDEL', trial, id) == 1 and weight(have) > 2
  if evidence == 'alone' or (evidence == 'company' and on_trial) then
    losses = redis.call('HINCRBY', job_key(id), 'l', 1)
  elseif evidence ~= 'nothing' then
    company = redis.call('HINCRBY', job_key(id), 'y', 1)
  end
  local state, kind, reason = 'q', 'lost', 'its holder ' .. incarnation .. ' was not heard of any more'
  if have.x then
    state = 'c'
  elseif have.e and tonumber(have.e) <= now then
    state, kind, reason = 'f', 'deadline', 'the time for the job was used up when its holder died'
  elseif losses >= most_losses or (on_trial and company >= COMPANY * most_losses) then
    state, kind, reason = 'f', 'poison', 'its holder died ' .. math.max(losses, company) .. ' times'
  end
  take_back(id, have, state, kind, reason)
  if state == 'q' then lost_before(id, have.p) end
  if kind == 'poison' then -- the deaths are explained
    local suspects = prefix .. 'suspects:' .. POOLS[have.p]
    for _, other in ipairs(redis.call('ZRANGE', suspects, 0, -1)) do
      redis.call('HDEL', job_key(other), 'y')
      needs_message(other, have.p)
    end
    redis.call('DEL', suspects)
  end
  return {state, row_of(id, have.k)}
end

local function weight_of(id) return weight(read(id, 'l', 'y')) end

-- The suspect that is tried alone and that this process held: it explains the death.
local function explanation(held)
  for _, pool in pairs(POOLS) do
    for _, id in ipairs(redis.call('HGETALL', prefix .. 'trial:' .. pool)) do -- and values, which are no ids
      if redis.call('SISMEMBER', held, id) == 1 and (guarded(id, weight_of) or 0) > 2 then return id end
    end
  end
end

-- Declare a worker process dead whose lease has passed, and put its jobs back on their queues.
-- A job changes hands only while the dead one still holds it.
--
-- ARGV  incarnation, what its end says about its jobs ("alone", "company", "worker", "nothing"), counted losses that
--       make a job poison, jobs to handle in this call
-- Returns {-1} while it is alive, else {jobs left, id, new state's letter, ref, id, ...}
function commands.orphans()
  local incarnation = ARGV[3]
  local ends = tonumber(redis.call('HGET', prefix .. 'leases', incarnation) or 0)
  if ends and ends > now then return {-1} end
  if not ends or ends == 0 then -- it said so, or its parent did; or an earlier version keeps its lease
    if redis.call('EXISTS', prefix .. 'lease:' .. incarnation) == 1 then return {-1} end
  end
  redis.call('SADD', prefix .. 'dead', incarnation)
  redis.call('HDEL', prefix .. 'incarnations', incarnation)
  redis.call('HDEL', prefix .. 'leases', incarnation)
  local answer = {0}
  local held = prefix .. 'held:' .. incarnation
  if not string.find('set none', redis.call('TYPE', held).ok, 1, true) then redis.call('DEL', held) end
  local suspect = ARGV[4] == 'company' and explanation(held)
  for _, id in ipairs(redis.call('SPOP', held, ARGV[6])) do
    local evidence = suspect and id ~= suspect and 'nothing' or ARGV[4]
    local taken = guarded(id, orphan, incarnation, evidence, tonumber(ARGV[5]))
    if taken then answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = id, taken[1], taken[2] end
  end
  answer[1] = redis.call('SCARD', held)
  if answer[1] == 0 then
    redis.call('SREM', prefix .. 'dead', incarnation)
    redis.call('DEL', prefix .. 'cancel:' .. incarnation)
  end
  return answer
end

-- A worker process does not run these jobs, although the ledger says that it does: they go back on their queues.
--
-- ARGV  incarnation, ids ...
-- Returns how many went back.
function commands.give_back()
  local incarnation, number = ARGV[3], 0
  for at = 4, #ARGV do
    local state = guarded(ARGV[at], function(id)
      local have = read(id, 's', 'h', 'p', 't', 'a', 'x', 'm', 'q')
      if have.s ~= 'r' or have.h ~= incarnation then
        redis.call('SREM', prefix .. 'held:' .. incarnation, id)
        return nil
      end
      local state = have.x and 'c' or 'q'
      take_back(id, have, state, 'lost', 'its holder ' .. incarnation .. ' does not run it')
      if state == 'q' then needs_message(id, have.p) end
      return state
    end)
    if state then number = number + 1 end
  end
  return number
end

-- The weight of a suspect on trial; nil: it has ended, or outlived its trial.
local function tried(id, trial, since, shortest)
  local have = read(id, 's', 'l', 'y')
  local weighs = weight(have)
  if have.s == 'q' then return weighs end -- its message is on its way
  if have.s ~= 'r' then return nil end
  if since == '' then
    redis.call('HSET', trial, id, now)
    return weighs
  end
  return now - since < shortest * 2 ^ math.min(weighs - 2, 5) and weighs or nil
end

-- The weight of a suspect that waits for its trial, and the letter of its pool; nil: it has ended.
local function untried(id)
  local have = read(id, 's', 'p', 'l', 'y')
  return have.s == 'q' and {weight(have), have.p} or nil
end

-- Let suspects of a pool run. Those of weight 2 are tried together: the death of their process proves nothing, but most
-- of them end at once. Those of more weight are tried one at a time, so that a death on trial has one cause.
--
-- ARGV  pool, shortest trial in ms
-- Returns how many were released.
function commands.suspects()
  local suspects, trial = prefix .. 'suspects:' .. ARGV[3], prefix .. 'trial:' .. ARGV[3]
  local on, alone, released = 0, false, 0
  local known = redis.call('HGETALL', trial)
  for at = 1, #known, 2 do
    local id = known[at]
    local weighs = guarded(id, tried, trial, known[at + 1], tonumber(ARGV[4]))
    if weighs then
      on, alone = on + 1, alone or weighs > 2
    else
      redis.call('HDEL', trial, id)
    end
  end
  while on < TOGETHER and not alone do
    local id = redis.call('ZRANGE', suspects, 0, 0)[1]
    local next = id and guarded(id, untried)
    alone = next and next[1] > 2
    if not id or (alone and on > 0) then break end
    redis.call('ZREM', suspects, id)
    if next then
      needs_message(id, next[2])
      redis.call('HSET', trial, id, '')
      on, released = on + 1, released + 1
    end
  end
  return released
end

-- Put waiting jobs whose time has come back on their queues.
--
-- ARGV  jobs to handle in this call
-- Returns how many were handled.
function commands.due()
  local ids = redis.call('ZRANGEBYSCORE', prefix .. 'due', '-inf', now, 'LIMIT', 0, ARGV[3])
  for _, id in ipairs(ids) do
    redis.call('ZREM', prefix .. 'due', id)
    guarded(id, function()
      local have = read(id, 's', 'p')
      if have.s ~= 'w' then return end
      requeue(id, have.p)
      needs_message(id, have.p)
    end)
  end
  return #ids
end

-- End jobs whose time is used up. The holder of a running one ends it itself, or orphans does; only one whose time has
-- been over for long, whatever its process does, is ended here.
--
-- ARGV  jobs to handle in this call, milliseconds that a holder gets
-- Returns {jobs handled, id that ended, its holder or '', Flower's row of it, id, ...}
function commands.overdue()
  local answer = {0}
  local ids = redis.call('ZRANGEBYSCORE', prefix .. 'deadlines', '-inf', now, 'LIMIT', 0, ARGV[3])
  for _, id in ipairs(ids) do
    redis.call('ZREM', prefix .. 'deadlines', id)
    guarded(id, function()
      local have = read(id, 's', 'p', 'a', 'q', 'e', 'h', 't', 'm', 'x', 'k')
      local function tell(holder)
        answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = id, holder, row_of(id, have.k)
      end
      local over = tonumber(have.e or 0) + ARGV[4]
      if have.s == 'r' and now < over then
        redis.call('ZADD', prefix .. 'deadlines', over, id)
      elseif have.s == 'r' then
        tell(have.h)
        if have.x then return take_back(id, have, 'c', 'lost', 'its holder did not stop it') end
        take_back(id, have, 'f', 'deadline', 'the time for the job was used up and its holder did not end it')
      elseif have.s == 'q' or have.s == 'w' then
        local doing = have.s == 'q' and 'queued' or 'waiting'
        local closed = row(wall - have.q, 0, 'deadline', 'the time for the job was used up while it was ' .. doing)
        redis.call('HSET', job_key(id), 'a', have.a and (have.a .. ',' .. closed) or closed)
        end_idle(id, have, 'f')
        tell('')
      end
    end)
  end
  answer[1] = #ids
  return answer
end

-- Which refs of a pool need a message now: those put back, and those whose message vanished.
--
-- The queue is first in, first out. When more messages were sent than it holds, the oldest of them were taken off: by a
-- worker that has them in hand and touches them every second, or by one that died before it noted them. So they count as
-- in hand from now, and one that is not touched for the grace time has vanished. The same goes for messages that a
-- producer had in hand when it died. A wrong guess sends a duplicate, and a duplicate is a no-op.
--
-- While the pool is paused nothing needs a message.
--
-- ARGV  pool, queue's key, grace in ms, most refs to handle
-- Returns the refs; they count as in the caller's hand.
function commands.unsent()
  local pool, most = ARGV[3], tonumber(ARGV[6])
  if redis.call('SISMEMBER', prefix .. 'paused', pool) == 1 then return {} end
  local sent, hand = prefix .. 'sent:' .. pool, prefix .. 'hand:' .. pool
  local taken = math.min(redis.call('ZCARD', sent) - redis.call('LLEN', ARGV[4]), most)
  if taken > 0 then
    for _, ref in ipairs(redis.call('ZRANGE', sent, 0, taken - 1)) do
      redis.call('ZREM', sent, ref)
      redis.call('ZADD', hand, now, ref)
    end
  end
  local refs = {}
  while #refs < most do
    local id = redis.call('LPOP', prefix .. 'resend:' .. pool)
    if not id then break end
    if redis.call('ZSCORE', hand, id) then refs[#refs + 1] = id end
  end
  for _, ref in ipairs(redis.call('ZRANGEBYSCORE', hand, '-inf', now - ARGV[5], 'LIMIT', 0, most - #refs)) do
    refs[#refs + 1] = ref
  end
  for _, ref in ipairs(refs) do redis.call('ZADD', hand, now, ref) end
  return refs
end

-- How many jobs the newest batches have.
--
-- ARGV  most batches
-- Returns {how many batches there are, how many were counted, jobs submitted, pool's and state's letter, jobs, ...}
function commands.totals()
  local names = redis.call('ZREVRANGE', prefix .. 'batches', 0, ARGV[3] - 1)
  local fields, sums, submitted = {'sealed'}, {}, 0
  for pool in pairs(POOLS) do
    for state in string.gmatch('qwrdfc', '.') do fields[#fields + 1] = pool .. state end
  end
  for _, name in ipairs(names) do
    local known, have = 0, redis.call('HMGET', prefix .. 'batch:' .. name, unpack(fields))
    for at = 2, #fields do
      local jobs = tonumber(have[at] or 0)
      known, sums[fields[at]] = known + jobs, (sums[fields[at]] or 0) + jobs
    end
    submitted = submitted + math.max(known, tonumber(have[1] or 0))
  end
  local answer = {redis.call('ZCARD', prefix .. 'batches'), #names, submitted}
  for field, jobs in pairs(sums) do answer[#answer + 1], answer[#answer + 2] = field, jobs end
  return answer
end

-- Which steps of a round have nothing to do: most rounds of a stack that waits for jobs cost this one call.
--
-- ARGV  grace in ms as in `unsent`, then for each pool: its name, queue's key
-- Returns their names.
function commands.idle()
  local answer = {}
  local function passed(key, moment)
    local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    return first[2] and tonumber(first[2]) <= moment
  end
  local function note(step, busy)
    if not busy then answer[#answer + 1] = step end
  end
  note('dead', redis.call('EXISTS', prefix .. 'dead') > 0)
  note('due', passed(prefix .. 'due', now))
  note('hosts', redis.call('EXISTS', prefix .. 'hosts') > 0)
  note('overdue', passed(prefix .. 'deadlines', now))
  local suspects, send = false, false
  for at = 4, #ARGV, 2 do
    local pool = ARGV[at]
    suspects = suspects or redis.call('EXISTS', prefix .. 'suspects:' .. pool, prefix .. 'trial:' .. pool) > 0
    send = send or redis.call('EXISTS', prefix .. 'resend:' .. pool) > 0 or passed(prefix .. 'hand:' .. pool, now - ARGV[3])
      or redis.call('ZCARD', prefix .. 'sent:' .. pool) > redis.call('LLEN', ARGV[at + 1])
  end
  note('suspects', suspects)
  note('send', send)
  return answer
end

-- How long nothing may be asked of the ledger until its clock stands still: longer than a sweep's pause.
--
-- ARGV  milliseconds
function commands.gap()
  redis.call('HSET', prefix .. 'clock', 'gap', ARGV[3])
end

return commands[ARGV[2]]()
