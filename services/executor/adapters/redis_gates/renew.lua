-- Keeps the places of attempts that go on, and puts back those that Redis has forgotten.
--
-- KEYS  state, places
-- ARGV  lease until, milliseconds until then, members

for i = 3, #ARGV do
  redis.call('ZADD', KEYS[2], ARGV[1], ARGV[i])
  if redis.call('HGET', KEYS[1], 'probe') == ARGV[i] then
    redis.call('HSET', KEYS[1], 'probe_until', ARGV[1])
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
