-- Tells a gate that admitted attempts are over, one after the other. The same rules as `note` in domain/target_gate.py
-- and circuit.py.
--
-- KEYS  state, places, host starts, and of each attempt job starts
-- ARGV  the ended attempts and the rules as JSON, see `_told` and `_note_rules` in gates.py; instants and spans are
--       whole microseconds
-- Returns for each attempt {circuit, circuit until, closed until, hits}

local STATE, PLACES = KEYS[1], KEYS[2]
local told = cjson.decode(ARGV[1])
local min_calls, failure_percent, open_span, most_open, bucket, buckets, first_backoff, most_backoff, kept_millis =
  unpack(cjson.decode(ARGV[2]))
local member, now, started, health, limited, succeeded, close_until

local function text(number)
  return string.format('%.0f', number)
end

local read = redis.call('HMGET', STATE, 'circuit', 'until', 'trips', 'probe', 'closed_until', 'hits')
local circuit, open_until, trips = read[1] or 'CLOSED', tonumber(read[2] or '0'), tonumber(read[3] or '0')
local probe, closed_until, hits = read[4] or '', tonumber(read[5] or '0'), tonumber(read[6] or '0')
local changes = {}
local ring

local function set(field, value)
  changes[field] = value
end

local function open()
  circuit, open_until = 'OPEN', now + math.min(open_span * 2 ^ trips, most_open)
  trips = math.min(trips + 1, 20)
  set('circuit', circuit)
  set('until', text(open_until))
  set('trips', text(trips))
end

-- Each place of the ring holds "bucket number:calls:failures".
local function read_ring()
  local fields = {}
  for place = 0, buckets - 1 do
    fields[place + 1] = 'ring' .. place
  end
  local found = {}
  for i, value in ipairs(redis.call('HMGET', STATE, unpack(fields))) do
    local number, calls, failures = string.match(value or '', '^(%d+):(%d+):(%d+)$')
    found[i - 1] = {tonumber(number or '0'), tonumber(calls or '0'), tonumber(failures or '0')}
  end
  return found
end

local function count_call()
  ring = ring or read_ring()
  local number = math.floor(now / bucket)
  local here = number % buckets
  local at, calls, failures = unpack(ring[here])
  if at ~= number then
    calls, failures = 0, 0
  end
  ring[here] = {number, calls + 1, failures + 1 - health}
  set('ring' .. here, text(number) .. ':' .. text(calls + 1) .. ':' .. text(failures + 1 - health))
  local all_calls, all_failures = 0, 0
  for place = 0, buckets - 1 do
    if ring[place][1] > number - buckets then
      all_calls, all_failures = all_calls + ring[place][2], all_failures + ring[place][3]
    end
  end
  if all_calls >= min_calls and all_failures * 100 >= all_calls * failure_percent then
    open()
  end
end

local function note()
  if circuit == 'CLOSED' and health >= 0 then
    count_call()
  elseif circuit == 'HALF_OPEN' and probe == member then
    probe = ''
    set('probe', probe)
    if health == 1 then
      circuit, trips, open_until = 'CLOSED', 0, 0
      set('circuit', circuit)
      set('until', '0')
      set('trips', '0')
      ring = nil
      for place = 0, buckets - 1 do
        redis.call('HDEL', STATE, 'ring' .. place)
      end
    elseif health == 0 then
      open()
    end
  end

  if limited then
    if now >= closed_until then
      hits = hits + 1
      set('hits', text(hits))
    end
    if close_until == 0 then
      close_until = now + math.min(first_backoff * 2 ^ math.min(math.max(hits - 1, 0), 10), most_backoff)
    end
  elseif succeeded and hits > 0 then
    hits = 0
    set('hits', '0')
  end
  if close_until > closed_until then
    closed_until = close_until
    set('closed_until', text(closed_until))
  end
  return {circuit, text(open_until), text(closed_until), text(hits)}
end

local answers = {}
for i, ended in ipairs(told) do
  member, now, started, health, limited, succeeded, close_until = unpack(ended)
  redis.call('ZREM', PLACES, member)
  if not started then
    redis.call('ZREM', KEYS[3], member)
    redis.call('ZREM', KEYS[3 + i], member)
  end
  answers[i] = note()
end
local written = {}
for field, value in pairs(changes) do
  written[#written + 1] = field
  written[#written + 1] = value
end
if #written > 0 then
  redis.call('HSET', STATE, unpack(written))
  redis.call('PEXPIRE', STATE, kept_millis)
end
return answers
