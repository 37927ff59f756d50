-- The script that bench/edge.py gives to wrk: what differs from request to request, and the figures as JSON.
--
--   wrk ... -s wrk.lua URL -- [count FIRST | random NUMBER | range LENGTH SPAN]
--
-- `@` in the path becomes a number: one more each time (count), or any below NUMBER (random). `range` asks for LENGTH
-- bytes at any place within SPAN. Without arguments the one request is made once, as wrk does by itself.

function init(args)
  local kind, first, second = args[1], tonumber(args[2]), tonumber(args[3])
  if not kind then
    return
  end
  if kind == "range" then
    wrk.headers["Range"] = "bytes=@"
  end
  local before, after = wrk.format():match("^(.-)@(.*)$")
  local next
  if kind == "count" then
    next = function()
      first = first + 1
      return string.format("%.0f", first)
    end
  elseif kind == "random" then
    next = function()
      return math.random(0, first - 1)
    end
  else
    next = function()
      local at = math.random(0, second - first)
      return string.format("%.0f-%.0f", at, at + first - 1)
    end
  end
  math.randomseed(os.time())
  request = function()
    return before .. next() .. after
  end
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %f, "bytes": %.0f, "p50": %f, "p99": %f, "statuses": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
