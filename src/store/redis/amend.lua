-- Changes a bucket by hand. KEYS[1] and what it holds are those of take.lua, and so is the arithmetic.
-- ARGV: 'grant', the µs by which the bucket is full earlier, burst * T, the deadline; or 'block', the µs for which it
-- refuses from now on, 0, the deadline. Replies 1, or 0 past the deadline.
local what, micros, tolerance, deadline = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

if deadline > 0 and now > deadline then
    return 0
end

local tat, blocked, latest = now, 0, now + 3155760000000000
local stored = redis.call('GET', KEYS[1])
if stored then
    local seen = stored:match('^%d+$')
    if not seen then
        seen, blocked = stored:match('^(%d+)!(%d+)$')
        blocked = tonumber(blocked) or 0
        if blocked >= 9007199254740992 then
            seen, blocked = nil, 0
        end
    end
    -- What isn't ours is drained by whatever quota: it owes a century.
    tat = math.max(now, math.min(tonumber(seen) or latest, latest))
end

if what == 'grant' then
    tat = math.max(now, math.min(tat, now + tolerance) - micros)
else
    blocked = now + micros
end

if tat <= now and blocked <= now then
    redis.call('DEL', KEYS[1])
else
    local value, expiry = string.format('%.0f', tat), string.format('%.0f', math.floor(math.max(tat, blocked) / 1000) + 1)
    if blocked > now then
        value = value .. '!' .. string.format('%.0f', blocked)
    end
    redis.call('SET', KEYS[1], value, 'PXAT', expiry)
end
return 1
