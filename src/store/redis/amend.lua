-- Changes a bucket by hand. KEYS[1], its value, the units of time and the arithmetic are those of
-- take.lua.
-- ARGV: 'grant'; by how much earlier the bucket is full; burst * T; the deadline, 0 for none.
-- Or: 'block'; how long the bucket is blocked from now on, 0 to lift a block; 0; the deadline.
-- Replies 1, or 0 after the deadline.
local what, micros = ARGV[1], tonumber(ARGV[2])
local tolerance, deadline = tonumber(ARGV[3]), tonumber(ARGV[4])
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
    -- A value that another program wrote counts as a bucket that is drained under any quota: it is
    -- full in a century.
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
    local value = string.format('%.0f', tat)
    local expiry = string.format('%.0f', math.floor(math.max(tat, blocked) / 1000) + 1)
    if blocked > now then
        value = value .. '!' .. string.format('%.0f', blocked)
    end
    redis.call('SET', KEYS[1], value, 'PXAT', expiry)
end
return 1
