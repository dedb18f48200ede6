"""The jobs: what is run against which limiter, and what is expected of it."""

import dataclasses

from limiters import BOLNA, LIMITERS, NGINX_IN_SECONDS, Limiter, Rate, named, windows

# How much more than the least time a job may take.
MOST_TIME = 1.2

# The client's policy in the bulk jobs, in calls a second with a burst of as many, and the limiter's
# window in seconds, by how many times slower the limiter is. A job of 1,500 calls then takes from
# 20 seconds to 5 minutes, and a window is long for waits in whole seconds, rounded up.
POLICIES = {2: (125, 10), 10: (500, 6), 100: (500, 10)}
# The same for limiters that refuse what comes a millisecond early: at an interval of 80 ms or more,
# a machine that is busy with other jobs is no reason.
EXACT = {2: (25, 10), 10: (100, 6), 100: (500, 10)}
# What the client does not always keep, and is not in the short selection: a wait of 1 s is fifty
# times too long for nginx, and the client takes it for the time in which the server admits one burst;
# the log of DRF is empty for long after a burst, and in one run of four the rate that is measured
# then is so low that the job takes 1.4 of the least time.
NOT_KEPT = ["nginx 503 Retry-After", "DRF"]


@dataclasses.dataclass(frozen=True)
class Row:
    """A job against a limiter."""

    name: str
    limiter: Limiter
    rate: Rate
    calls: int
    policy: Rate
    callers: int = 0
    processes: int = 1
    evenly: bool = False
    # Whether the bounds on requests and time hold, and not only that nothing is lost.
    bounded: bool = True
    # Whether it belongs to the selection that takes little time.
    short: bool = False
    # Whether it sends so little that it is run beside all others.
    idle: bool = False

    def least(self):
        """The least time, in seconds, of any client that keeps to its policy."""
        policy = max(0, self.calls - self.policy.burst) * self.policy.window / self.policy.limit
        # Each process has a bucket of its own.
        return max(self.limiter.least(self.rate, self.calls), policy / self.processes)

    def most(self):
        """The time that is promised. A client that keeps to a rate, and be it the right one, sends
        the last window little by little, where the least time ends when that window begins."""
        window = self.rate.window if self.limiter.least is windows else 0
        return max(self.least() * MOST_TIME, self.least() + window)


def bulk(limiter, strictness, calls, processes=1, short=False):
    policy, window = (EXACT if limiter.exact else POLICIES)[strictness]
    return Row(
        name=f"{limiter.name}, 1/{strictness}"
        + (f", {processes} processes" if processes > 1 else ""),
        limiter=limiter,
        rate=Rate(policy * window // strictness, window, limiter.burst),
        calls=calls,
        policy=Rate(policy, 1, policy),
        processes=processes,
        short=short,
        idle=strictness == 100 or limiter.exact,
    )


def faults():
    """The jobs in which calls were lost, and time: 40 calls by 20 callers, at 500 a minute."""
    minute = Rate(500, 60, 500)

    def few(name, limiter, limit, window, burst=1):
        rate = Rate(limit, window, burst)
        options = {"callers": 20, "bounded": False, "short": True, "idle": True}
        return Row(f"{name}, 40 calls", limiter, rate, 40, minute, **options)

    yield few("tower_governor, 1 in 2 s", named("tower_governor"), 1, 2, 3)
    yield few("actix-governor, 1 in 0.5 s", named("actix-governor"), 1, 0.5)
    yield few("nginx 503, 1 in 1 s", NGINX_IN_SECONDS, 1, 1)
    yield few("rate-limiter-flexible, 5 in 3 s", named("rate-limiter-flexible"), 5, 3)
    yield few("slowapi fields, 5 in 3 s", named("slowapi fields"), 5, 3)
    yield few("slowapi, 5 in 3 s", named("slowapi"), 5, 3)
    # This crate at both ends, with a minute of five seconds.
    rate = Rate(500, 5, 500)
    for processes, evenly in [(4, False), (8, False), (4, True), (8, True)]:
        yield Row(
            name=f"this crate, {processes} processes" + (" evenly" if evenly else ""),
            limiter=BOLNA,
            rate=rate,
            calls=1600,
            policy=rate,
            processes=processes,
            evenly=evenly,
            # Of processes that send in bursts each sends its first one too early.
            short=processes == 4 and evenly,
        )


def rows(calls):
    for strictness in POLICIES:
        for limiter in LIMITERS:
            short = strictness == 10 and limiter.name not in NOT_KEPT
            yield bulk(limiter, strictness, calls, short=short)
    for processes in (4, 8):
        for limiter in LIMITERS:
            # Without a burst, most requests come too early if clients do not know of each other.
            if limiter.exact:
                continue
            yield bulk(limiter, 10, calls, processes)
    yield from faults()
