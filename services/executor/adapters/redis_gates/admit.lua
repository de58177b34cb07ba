-- Asks a gate to let attempts start, one after the other. The same rules as domain/target_gate.py, request_log.py and
-- circuit.py, where they are explained; tests/contract/test_target_gates.py holds the two against each other.
--
-- KEYS  state, places, host starts, host line, and of each attempt job starts and job line: one slot of a Cluster, by
--       their hash tag
-- ARGV  the attempts and the rules as JSON, see `_asked` and `_admit_rules` in gates.py; instants and spans are whole
--       microseconds
-- Returns for each attempt {verdict, number, number or reason, circuit, circuit until, closed until, hits}

local SECOND = 1000000
local STATE, PLACES = KEYS[1], KEYS[2]
local HOST, JOB = {starts = KEYS[3], line = KEYS[4]}, {}
local asked = cjson.decode(ARGV[1])
local window, tolerance, hold, exact_later, recheck, least_turn, most_turn, most_spread, at_any_time, kept_millis =
  unpack(cjson.decode(ARGV[2]))
local id, member, at, now, job_limit, host_limit, places, lease_until, turn, spread

-- Plain tostring would round to 14 digits.
local function text(number)
  return string.format('%.0f', number)
end

local read = redis.call('HMGET', STATE, 'circuit', 'until', 'probe', 'probe_until', 'closed_until', 'hits', 'turn')
local circuit, open_until = read[1] or 'CLOSED', tonumber(read[2] or '0')
local probe, probe_until = read[3] or '', tonumber(read[4] or '0')
local closed_until, hits, last_turn = tonumber(read[5] or '0'), read[6] or '0', tonumber(read[7] or '0')

local function remember(...)
  redis.call('HSET', STATE, ...)
  redis.call('PEXPIRE', STATE, kept_millis)
end

local function reply(verdict, first, second)
  return {verdict, text(first), second, circuit, text(open_until), text(closed_until), hits}
end

local function spread_after(instant)
  return instant + math.floor(math.min(math.max(instant - now, SECOND), most_spread) * spread / SECOND)
end

local function count(key, after, til)
  return redis.call('ZCOUNT', key, '(' .. text(after), text(til))
end

local function from_last(key, rank)
  return tonumber(redis.call('ZRANGE', key, -rank, -rank, 'WITHSCORES')[2])
end

local function expire_after(key, micros)
  redis.call('PEXPIRE', key, text(math.max(math.ceil(micros / 1000), 1)))
end

local function fits(log, slot, limit)
  local later = redis.call('ZRANGEBYSCORE', log.starts, '(' .. text(slot), '(' .. text(slot + window), 'WITHSCORES',
    'LIMIT', 0, exact_later + 1)
  if #later / 2 > exact_later then
    return count(log.starts, slot - window, slot + window - 1) < limit
  end
  if count(log.starts, slot - window, slot) >= limit then
    return false
  end
  for i = 2, #later, 2 do
    local last = tonumber(later[i])
    if count(log.starts, last - window, last) >= limit then
      return false
    end
  end
  return true
end

local function end_of_line(log, from, limit)
  redis.call('ZREM', log.line, id)
  local slot = from
  local waiting = redis.call('ZCARD', log.line)
  if waiting > 0 then
    slot = math.max(slot, from_last(log.line, 1) + math.ceil(window / limit))
  end
  if waiting >= limit then
    return math.max(slot, from_last(log.line, limit) + window)
  end
  if redis.call('ZCARD', log.starts) >= limit - waiting then
    return math.max(slot, from_last(log.starts, limit - waiting) + window)
  end
  return slot
end

local function plan(log, from, limit)
  -- Most attempts are the only one of their job in its window.
  if limit == 0 or redis.call('EXISTS', log.starts, log.line) == 0 then
    return from, true
  end
  redis.call('ZREMRANGEBYSCORE', log.starts, '-inf', text(now - 2 * window))
  redis.call('ZREMRANGEBYSCORE', log.line, '-inf', text(now - tolerance - 1))
  local own = redis.call('ZSCORE', log.line, id)
  if not own then
    local around = count(log.starts, from - window, from + window - 1) + count(log.line, -1, from + window - 1)
    if around < limit then
      return from, true
    end
  else
    own = tonumber(own)
    if own > from + hold then
      return own, false
    elseif fits(log, own, limit) then
      return own, true
    end
  end
  local slot = end_of_line(log, from, limit)
  return slot, slot <= from + hold and fits(log, slot, limit)
end

local function book(log, other, slot, reason)
  redis.call('ZADD', log.line, text(slot), id)
  expire_after(log.line, from_last(log.line, 1) - now + window)
  redis.call('ZREM', other.line, id)
  return reply('DEFERRED', slot, reason)
end

local function start(log, limit, slot)
  if limit == 0 then
    return at_any_time
  end
  redis.call('ZREM', log.line, id)
  redis.call('ZADD', log.starts, text(slot), member)
  expire_after(log.starts, slot - now + 2 * window)
  return slot + tolerance
end

local function admit()
  if circuit == 'OPEN' then
    if now < open_until then
      return reply('DEFERRED', spread_after(open_until), 'CIRCUIT_OPEN')
    end
    circuit, probe = 'HALF_OPEN', ''
    remember('circuit', circuit, 'probe', probe)
  end
  if circuit == 'HALF_OPEN' and probe ~= '' and now < probe_until then
    return reply('DEFERRED', spread_after(now + recheck), 'CIRCUIT_OPEN')
  end
  if now < closed_until then
    return reply('DEFERRED', spread_after(closed_until), 'TARGET_RATE_LIMIT')
  end

  local job_slot, job_admits = plan(JOB, at, job_limit)
  if not job_admits then
    return book(JOB, HOST, job_slot, 'JOB_RATE_LIMIT')
  end
  local host_slot, host_admits = plan(HOST, math.max(at, job_slot), host_limit)
  if not host_admits then
    return book(HOST, JOB, host_slot, 'TARGET_RATE_LIMIT')
  end
  local slot = math.max(job_slot, host_slot)
  if job_limit > 0 and slot > job_slot + tolerance then
    if not fits(JOB, slot, job_limit) then
      return book(JOB, HOST, end_of_line(JOB, slot, job_limit), 'JOB_RATE_LIMIT')
    end
    job_slot = slot
  end
  if host_limit > 0 and slot > host_slot + tolerance then
    if not fits(HOST, slot, host_limit) then
      return book(HOST, JOB, end_of_line(HOST, slot, host_limit), 'TARGET_RATE_LIMIT')
    end
    host_slot = slot
  end

  if places > 0 then
    redis.call('ZREMRANGEBYSCORE', PLACES, '-inf', text(now))
    if redis.call('ZCARD', PLACES) >= places then
      if turn == 0 then
        return reply('BUSY', 0, '')
      end
      last_turn = math.min(math.max(last_turn, now) + turn, now + most_turn)
      remember('turn', text(last_turn))
      local til = math.max(last_turn, now + least_turn) + math.floor(spread * math.floor(least_turn / 2) / SECOND)
      return reply('DEFERRED', til, 'TARGET_CONCURRENCY')
    end
  end

  local start_by = math.min(start(JOB, job_limit, job_slot), start(HOST, host_limit, host_slot))
  redis.call('ZADD', PLACES, text(lease_until), member)
  expire_after(PLACES, lease_until - now)
  if circuit == 'HALF_OPEN' then
    probe, probe_until = member, lease_until
    remember('probe', probe, 'probe_until', text(probe_until))
  end
  return reply('ADMITTED', slot, text(start_by))
end

local answers = {}
for i, ask in ipairs(asked) do
  id, member, at, now, job_limit, host_limit, places, lease_until, turn, spread = unpack(ask)
  JOB.starts, JOB.line = KEYS[3 + 2 * i], KEYS[4 + 2 * i]
  answers[i] = admit()
end
return answers
