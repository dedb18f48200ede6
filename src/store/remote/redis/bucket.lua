-- Charges and changes buckets of one principal, whose keys are in one slot.
--
-- KEYS: the buckets, each once. ARGV: the time, or 0 to ask the server for it; the deadline, 0 for
-- none; then the runs, which are carried out in their order. All times are whole microseconds, and
-- points in time are counted from the epoch. A bucket is named by its number in KEYS, from 1 on.
--
--   <bucket> <count> <time> <refill>   as many equal requests, each charged that time or refused
--   c <count> <n> and n times <bucket> <time> <refill>
--                                      ... each charged to all of these buckets or to none. The
--                                      number of a shadow entry's bucket is negative
--   s <bucket> <time> <refill>         charges that time in any case: an overdraft
--   r <bucket> <time> <refill>         gives that time back
--   b <bucket> <time>                  blocks the bucket; 0 lifts the block
--   d <bucket>                         fills the bucket up, and lifts its block
--
-- A count is at least 1, a <time> is at most the <refill>, and a <refill> is at most a century.
--
-- Replies the time, and for each bucket the time until it is full, the rest of its overdraft and
-- the rest of its block, all as they were before the runs: what became of each request follows from
-- them. After the deadline it changes nothing, and replies the negative time alone.
--
-- A value is <tat>[+<end of the overdraft>][!<end of the block>]; the tat is the time at which the
-- bucket is full. A full bucket that is not blocked has no key. A value that another program wrote
-- counts as a bucket that is full in a century, which is drained under any quota.
--
-- The arithmetic is exact in doubles, because all values are whole numbers below 2^53. x % y is
-- x - floor(x / y) * y. That floor is exact: if x + y is below 2^53, a quotient below a whole number
-- is never rounded up to it. A product that is only compared may be larger: rounding keeps order.
--
-- tostring keeps 14 digits of a number, too few for a time. So numbers are written by '%.0f'.
--
-- The expiry is relative, since not every server knows PXAT. The server adds it to a clock that
-- counts milliseconds and may be up to 2 ms behind `now`: it is rounded down, and on some servers
-- stands still from the start of the call. A key that expires early gives units back early. So 1.5
-- are added before rounding, by which a key outlives its bucket by at most 2 ms of that clock.
local call, find, format = redis.call, string.find, string.format

local now, deadline = ARGV[1] + 0, ARGV[2] + 0
if now == 0 then
    -- Not if the time is given: some servers refuse TIME inside scripts.
    local time = call('TIME')
    now = time[1] * 1000000 + time[2]
end

-- The requests have been decided without this server.
if deadline > 0 and now > deadline then
    return {-now}
end

-- The most frequent call, without the tables below: one run of charges of one bucket that has
-- neither an overdraft nor a block.
if ARGV[3] == '1' and not ARGV[7] and not KEYS[2] then
    local stored, tat = call('GET', KEYS[1]), now
    if stored then
        tat = find(stored, '^%d+$') and stored + 0 or 2^53
    end
    if tat < 2^53 then
        local debt, time, refill = 0, ARGV[5] + 0, ARGV[6] + 0
        if tat > now then
            debt = tat - now
        end
        local after, charged = debt, ARGV[4] * time
        if after > refill then
            after = refill
        end
        local room = refill - after
        if charged > room then
            charged = room - room % time
        end
        after = after + charged
        if after ~= debt then
            local expiry = format('%.0f', after / 1000 + 1.5)
            call('SET', KEYS[1], format('%.0f', now + after), 'PX', expiry)
        end
        return {now, debt, 0, 0}
    end
end

local max, min = math.max, math.min
local debts, overdrafts, blocks, foreign = {}, {}, {}, {}
local reply = {now}

for bucket = 1, #KEYS do
    local debt, overdraft, block = 0, 0, 0
    local stored = call('GET', KEYS[bucket])
    if stored then
        local tat, overdrawn, blocked
        if find(stored, '^%d+$') then
            tat = stored
        else
            tat, overdrawn = stored:match('^(%d+)%+(%d+)$')
            if not tat then
                tat, blocked = stored:match('^(%d+)!(%d+)$')
            end
            if not tat then
                tat, overdrawn, blocked = stored:match('^(%d+)%+(%d+)!(%d+)$')
            end
        end
        tat = tonumber(tat) or 2^53
        overdrawn, blocked = tonumber(overdrawn) or 0, tonumber(blocked) or 0
        if max(tat, overdrawn, blocked) < 2^53 then
            debt, block = max(tat - now, 0), max(blocked - now, 0)
            -- The overdraft is a part of the debt.
            overdraft = min(max(overdrawn - now, 0), debt)
        else
            debt, foreign[bucket] = 3155760000000000, true
        end
    end
    debts[bucket], overdrafts[bucket], blocks[bucket] = debt, overdraft, block
    local at = 3 * bucket
    reply[at - 1], reply[at], reply[at + 1] = debt, overdraft, block
end

local changed = {}

-- A debt of more than the refill and the overdraft is impossible: the clock went back, or the quota
-- was slower.
local function correct(bucket, refill)
    local overdraft = overdrafts[bucket]
    if overdraft > refill then
        overdraft = refill
        overdrafts[bucket] = refill
    end
    if debts[bucket] > refill + overdraft then
        debts[bucket] = refill + overdraft
    end
    -- What the value counts as would not drain as time passes.
    if foreign[bucket] then
        changed[bucket] = true
    end
end

-- How many times the bucket holds the time.
local function holds(bucket, time, refill)
    local room = refill - debts[bucket]
    if room < time or blocks[bucket] > 0 then
        return 0
    end
    return (room - room % time) / time
end

local at, last = 3, #ARGV
while at <= last do
    local kind = ARGV[at]
    local bucket = tonumber(kind)
    if bucket then
        local time, refill = ARGV[at + 2] + 0, ARGV[at + 3] + 0
        correct(bucket, refill)
        local charges = min(ARGV[at + 1] + 0, holds(bucket, time, refill))
        debts[bucket] = debts[bucket] + charges * time
        at = at + 4
    elseif kind == 'c' then
        -- How many times all binding buckets hold their times, and how many times all buckets do.
        local admitted = ARGV[at + 1] + 0
        local shadowed, first, after = admitted, at + 3, at + 3 + 3 * ARGV[at + 2]
        for entry = first, after - 1, 3 do
            local bucket, refill = ARGV[entry] + 0, ARGV[entry + 2] + 0
            local binding = bucket > 0
            if not binding then
                bucket = -bucket
            end
            correct(bucket, refill)
            local times = holds(bucket, ARGV[entry + 1] + 0, refill)
            if times < shadowed then
                shadowed = times
            end
            if binding and times < admitted then
                admitted = times
            end
        end
        for entry = first, after - 1, 3 do
            local bucket, time = ARGV[entry] + 0, ARGV[entry + 1]
            if bucket > 0 then
                debts[bucket] = debts[bucket] + admitted * time
            else
                debts[-bucket] = debts[-bucket] + shadowed * time
            end
        end
        at = after
    else
        bucket = ARGV[at + 1] + 0
        local time, refill = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
        if kind == 's' then
            correct(bucket, refill)
            debts[bucket] = min(debts[bucket] + time, 2 * refill)
            overdrafts[bucket] = max(overdrafts[bucket], debts[bucket] - refill)
            at = at + 4
        elseif kind == 'r' then
            correct(bucket, refill)
            debts[bucket] = max(debts[bucket] - time, 0)
            overdrafts[bucket] = min(overdrafts[bucket], max(debts[bucket] - refill, 0))
            at = at + 4
        elseif kind == 'b' then
            blocks[bucket] = time
            at = at + 3
        elseif kind == 'd' then
            debts[bucket], overdrafts[bucket], blocks[bucket] = 0, 0, 0
            at = at + 2
        else
            return redis.error_reply('ERR unknown run')
        end
    end
end

for bucket = 1, #KEYS do
    local debt, overdraft, block = debts[bucket], overdrafts[bucket], blocks[bucket]
    local was = 3 * bucket
    if debt ~= reply[was - 1] or overdraft ~= reply[was] or block ~= reply[was + 1]
        or changed[bucket] then
        local life = max(debt, block)
        if life == 0 then
            call('DEL', KEYS[bucket])
        else
            local value = format('%.0f', now + debt)
            if overdraft > 0 then
                value = value .. format('+%.0f', now + overdraft)
            end
            if block > 0 then
                value = value .. format('!%.0f', now + block)
            end
            call('SET', KEYS[bucket], value, 'PX', format('%.0f', life / 1000 + 1.5))
        end
    end
end
return reply
