-- Requests of many visitors for wrk: cookies of two files in turn, a share of them of the second.
local owed, last_fresh, last_due = 0, 0, 0

local function requests(path)
  local all = {}
  for cookies in io.lines(path) do
    all[#all + 1] = wrk.format("GET", "/", { ["Cookie"] = cookies })
  end
  return all
end

function init(args)
  fresh, share, last_due = requests(args[1]), tonumber(args[3]), tonumber(args[4])
  if share > 0 then due = requests(args[2]) end
end

function request()
  owed = owed + share
  if owed >= 1 then
    owed, last_due = owed - 1, last_due % #due + 1
    return due[last_due]
  end
  last_fresh = last_fresh % #fresh + 1
  return fresh[last_fresh]
end

-- One line: requests, microseconds, p50 and p99 in microseconds, errors.
function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format("done %d %d %d %d %d", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), failed))
end
