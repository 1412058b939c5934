#!lua flags=allow-oom
-- Close several jobs: for each exactly what close.lua does.
--
-- ARGV  prefix, then for each: how many arguments follow, and those of close.lua after the prefix
-- Returns for each what close.lua returns.
local function close_one(ARGV)
--include close
end
local closed, at = {}, 2
while at <= #ARGV do
  local args = {ARGV[1]}
  for offset = 1, tonumber(ARGV[at]) do args[offset + 1] = ARGV[at + offset] end
  closed[#closed + 1] = close_one(args)
  at = at + 1 + tonumber(ARGV[at])
end
return closed
