-- GCRA on one bucket. KEYS[1] holds its TAT, the µs since the epoch at which it is full again; a full one needs no key.
-- Behind the TAT of a blocked one there are a ! and the µs since the epoch until which it refuses.
-- ARGV: T, the µs in which a unit comes back; burst * T; the units wanted, 0 to look only; the deadline in µs since the
-- epoch, 0 for none. Replies the units granted, or -1 past the deadline; the TAT less now; now. Of a blocked bucket -2, the
-- µs until it may grant one, now.
-- Exact in doubles: whole numbers below 2^53, and no quotient of two whose sum is below it rounds up to a whole one.
local T, tolerance, wanted, deadline = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- Whoever asked has been answered without us.
if deadline > 0 and now > deadline then
    return {-1, 0, now}
end

local tat, healed, blocked = now, false, 0
local stored = redis.call('GET', KEYS[1])
if stored then
    -- Not tonumber alone, which takes nan, inf, hex and fractions as well.
    local seen = stored:match('^%d+$')
    if not seen then
        seen, blocked = stored:match('^(%d+)!(%d+)$')
        blocked = tonumber(blocked) or 0
        if blocked >= 9007199254740992 then
            seen, blocked = nil, 0
        end
    end
    seen = tonumber(seen)
    -- The clock went back, the limit was lowered, or it isn't ours: drained, so that it neither admits nor lasts.
    healed = not seen or seen > now + tolerance + 1000000
    tat = healed and now + tolerance or math.max(seen, now)
end

if blocked > now then
    return {-2, math.max(blocked, tat + T - tolerance) - now, now}
end

local granted = math.max(0, math.min(wanted, math.floor((now + tolerance - tat) / T)))
if granted > 0 or (healed and wanted > 0) then
    tat = tat + granted * T
    -- Not tostring, which keeps 14 digits. Expiry is in ms: rounded down, it would give units back early.
    local full_at, expiry = string.format('%.0f', tat), string.format('%.0f', math.floor(tat / 1000) + 1)
    redis.call('SET', KEYS[1], full_at, 'PXAT', expiry)
end
return {granted, tat - now, now}
