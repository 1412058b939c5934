-- What producers and worker processes do with jobs. Every command but `take` may be repeated: a call whose answer was lost
-- does no harm. Loaded twice: `submit`, `send` and `retry` are refused by a full Redis, so that what was accepted can always
-- be finished; all others are not.
--
-- Returns what the command returns; its arguments and answer stand with it.
--include common

local LARGE = 1048576 -- bytes; a file that is announced so large is no small job

-- Write the records of jobs that are new, before any message of theirs is sent.
-- A job that exists already is left as it is, so a submission that was cut off can be repeated. A batch that was sealed
-- may grow: it is not sealed until that is complete.
--
-- ARGV  batch, milliseconds that each of its jobs may take from its first claim on or '',
--       then for each message: pool's letter, pool, ref, first ordinal, number of jobs n, n or 0, n times the job as
--       JSON, and as often the job as JSON without the values of its headers, which are dropped once it is done
-- Returns for each message how many of its jobs are new; or, if a job exists with other content, {-1, ordinal}
--         (those before it are written); or {-2}: the batch is being removed.
function commands.submit()
  local batch, key = ARGV[3], prefix .. 'batch:' .. ARGV[3]
  if redis.call('HSETNX', key, 'created', wall) == 1 then
    redis.call('ZADD', prefix .. 'batches', wall, batch)
  elseif redis.call('HEXISTS', key, 'pruning') == 1 then
    return {-2}
  end
  if ARGV[4] ~= '' then redis.call('HSET', key, 'deadline', ARGV[4]) end
  local fresh, at = {}, 5
  while at <= #ARGV do
    local letter, pool, ref, first, jobs = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    local new, other, spent = 0, nil, tonumber(ARGV[at + 5])
    at = at + 6
    for number = 0, jobs - 1 do
      local job, asked = job_key(batch .. '.' .. first + number), ARGV[at + number]
      if redis.call('HSETNX', job, 'j', asked) == 1 then
        redis.call('HSET', job, 's', 'q', 'p', letter, 'q', wall)
        new = new + 1
      else
        local known = redis.call('HGET', job, 'j')
        if known ~= asked and not (spent > 0 and known == ARGV[at + jobs + number]) then
          other = first + number
          break
        end
      end
    end
    if new > 0 then
      redis.call('HDEL', key, 'sealed')
      redis.call('HINCRBY', key, letter .. 'q', new)
      redis.call('ZADD', prefix .. 'hand:' .. pool, now, ref) -- in the producer's hand until it is sent
    end
    if other then return {-1, other} end
    fresh[#fresh + 1] = new
    at = at + jobs + spent
  end
  return fresh
end

-- Put messages on a queue and note them, at once: either both can be seen or neither.
-- A message that nothing waits for any more (claimed, cancelled, sent by another process meanwhile) stays unsent.
--
-- In front they are next, before all that waits: jobs that were running once must not wait behind a backlog.
-- Their scores are negative and fall, so `sent` keeps the queue's order: what is taken next stands first.
--
-- ARGV  pool, queue's key, 1 for in front or 0, then pairs of ref and message
-- Returns how many were sent.
function commands.send()
  local pool, queue, front = ARGV[3], ARGV[4], ARGV[5] == '1'
  local sent, hand, number = prefix .. 'sent:' .. pool, prefix .. 'hand:' .. pool, 0
  for at = 6, #ARGV, 2 do
    if redis.call('ZREM', hand, ARGV[at]) == 1 then
      local score = now + at / 2000 -- fractions of a millisecond apart: the queue's order
      redis.call(front and 'RPUSH' or 'LPUSH', queue, ARGV[at + 1])
      redis.call('ZADD', sent, front and -score or score, ARGV[at])
      number = number + 1
    end
  end
  return number
end

-- A batch's hash as a table, how many jobs it has, and how many of them are final.
local function read_batch(key)
  local fields, have, known, final = redis.call('HGETALL', key), {}, 0, 0
  for at = 1, #fields, 2 do
    local name, value = fields[at], fields[at + 1]
    have[name] = value
    if string.match(name, '^[ptg][qwrdfc]$') then known = known + value end
    if string.match(name, '^[ptg][dfc]$') then final = final + value end
  end
  return have, known, final
end

-- A submission is complete: its batch has this many jobs, and the ledger knows each of them.
--
-- ARGV  batch, number of jobs
-- Returns how many jobs the ledger knows, -1 if it does not know the batch; only if it is that number was it sealed.
function commands.seal()
  local key = prefix .. 'batch:' .. ARGV[3]
  local have, known = read_batch(key)
  if not have.created then return -1 end
  if known == tonumber(ARGV[4]) then redis.call('HSET', key, 'sealed', ARGV[4]) end
  return known
end

-- Whether a job may be one of a group that a worker process makes of messages of one job each: on its first try, or
-- after one that was lost in company.
local function small(have)
  if have.n or have.a then
    local rows = cjson.decode('[' .. (have.a or '') .. ']')
    if weight(have) > 1 or #rows ~= tonumber(have.n) then return false end
    for _, each in ipairs(rows) do
      if each[7] ~= 'lost' then return false end
    end
  end
  if string.find(have.j, '^%["[^"\\]*"%]$') then return true end -- a URL and no more, as of most jobs
  local job = cjson.decode(have.j)
  for option in pairs(job[5] or {}) do
    if option ~= 'd' then return false end -- a digest is an expectation, as a sha256 is
  end
  return (tonumber(job[4]) or 0) < LARGE
end

-- Take one job. Returns its record as HGETALL gives it, with what changed at the end; nil: it is not to be taken.
-- `call` says what all jobs of this call share, and notes what is written once for all of them.
local function claim_job(id, call)
  local key = job_key(id)
  local record, have = redis.call('HGETALL', key), {}
  for at = 1, #record, 2 do have[record[at]] = record[at + 1] end
  if have.s == 'r' and have.k == call.token and not call.small then return record end -- this very call, repeated
  if have.s ~= 'q' or (call.suspects and redis.call('ZSCORE', call.suspects, id)) then return nil end
  if call.small and not small(have) then return nil end
  -- The sweep ends a job whose time is used up. A suspect never runs in a group.
  if now >= tonumber(have.e or math.huge) or (call.grouped and weight(have) > 1) then
    needs_message(id, have.p)
    return nil
  end
  local batch = string.match(id, '^(.*)%.')
  if not call.limits[batch] then
    call.limits[batch] = tonumber(redis.call('HGET', prefix .. 'batch:' .. batch, 'deadline') or call.limit)
  end
  local change = {'s', 'r', 'h', call.incarnation, 't', wall, 'k', call.token, 'n', (have.n or 0) + 1}
  if not have.e and call.limits[batch] > 0 then
    local ends = now + call.limits[batch]
    change[11], change[12] = 'e', ends
    call.deadlines[#call.deadlines + 1], call.deadlines[#call.deadlines + 2] = ends, id
  end
  redis.call('HSET', key, unpack(change))
  for _, each in ipairs(change) do record[#record + 1] = each end
  local begun = call.begun[batch] or {}
  call.begun[batch] = begun
  begun[#begun + 1] = id
  begun[have.p] = (begun[have.p] or 0) + 1
  return record
end

-- Worker and pool of a worker process; nil if there is none, or if it cannot be read.
local function identity(text)
  local good, who = pcall(cjson.decode, text)
  if good and type(who) == 'table' and type(who.worker) == 'string' then return who.worker, who.pool end
end

-- A claim call begins; nil: the incarnation is not alive. `call.refused`: the pool is paused, or the worker drained or
-- unwell.
local function new_call(incarnation, pool, limit)
  local worker = identity(redis.call('HGET', prefix .. 'incarnations', incarnation))
  if not worker then return nil end
  local suspects = prefix .. 'suspects:' .. pool
  return {
    incarnation = incarnation, limit = limit, limits = {}, begun = {}, deadlines = {}, taken = {wall, now},
    suspects = redis.call('EXISTS', suspects) == 1 and suspects,
    refused = redis.call('SISMEMBER', prefix .. 'paused', pool) == 1
      or (redis.call('EXISTS', prefix .. 'drained', prefix .. 'unwell') > 0
        and (redis.call('SISMEMBER', prefix .. 'drained', worker) == 1
          or redis.call('HEXISTS', prefix .. 'unwell', worker) == 1)),
  }
end

-- Returns whether the job was taken.
local function take_job(id, call)
  local record = guarded(id, claim_job, call)
  if record then call.taken[#call.taken + 1], call.taken[#call.taken + 2] = id, record end
  return record ~= nil
end

-- Returns the answer of the call.
local function end_call(call)
  many('ZADD', prefix .. 'deadlines', call.deadlines)
  for batch, begun in pairs(call.begun) do
    many('SADD', prefix .. 'held:' .. call.incarnation, begun)
    many('SADD', prefix .. 'batch:' .. batch .. ':running', begun)
    for letter in pairs(POOLS) do
      if begun[letter] then
        redis.call('HINCRBY', prefix .. 'batch:' .. batch, letter .. 'q', -begun[letter])
        redis.call('HINCRBY', prefix .. 'batch:' .. batch, letter .. 'r', begun[letter])
      end
    end
  end
  return #call.taken > 2 and call.taken or {}
end

-- Messages arrived: take those of their jobs that are queued. A duplicate message takes nothing.
-- The token makes it safe to repeat: a call whose answer got lost is answered with the same jobs again.
--
-- While the pool is paused, or the worker drained or unwell, it takes nothing; the messages are sent again later.
--
-- ARGV  incarnation, pool, token of this call, milliseconds that a job may take from its first claim on unless its
--       batch says otherwise (0: no limit), then for each message: ref, batch, first ordinal, last ordinal
-- Returns {} when there is nothing to do, {-1} when the incarnation is not alive,
--         else {Redis' time ms, ledger clock ms, id, record, id, record, ...}
function commands.claim()
  local pool = ARGV[4]
  local call = new_call(ARGV[3], pool, ARGV[6])
  if not call then return {-1} end
  local refs = {}
  for at = 7, #ARGV, 4 do refs[#refs + 1] = ARGV[at] end
  many('ZREM', prefix .. 'sent:' .. pool, refs)
  many('ZREM', prefix .. 'hand:' .. pool, refs)
  if call.refused then
    for _, ref in ipairs(refs) do needs_message(ref, string.sub(pool, 1, 1)) end
    return {}
  end
  call.grouped = #refs > 1 or ARGV[9] ~= ARGV[10]
  for at = 7, #ARGV, 4 do
    local first, last = ordinals(ARGV[at + 2], ARGV[at + 3])
    -- Should the process die, the sweep reads there which message had brought the job.
    call.token = ARGV[5] .. (first == last and '' or ':' .. ARGV[at + 2] .. '-' .. ARGV[at + 3])
    for ordinal = first, last do take_job(ARGV[at + 1] .. '.' .. string.format('%d', ordinal), call) end
  end
  return end_call(call)
end

-- How many worker processes the pool has.
local function processes(pool)
  local number = 0
  for _, text in ipairs(redis.call('HVALS', prefix .. 'incarnations')) do
    local _, of = identity(text)
    if of == pool then number = number + 1 end
  end
  return number
end

-- A worker process that has one small job takes more messages off its queue, together with their jobs: at most its share
-- of those that its other slots cannot begin at once. It takes only messages of one `small` job without options that were
-- noted as sent. The first other element stays, with all behind it, in the same order.
--
-- A call that is repeated takes others. The process gives back what it took and was not answered: see `give_back`.
--
-- ARGV  incarnation, pool, token of this call (with ":REF" of the message that the process has), milliseconds as in
--       `claim`, queue's key, most messages, messages to leave
-- Returns as `claim`.
function commands.take()
  local pool, queue = ARGV[4], ARGV[7]
  local call = new_call(ARGV[3], pool, ARGV[6])
  if not call then return {-1} end
  local waiting = redis.call('LLEN', queue) - tonumber(ARGV[9])
  local share = math.floor(waiting / processes(pool))
  if call.refused or share < 1 then return {} end
  call.token, call.small = ARGV[5], true
  local sent, refs = prefix .. 'sent:' .. pool, {}
  local elements = redis.call('RPOP', queue, math.min(share, tonumber(ARGV[8])))
  for at, element in ipairs(elements) do
    local _, id = string.find(element, '"id":', 1, true) -- a pattern looks at each character
    local ref = id and string.match(element, '^ ?"([%w_-]+%.%d+)"', id + 1)
    if not (ref and redis.call('ZSCORE', sent, ref) and take_job(ref, call)) then
      for back = #elements, at, -1 do redis.call('RPUSH', queue, elements[back]) end
      break
    end
    refs[#refs + 1] = ref
  end
  many('ZREM', sent, refs)
  return end_call(call)
end

-- Note a fault of a worker's machine, unless one is noted.
--
-- ARGV  worker, reason, bytes of room that a job lacked
function commands.unwell()
  local fault = {reason = ARGV[4], since = wall / 1000, need = tonumber(ARGV[5])}
  redis.call('HSETNX', prefix .. 'unwell', ARGV[3], cjson.encode(fault))
end

-- Pause a pool or drain a worker, in a full Redis, too.
--
-- ARGV  "paused" or "drained", pool or worker
-- Returns 1, or 0 if it was so before.
function commands.switch_on() return redis.call('SADD', prefix .. ARGV[3], ARGV[4]) end

-- Whether a claim still stands.
local function held(id, incarnation, claim)
  local have = redis.call('HMGET', job_key(id), 's', 'h', 'n')
  return have[1] == 'r' and have[2] == incarnation and have[3] == claim
end

-- Which of these claims still stand.
--
-- ARGV  for each: id, incarnation, claim number
-- Returns for each 1 or 0.
function commands.holds()
  local stands = {}
  for at = 3, #ARGV, 3 do stands[#stands + 1] = held(ARGV[at], ARGV[at + 1], ARGV[at + 2]) and 1 or 0 end
  return stands
end

-- Note how far a running job is.
--
-- ARGV  id, incarnation, claim number, bytes, announced length or '', who runs it as JSON
-- Returns 1, or 0 when the caller does not hold the job.
function commands.progress()
  if not held(ARGV[3], ARGV[4], ARGV[5]) then return 0 end
  redis.call('HSET', job_key(ARGV[3]), 'b', ARGV[6], 'w', ARGV[8])
  if ARGV[7] ~= '' then redis.call('HSET', job_key(ARGV[3]), 'z', ARGV[7]) end
  return 1
end

-- Note a closed attempt of a job that its holder goes on to try again.
--
-- ARGV  id, incarnation, claim number, the attempt as a JSON row
-- Returns 1, or 0 when the caller does not hold the job.
function commands.attempt()
  if not held(ARGV[3], ARGV[4], ARGV[5]) then return 0 end
  local had, row = redis.call('HGET', job_key(ARGV[3]), 'a'), ARGV[6]
  if had and string.sub(had, -#row) == row then return 1 end -- this very call, repeated
  redis.call('HSET', job_key(ARGV[3]), 'a', had and (had .. ',' .. row) or row)
  return 1
end

-- Jobs that were claimed and not begun go back on their queues, without an attempt.
--
-- ARGV  for each: id, incarnation, claim number
-- Returns how many went back.
function commands.unclaim()
  local number = 0
  for at = 3, #ARGV, 3 do
    local id = ARGV[at]
    if held(id, ARGV[at + 1], ARGV[at + 2]) and guarded(id, function()
      local have = read(id, 'p', 'h', 'x', 'm')
      take_back(id, have, have.x and 'c' or 'q')
      redis.call('HDEL', job_key(id), 'e') -- its time has not begun
      redis.call('ZREM', prefix .. 'deadlines', id)
      if not have.x then needs_message(id, have.p) end
      return true
    end) then
      number = number + 1
    end
  end
  return number
end

-- A worker process cannot read the record of a job that it has claimed.
--
-- ARGV  id, incarnation, why
-- Returns 1, or 0 when the caller does not hold the job.
function commands.unreadable()
  local have = redis.call('HMGET', job_key(ARGV[3]), 's', 'h')
  if have[1] ~= 'r' or have[2] ~= ARGV[4] then return 0 end
  quarantine(ARGV[3], ARGV[5])
  return 1
end

-- Lists of what is written once for all jobs of a `close`.
local function put(lists, key, value)
  if not lists[key] then lists[key] = {} end
  table.insert(lists[key], value)
end

local function add(call, batch, counter, amount)
  if not call.counts[batch] then call.counts[batch] = {} end
  call.counts[batch][counter] = (call.counts[batch][counter] or 0) + amount
end

-- The fields that a record loses with its claim. In a final state they include its deadline; a file that is done also has
-- no announced length, which is its length.
local GONE = {w = {'t', 'k'}, q = {'t', 'k'}, d = {'t', 'k', 'e', 'z'}, f = {'t', 'k', 'e'}, c = {'t', 'k', 'e'}}

local function close_job(call, at, last)
  local id, incarnation, claim, state, attempt = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local key = job_key(id)
  local was, holder, number, rows, pool, stops, host, size, who =
    unpack(redis.call('HMGET', key, 's', 'h', 'n', 'a', 'p', 'x', 'm', 'b', 'w'))
  if not was or stops then put(call.gone, prefix .. 'cancel:' .. incarnation, id .. ' ' .. claim) end
  if not was then put(call.gone, prefix .. 'held:' .. incarnation, id) end -- removed with its batch
  if holder ~= incarnation or number ~= claim then return 0 end
  if was ~= 'r' then return 2 end
  -- A cancel that came after the last look wins over going round again.
  if stops and (state == 'w' or state == 'q') then state = 'c' end
  -- What goes, goes first: what comes takes its room, and the record does not keep more than it needs.
  redis.call('HDEL', key, unpack(GONE[state]))
  if stops or host or who then redis.call('HDEL', key, 'x', 'm', 'w') end
  redis.call('HSET', key, 's', state, 'a', rows and (rows .. ',' .. attempt) or attempt, unpack(ARGV, at + 6, last))
  local batch = batch_key(id)
  put(call.gone, prefix .. 'held:' .. incarnation, id)
  put(call.gone, batch .. ':running', id)
  add(call, batch, pool .. 'r', -1)
  add(call, batch, pool .. state, 1)
  if state == 'd' then add(call, batch, pool .. 'b', ARGV[at + 6] == 'b' and ARGV[at + 7] or size or 0) end
  if state == 'w' then
    redis.call('ZADD', prefix .. 'due', now + tonumber(ARGV[at + 5]), id)
  elseif state == 'q' then
    needs_message(id, pool)
  else
    call.over[#call.over + 1] = id
    call.counts[batch].ended = wall
  end
  if host then
    redis.call('ZREM', prefix .. 'host:' .. host .. ':slots', id)
    if redis.call('ZCARD', prefix .. 'host:' .. host .. ':queue') > 0 then return 3 end
  end
  return 1
end

-- The holder lets go of jobs: done, failed, cancelled, waiting for a retry, or back on their queues.
-- Each is judged on its own; what they share (counters, sets) is written once.
-- The claim number makes it safe to repeat: the second call of the same holder changes nothing and is told so.
--
-- ARGV  for each job: how many arguments follow, id, incarnation, claim number, new state's letter,
--       the attempt as a JSON row, milliseconds until due (state w) or 0, then pairs of record fields to set
-- Returns for each 1 recorded, 2 recorded before by this very claim, 0 the caller does not hold the job,
--         3 recorded, and another job waits for the slot of its host that this frees.
function commands.close()
  local call = {gone = {}, counts = {}, over = {}}
  local closed, at = {}, 3
  while at <= #ARGV do
    local last = at + tonumber(ARGV[at])
    closed[#closed + 1] = close_job(call, at + 1, last)
    at = last + 1
  end
  many('ZREM', prefix .. 'deadlines', call.over)
  for key, members in pairs(call.gone) do many('SREM', key, members) end
  for batch, counters in pairs(call.counts) do
    if counters.ended then redis.call('HSET', batch, 'ended', counters.ended) end
    counters.ended = nil
    for counter, amount in pairs(counters) do redis.call('HINCRBY', batch, counter, amount) end
  end
  return closed
end

-- Cancel a run of jobs: queued and waiting ones at once, running ones by telling their holder, which claim is meant.
--
-- ARGV  batch, first ordinal, last ordinal
-- Returns {cancelled now, asked to stop, final before, unknown}
function commands.cancel()
  local done = {0, 0, 0, 0}
  local first, last = ordinals(ARGV[4], ARGV[5])
  for ordinal = first, last do
    local id = ARGV[3] .. '.' .. ordinal
    local what = guarded(id, function()
      local have = read(id, 's', 'p', 'h', 'n')
      if have.s == 'q' or have.s == 'w' then
        end_idle(id, have, 'c')
        return 1
      elseif have.s == 'r' then
        redis.call('HSET', job_key(id), 'x', 1)
        redis.call('SADD', prefix .. 'cancel:' .. have.h, id .. ' ' .. have.n)
        return 2
      end
      return have.s and 3 or 4
    end)
    done[what or 3] = done[what or 3] + 1
  end
  return done
end

-- Whether the values of a job's headers were dropped, because it was done.
local function is_spent(job)
  local options = cjson.decode(job)[5]
  for _, value in pairs(type(options) == 'table' and options.h or {}) do
    if value == '' then return true end
  end
  return false
end

-- Put a job that has ended back on its queue. Returns its pool; nil: it is not to be taken; '': it cannot be run again.
local function retry_job(id, states, kinds)
  local have = read(id, 's', 'p', 'a', 'b', 'j')
  if not have.s or not string.find(states, have.s, 1, true) then return nil end
  if have.s == 'd' and is_spent(have.j) then return '' end
  local rows = cjson.decode('[' .. (have.a or '') .. ']')
  if have.s == 'f' and next(kinds) and not kinds[(rows[#rows] or {})[7]] then return nil end
  local counters = batch_key(id)
  redis.call('HSET', job_key(id), 's', 'q', 'v', #rows)
  redis.call('HDEL', job_key(id), 'l', 'y', 'm', 'x', 'e', 'o', 'd', 'u', 'r', 'c', 'g', 'b', 'z')
  count(id, have.p, have.s, 'q')
  if have.s == 'd' then redis.call('HINCRBY', counters, have.p .. 'b', -(have.b or 0)) end
  in_hand(id, have.p)
  redis.call('HDEL', counters, 'ended')
  return POOLS[have.p]
end

-- Put jobs of a batch that have ended back on their queues, with their attempts as history and a new count of losses.
-- Safe to repeat: the second call finds them queued.
--
-- ARGV  batch, first ordinal, last ordinal, letters of the final states to take,
--       then the kinds of failure to take; none: all of them
-- Returns {how many cannot be run again, id, pool, id, pool, ...}: messages in the caller's hand;
--         or {-1}: there is no such batch, or it is being removed
function commands.retry()
  local known = redis.call('HMGET', prefix .. 'batch:' .. ARGV[3], 'created', 'pruning')
  if not known[1] or known[2] then return {-1} end
  local kinds, back = {}, {0}
  for at = 7, #ARGV do kinds[ARGV[at]] = true end
  local first, last = ordinals(ARGV[4], ARGV[5])
  for ordinal = first, last do
    local id = ARGV[3] .. '.' .. ordinal
    local pool = guarded(id, retry_job, ARGV[6], kinds)
    if pool == '' then
      back[1] = back[1] + 1
    elseif pool then
      back[#back + 1], back[#back + 2] = id, pool
    end
  end
  return back
end

-- Give a running job's file a name that no other job of its batch has; a name that it once got, it keeps.
-- A folder and a file cannot have one name: folders belong to no job and are shared ("-").
--
-- ARGV  id, incarnation, claim number, then candidates, the best first: the name, and how names are compared
-- Returns the name, '' when all candidates are taken, or 0 when the caller does not hold the job.
function commands.reserve()
  local id = ARGV[3]
  if not held(id, ARGV[4], ARGV[5]) then return 0 end
  local known = redis.call('HGET', job_key(id), 'f')
  if known then return known end
  local ordinal, names = string.match(id, '%.(%d+)$'), batch_key(id) .. ':names'
  for at = 6, #ARGV, 2 do
    local name = ARGV[at + 1]
    local owner = redis.call('HGET', names, name)
    local free = not owner or owner == ordinal
    for slash in string.gmatch(name, '()/') do
      owner = redis.call('HGET', names, string.sub(name, 1, slash - 1))
      free = free and (not owner or owner == '-')
    end
    if free then
      for slash in string.gmatch(name, '()/') do redis.call('HSET', names, string.sub(name, 1, slash - 1), '-') end
      redis.call('HSET', names, name, ordinal)
      redis.call('HSET', job_key(id), 'f', ARGV[at])
      return ARGV[at]
    end
  end
  return ''
end

-- Remove a batch, some jobs at a time. From the first call on it takes no more jobs; the last call removes its name.
-- Safe to repeat from any place, also after a process that pruned it died.
--
-- ARGV  batch, first ordinal, jobs to handle in this call, 1 to remove unfinished jobs too,
--       milliseconds that must have passed since its last job ended, or 0
-- Returns jobs left to remove; -1 there is no such batch, -2 it has not finished, -3 it ended too lately.
function commands.prune()
  local batch, first, key = ARGV[3], tonumber(ARGV[4]), prefix .. 'batch:' .. ARGV[3]
  local have, known, final = read_batch(key)
  if not next(have) then return -1 end
  if not have.pruning then
    if ARGV[6] ~= '1' and (not have.sealed or final < tonumber(have.sealed)) then return -2 end
    if wall - tonumber(have.ended or have.created) < tonumber(ARGV[7]) then return -3 end
    redis.call('HSET', key, 'pruning', wall)
  end
  local last = math.min(first + math.min(tonumber(ARGV[5]), SPAN), known) - 1
  for ordinal = first, last do
    local id = batch .. '.' .. ordinal
    if final < known then -- then some of them are in other lists
      guarded(id, function()
        local record = read(id, 'p', 'h')
        if record.p then unlist(id, record.p) end
        redis.call('ZREM', prefix .. 'deadlines', id)
        if record.h then redis.call('SREM', prefix .. 'held:' .. record.h, id) end
      end)
    end
    redis.call('UNLINK', job_key(id))
  end
  if last + 1 < known then return known - last - 1 end
  redis.call('UNLINK', key, key .. ':running', key .. ':names')
  redis.call('ZREM', prefix .. 'batches', batch)
  return 0
end

return commands[ARGV[2]]()
