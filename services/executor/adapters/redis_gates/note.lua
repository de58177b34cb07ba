-- Tells a gate that an admitted attempt is over. The same rules as `note` in domain/target_gate.py and circuit.py.
--
-- KEYS  state, places, host starts, job starts
-- ARGV  see `_note_arguments` in gates.py; instants and spans are whole microseconds
-- Returns {circuit, circuit until, closed until, hits}

local STATE, PLACES = KEYS[1], KEYS[2]
local member, now, started = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local health, limited, succeeded = tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6] == '1'
local close_until = tonumber(ARGV[7])
local min_calls, failure_percent = tonumber(ARGV[8]), tonumber(ARGV[9])
local open_span, most_open = tonumber(ARGV[10]), tonumber(ARGV[11])
local bucket, buckets = tonumber(ARGV[12]), tonumber(ARGV[13])
local first_backoff, most_backoff, kept_millis = tonumber(ARGV[14]), tonumber(ARGV[15]), ARGV[16]

local function text(number)
  return string.format('%.0f', number)
end

redis.call('ZREM', PLACES, member)
if not started then
  redis.call('ZREM', KEYS[3], member)
  redis.call('ZREM', KEYS[4], member)
end

local read = redis.call('HMGET', STATE, 'circuit', 'until', 'trips', 'probe', 'closed_until', 'hits')
local circuit, open_until, trips = read[1] or 'CLOSED', tonumber(read[2] or '0'), tonumber(read[3] or '0')
local probe, closed_until, hits = read[4] or '', tonumber(read[5] or '0'), tonumber(read[6] or '0')
local changes = {}

local function set(field, value)
  changes[#changes + 1] = field
  changes[#changes + 1] = value
end

local function open()
  circuit, open_until = 'OPEN', now + math.min(open_span * 2 ^ trips, most_open)
  trips = math.min(trips + 1, 20)
  set('circuit', circuit)
  set('until', text(open_until))
  set('trips', text(trips))
end

-- Each place of the ring holds "bucket number:calls:failures".
local function ring_place(value)
  local number, calls, failures = string.match(value or '', '^(%d+):(%d+):(%d+)$')
  return tonumber(number or '0'), tonumber(calls or '0'), tonumber(failures or '0')
end

local function count_call()
  local number = math.floor(now / bucket)
  local fields = {}
  for place = 0, buckets - 1 do
    fields[place + 1] = 'ring' .. place
  end
  local ring = redis.call('HMGET', STATE, unpack(fields))
  local here = number % buckets
  local all_calls, all_failures = 0, 0
  for place = 0, buckets - 1 do
    local at, calls, failures = ring_place(ring[place + 1])
    if place == here then
      if at ~= number then
        calls, failures = 0, 0
      end
      at, calls, failures = number, calls + 1, failures + 1 - health
      set('ring' .. place, text(at) .. ':' .. text(calls) .. ':' .. text(failures))
    end
    if at > number - buckets then
      all_calls, all_failures = all_calls + calls, all_failures + failures
    end
  end
  if all_calls >= min_calls and all_failures * 100 >= all_calls * failure_percent then
    open()
  end
end

if circuit == 'CLOSED' and health >= 0 then
  count_call()
elseif circuit == 'HALF_OPEN' and probe == member then
  set('probe', '')
  if health == 1 then
    circuit, trips, open_until = 'CLOSED', 0, 0
    set('circuit', circuit)
    set('until', '0')
    set('trips', '0')
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
if #changes > 0 then
  redis.call('HSET', STATE, unpack(changes))
  redis.call('PEXPIRE', STATE, kept_millis)
end
return {circuit, text(open_until), text(closed_until), text(hits)}
