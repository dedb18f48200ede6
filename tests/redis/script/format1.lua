-- Charges one bucket by GCRA. All times are in µs, and points in time are counted from the epoch.
-- KEYS[1] holds the bucket's TAT, the time at which it is full again. A full bucket has no key.
-- A blocked bucket has a ! and the end of the block behind its TAT.
-- ARGV: T, the time in which a unit comes back; burst * T; the units wanted, 0 to read only; the
-- deadline, 0 for none.
-- Replies the units charged, or -1 after the deadline; TAT - now; now.
-- If the bucket is blocked, replies -2; the time until it can have a unit; now.
-- The arithmetic is exact in doubles: all values are whole numbers below 2^53. The floor of a
-- quotient is exact too: if the sum of two such numbers is below 2^53, their quotient is never
-- rounded up to a whole number.
local T, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local wanted, deadline = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- The request has been decided without this server.
if deadline > 0 and now > deadline then
    return {-1, 0, now}
end

local tat, healed, blocked = now, false, 0
local stored = redis.call('GET', KEYS[1])
if stored then
    -- tonumber alone would also accept nan, inf, hexadecimal numbers and fractions.
    local seen = stored:match('^%d+$')
    if not seen then
        seen, blocked = stored:match('^(%d+)!(%d+)$')
        blocked = tonumber(blocked) or 0
        if blocked >= 9007199254740992 then
            seen, blocked = nil, 0
        end
    end
    seen = tonumber(seen)
    -- A TAT more than 1 s above that of a drained bucket is impossible: the clock was set back, the
    -- limit was lowered, or another program wrote the value. The bucket counts as drained then: it
    -- admits nothing now, and refills as usual.
    healed = not seen or seen > now + tolerance + 1000000
    tat = healed and now + tolerance or math.max(seen, now)
end

if blocked > now then
    return {-2, math.max(blocked, tat + T - tolerance) - now, now}
end

local granted = math.max(0, math.min(wanted, math.floor((now + tolerance - tat) / T)))
if granted > 0 or (healed and wanted > 0) then
    tat = tat + granted * T
    -- tostring would keep only 14 digits. The expiry is in ms and rounded up: an early one would
    -- give units back early.
    local full_at = string.format('%.0f', tat)
    local expiry = string.format('%.0f', math.floor(tat / 1000) + 1)
    redis.call('SET', KEYS[1], full_at, 'PXAT', expiry)
end
return {granted, tat - now, now}
