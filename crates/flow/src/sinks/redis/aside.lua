-- What who reads through the cache does; see aside.rs.
--
-- KEYS  1 the row, 2 what is asked of it, 3 the table's list, 4 the flow's progress or the row's tombstone
-- ARGV  1 `look` or `end`, 2 h or j, 3 a token, then
--       look: 4 milliseconds a lease lives
--       end:  4 seconds a row lives (0: for ever), 5 milliseconds that an absence is remembered, 6 version,
--             7 `row`, `absent` or `nothing`, then the fields of a hash, or the text

local row, asked, list = KEYS[1], KEYS[2], KEYS[3]
local kind, lease = ARGV[2], 'lease ' .. ARGV[3]

if ARGV[1] == 'look' then
  local held
  if kind == 'h' then
    held = redis.call('HGETALL', row)
    if #held == 0 then held = nil end
  else
    held = redis.call('GET', row)
  end
  if held then return {'row', held} end
  local said = redis.call('GET', asked)
  if said and said:sub(1, 7) == 'absent ' then return {'absent', said:sub(8)} end
  if said then return {'leased'} end
  redis.call('SET', asked, lease, 'PX', ARGV[4])
  -- So that TRUNCATE, DROP and RENAME end the lease: 0, since the entry of a row that expired would be taken from the list.
  redis.call('ZADD', list, 0, row)
  return {'lease', redis.call('GET', KEYS[4]) or ''}
end

if redis.call('GET', asked) ~= lease then return 'late' end
redis.call('DEL', asked)
local ttl, version, outcome = tonumber(ARGV[4]), ARGV[6], ARGV[7]
if redis.call('EXISTS', row) == 1 then return 'held' end
local buried = redis.call('GET', KEYS[4])
if outcome ~= 'row' or (buried and buried > version) then
  redis.call('ZREM', list, row)
  if outcome == 'absent' then redis.call('SET', asked, 'absent ' .. version, 'PX', ARGV[5]) end
  return 'held'
end
if kind == 'h' then
  for first = 8, #ARGV, 1000 do
    redis.call('HSET', row, unpack(ARGV, first, math.min(first + 999, #ARGV)))
  end
else
  redis.call('SET', row, ARGV[8])
end
local ends = 0
if ttl > 0 then
  redis.call('EXPIRE', row, ttl)
  ends = tonumber(redis.call('TIME')[1]) + ttl
end
redis.call('ZADD', list, ends, row)
return 'held'
