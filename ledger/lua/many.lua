-- Included by other scripts: a command with a list of arguments, however long; Lua passes some thousands at once.
local function many(command, key, list)
  for at = 1, #list, 1000 do redis.call(command, key, unpack(list, at, math.min(at + 999, #list))) end
end
