-- Charges and changes buckets of one principal, whose keys are in one slot, and of everyone, whose
-- keys are in another. A call names keys of both only where one server has all slots.
--
-- KEYS: the buckets, each once. ARGV: the time, or 0 to ask the server for it, or the negative time
-- of a clock that is up to a second off; the deadline, 0 for none; then the runs, which are carried
-- out in their order. All times are whole microseconds, and points in time are counted from the
-- epoch. A bucket is named by its number in KEYS, from 1 on.
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
-- A count is at least 1, what is charged is at most the <refill>, and that is at most a century.
--
-- If a key holds something that is no string, nothing is changed, and the error names the bucket.
-- Only a call that fills this bucket up and does nothing else deletes such a key.
--
-- Replies the time, and for each bucket the time until it is full, the rest of its overdraft and
-- the rest of its block, all as they were before the runs: what became of each request follows from
-- them. After the deadline it changes nothing, and replies the negative time alone.
--
-- A value is <tat>[+<end of the overdraft>][!<end of the block>]; the tat is the time at which the
-- bucket is full. A full bucket that is not blocked has no key. A value that another program wrote
-- counts as a bucket that is full in a century, which is drained under any quota.
--
-- The arithmetic is exact in doubles, because all values are whole numbers below 2^53. (A sum or a
-- product that is only compared with such a number may be larger: rounding keeps the order.) x % y
-- is x - floor(x / y) * y, and that floor is exact: if x + y is below 2^53, a quotient below a
-- whole number is never rounded up to it.
--
-- tostring keeps 14 digits of a number, too few for a time. So numbers are written by '%.0f'.
--
-- A key that expires early gives units back early. The expiry is relative, since not every server
-- knows PXAT, and the server adds it to a clock that may be up to 2 ms behind `now`: it is rounded
-- down to a millisecond, and on some servers it is the clock at the beginning of the call. So
-- 1.5 ms are added, and '%.0f' rounds to the nearest: a key lasts 1 to 2 ms longer than it has to.
local call, find, format = redis.call, string.find, string.format

-- The value of a bucket, or the error to reply.
local function value_of(bucket)
    local stored = redis.pcall('GET', KEYS[bucket])
    if type(stored) ~= 'table' then
        return stored
    end
    if find(stored.err, 'WRONGTYPE', 1, true) then
        if ARGV[3] == 'd' and not ARGV[5] then
            call('DEL', KEYS[bucket])
            return false
        end
        return nil, redis.error_reply('WRONGTYPE bucket ' .. bucket)
    end
    return nil, stored
end

local now, deadline = ARGV[1] + 0, ARGV[2] + 0
-- How much longer than possible a debt may be before it is corrected: clocks may differ by that.
-- The law that tells what became of each request corrects by the same: `BucketState::correct`.
local slack = 0
if now < 0 then
    now, slack = -now, 1000000
end
if now == 0 then
    -- Only if no time is given: some servers refuse TIME inside scripts.
    local time = call('TIME')
    now = time[1] * 1000000 + time[2]
end

-- The requests have been decided without this server by now.
if deadline > 0 and now > deadline then
    return {-now}
end

-- The most frequent call, without the tables below: one run of charges of one bucket that has
-- neither an overdraft nor a block.
if ARGV[3] == '1' and not ARGV[7] and not KEYS[2] then
    local stored, failure = value_of(1)
    local tat = now
    if failure then
        return failure
    end
    if stored then
        tat = find(stored, '^%d+$') and stored + 0 or 2^53
    end
    if tat < 2^53 then
        local debt, time, refill = 0, ARGV[5] + 0, ARGV[6] + 0
        if tat > now then
            debt = tat - now
        end
        local after, charged = debt, ARGV[4] * time
        if after > refill + slack then
            after = refill
        end
        local room = refill - after
        if room < 0 then
            room = 0
        end
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

-- Debt, overdraft and block of each bucket: as they were, and as they become. Both lists have the
-- order of the reply. Most calls have one or two buckets, for which the lists need not grow.
local reply, state
if KEYS[2] then
    reply, state = {now, 0, 0, 0, 0, 0, 0}, {now, 0, 0, 0, 0, 0, 0}
else
    reply, state = {now, 0, 0, 0}, {now, 0, 0, 0}
end
-- The buckets whose values another program wrote: true once a run has corrected the bucket. Then it
-- is written even if its debt stays a century, since the other program's value would never drain.
local foreign

for bucket = 1, #KEYS do
    local debt, overdraft, block = 0, 0, 0
    local stored, failure = value_of(bucket)
    if failure then
        return failure
    end
    if stored then
        local tat, overdrawn, blocked = stored, 0, 0
        if not find(stored, '^%d+$') then
            tat, overdrawn = stored:match('^(%d+)%+(%d+)$')
            if not tat then
                tat, blocked = stored:match('^(%d+)!(%d+)$')
            end
            if not tat then
                tat, overdrawn, blocked = stored:match('^(%d+)%+(%d+)!(%d+)$')
            end
            tat, overdrawn, blocked = (tat or 2^53) + 0, (overdrawn or 0) + 0, (blocked or 0) + 0
        end
        debt = tat - now
        if debt < 0 then
            debt = 0
        end
        if tat + 0 >= 2^53 or overdrawn >= 2^53 or blocked >= 2^53 then
            foreign = foreign or {}
            debt, foreign[bucket] = 3155760000000000, false
        else
            if blocked > now then
                block = blocked - now
            end
            if overdrawn > now then
                -- It is a part of the debt.
                overdraft = math.min(overdrawn - now, debt)
            end
        end
    end
    local at = 3 * bucket - 1
    reply[at], reply[at + 1], reply[at + 2] = debt, overdraft, block
    state[at], state[at + 1], state[at + 2] = debt, overdraft, block
end

-- Makes an impossible debt that of a drained bucket: the clock went back, or the quota was slower.
-- The overdraft is a part of the debt, so there is nothing to correct if the debt is no more than
-- the refill.
local function correct(bucket, refill)
    local at = 3 * bucket - 1
    local overdraft = math.min(state[at + 1], refill)
    if state[at] > refill + overdraft + slack then
        state[at] = refill + overdraft
    end
    state[at + 1] = overdraft
    if foreign and foreign[bucket] == false then
        foreign[bucket] = true
    end
    return at
end

local run, last = 3, #ARGV
while run <= last do
    local kind = ARGV[run]
    if kind == 'c' then
        local entries = run + 3
        run = entries + 3 * ARGV[run + 2]
        -- How many times all binding buckets hold their times, and how many times all buckets do.
        local admitted = ARGV[entries - 2] + 0
        local shadowed = admitted
        for entry = entries, run - 1, 3 do
            local bucket, time, refill = ARGV[entry] + 0, ARGV[entry + 1] + 0, ARGV[entry + 2] + 0
            local at = bucket > 0 and 3 * bucket - 1 or -3 * bucket - 1
            local debt = state[at]
            if debt > refill or foreign then
                correct(bucket > 0 and bucket or -bucket, refill)
                debt = state[at]
            end
            local room = refill - debt
            if room < 0 or state[at + 2] > 0 then
                room = 0
            end
            if shadowed * time > room then
                shadowed = (room - room % time) / time
            end
            if bucket > 0 and admitted * time > room then
                admitted = (room - room % time) / time
            end
        end
        for entry = entries, run - 1, 3 do
            local bucket = ARGV[entry] + 0
            if bucket > 0 then
                local at = 3 * bucket - 1
                state[at] = state[at] + admitted * ARGV[entry + 1]
            else
                local at = -3 * bucket - 1
                state[at] = state[at] + shadowed * ARGV[entry + 1]
            end
        end
    elseif kind == 's' then
        local time, refill = ARGV[run + 2] + 0, ARGV[run + 3] + 0
        local at = correct(ARGV[run + 1] + 0, refill)
        state[at] = math.max(math.min(state[at] + time, 2 * refill), state[at])
        state[at + 1] = math.max(state[at + 1], state[at] - refill)
        run = run + 4
    elseif kind == 'r' then
        local time, refill = ARGV[run + 2] + 0, ARGV[run + 3] + 0
        local at = correct(ARGV[run + 1] + 0, refill)
        state[at] = math.max(state[at] - time, 0)
        state[at + 1] = math.max(state[at + 1] - time, 0)
        run = run + 4
    elseif kind == 'b' then
        state[3 * ARGV[run + 1] + 1] = ARGV[run + 2] + 0
        run = run + 3
    elseif kind == 'd' then
        local at = 3 * ARGV[run + 1] - 1
        state[at], state[at + 1], state[at + 2] = 0, 0, 0
        run = run + 2
    else
        local at, count = 3 * kind - 1, ARGV[run + 1]
        local time, refill = ARGV[run + 2] + 0, ARGV[run + 3] + 0
        if state[at] > refill or foreign then
            correct(kind + 0, refill)
        end
        local room = refill - state[at]
        if room > 0 and state[at + 2] == 0 then
            local charged = count * time
            if charged > room then
                charged = room - room % time
            end
            state[at] = state[at] + charged
        end
        run = run + 4
    end
end

for bucket = 1, #KEYS do
    local at = 3 * bucket - 1
    local debt, overdraft, block = state[at], state[at + 1], state[at + 2]
    if debt ~= reply[at] or overdraft ~= reply[at + 1] or block ~= reply[at + 2]
        or foreign and foreign[bucket] then
        local life = block > debt and block or debt
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
