-- Writes one chunk of a flow and moves its progress, all or nothing but for the rows before a refused one.
--
-- KEYS[1]  the flow's progress; the keys of each operation follow, in order
-- ARGV     1 progress as the caller knows it, 2 progress after this chunk, 3 seconds a tombstone lives,
--          4 seconds a row lives (0: for ever), then the operations, each a letter and its arguments
--
-- Answers {'done', rows kept because they are newer}, {'moved', progress}, or {'failed', number of the operation, error}.

local at = redis.call('GET', KEYS[1]) or ''
if at ~= ARGV[1] then return {'moved', at} end
local grave, ttl = ARGV[3], tonumber(ARGV[4])
local now = ttl > 0 and tonumber(redis.call('TIME')[1]) or 0

local MARK = '{"tidemill_version":"'
local k, a = 1, 4
local failure, newer, pruned = nil, 0, {}

local function key() k = k + 1 return KEYS[k] end
local function arg() a = a + 1 return ARGV[a] end

-- After the first error nothing more is written.
local function call(...)
  if failure then return false end
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    failure = reply.err
    return false
  end
  return reply
end

-- Whether the row, or the tombstone of its deletion, is newer than `version`. Versions have one width, so they compare as text.
local function outdated(kind, row, tombstone, version)
  local held
  if kind == 'h' then
    held = call('HGET', row, 'tidemill_version')
  else
    held = call('GETRANGE', row, 0, #MARK + #version - 1)
    held = held and held:sub(1, #MARK) == MARK and held:sub(#MARK + 1)
  end
  local buried = call('GET', tombstone)
  if (held and held > version) or (buried and buried > version) then
    newer = newer + 1
    return true
  end
  return false
end

-- Whoever read this row from the source to fill it by hand read it too early.
local function end_lease(row) call('DEL', 'tidemill:asked:' .. row) end

-- Keeps in the table's list what is there, by when it ends; 0 is never.
local function list(keys, entry)
  call('ZADD', keys, ttl > 0 and now + ttl or 0, entry)
  if ttl > 0 and not pruned[keys] then
    pruned[keys] = true
    call('ZREMRANGEBYSCORE', keys, '(0', '(' .. now)
  end
end

-- HSET in parts: Lua passes at most some thousand arguments at once.
local function set_fields(row, count)
  local part = {}
  for _ = 1, count do
    part[#part + 1] = arg()
    if #part == 1000 then
      call('HSET', row, unpack(part))
      part = {}
    end
  end
  if #part > 0 then call('HSET', row, unpack(part)) end
end

local operations = {
  -- A row as a hash.
  h = function()
    local row, tombstone, keys, version, count = key(), key(), key(), arg(), tonumber(arg())
    if outdated('h', row, tombstone, version) then
      a = a + count
      return
    end
    end_lease(row)
    call('DEL', row)
    set_fields(row, count)
    if ttl > 0 then call('EXPIRE', row, ttl) end
    list(keys, row)
  end,
  -- A row as a JSON string.
  j = function()
    local row, tombstone, keys, version, value = key(), key(), key(), arg(), arg()
    if outdated('j', row, tombstone, version) then return end
    end_lease(row)
    if ttl > 0 then call('SET', row, value, 'EX', ttl) else call('SET', row, value) end
    list(keys, row)
  end,
  -- The end of a row.
  d = function()
    local row, tombstone, keys, kind, version = key(), key(), key(), arg(), arg()
    if outdated(kind, row, tombstone, version) then return end
    end_lease(row)
    call('DEL', row)
    call('SET', tombstone, version, 'EX', grave)
    call('ZREM', keys, row)
  end,
  -- A row under another name, when its table is renamed.
  m = function()
    local old, new, old_keys, new_keys = key(), key(), key(), key()
    end_lease(old)
    end_lease(new)
    if call('EXISTS', old) == 1 then call('RENAME', old, new) end
    local ends = call('ZSCORE', old_keys, old)
    call('ZREM', old_keys, old)
    call('ZADD', new_keys, ends or 0, new)
  end,
  s = function()
    local set, keys, member, entry = key(), key(), arg(), arg()
    call('SADD', set, member)
    list(keys, entry)
  end,
  z = function()
    local set, keys, member, entry, score = key(), key(), arg(), arg(), arg()
    call('ZADD', set, score, member)
    list(keys, entry)
  end,
  -- A member leaves a set or a sorted set.
  r = function()
    local set, keys, command, member, entry = key(), key(), arg(), arg(), arg()
    call(command, set, member)
    call('ZREM', keys, entry)
  end,
  -- A member goes to the set's new name, under its own new name.
  n = function()
    local old, new, old_keys, new_keys = key(), key(), key(), key()
    local kind, member, new_member, old_entry, new_entry = arg(), arg(), arg(), arg(), arg()
    if kind == 's' then
      call('SREM', old, member)
      call('SADD', new, new_member)
    else
      local score = call('ZSCORE', old, member)
      call('ZREM', old, member)
      if score then call('ZADD', new, score, new_member) end
    end
    call('ZREM', old_keys, old_entry)
    call('ZADD', new_keys, 0, new_entry)
  end,
  -- An entry of a stream. What is there already is not added again; what comes late goes behind the newest.
  x = function()
    local stream, id, late, longest, count = key(), arg(), arg() == '1', arg(), tonumber(arg())
    local fields = {}
    for _ = 1, count do fields[#fields + 1] = arg() end
    local last = '0-0'
    if call('EXISTS', stream) == 1 then
      local info = call('XINFO', 'STREAM', stream) or {}
      for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then last = info[i + 1] end
      end
    end
    if failure then return end
    -- Wider than any number of Lua: compared as text of one width.
    local ms, seq = last:match('^(%d+)-(%d+)$')
    local function wide(number) return string.rep('0', 20 - #number) .. number end
    if wide(id) <= wide(ms) then
      if not late then
        newer = newer + 1
        return
      end
      id = ms .. '-' .. string.format('%d', tonumber(seq) + 1)
    else
      id = id .. '-0'
    end
    if longest == '' then
      call('XADD', stream, id, unpack(fields))
    else
      call('XADD', stream, 'MAXLEN', '~', longest, id, unpack(fields))
    end
  end,
  p = function()
    local channel, message = arg(), arg()
    call('PUBLISH', channel, message)
  end,
}

-- First, so that a server without memory refuses the chunk whole: after one write a script may go on for ever.
call('SET', KEYS[1], ARGV[2])
if failure then return {'failed', 0, failure} end
local number = 0
while a < #ARGV do
  number = number + 1
  operations[arg()]()
  if failure then
    if at == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], at) end
    return {'failed', number, failure}
  end
end
return {'done', newer}
