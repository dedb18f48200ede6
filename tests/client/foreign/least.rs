//! What a client would need that knows the server.

use super::algorithms::{Algorithm, Limit};
use super::{Nanos, SECOND};

/// What is given, of which the client can change nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub(super) limit: Limit,
    pub(super) calls: usize,
    /// When the job begins, since 1970.
    pub(super) start: Nanos,
    /// How long a request takes to the server, at least, and its response back.
    pub(super) trip: Nanos,
    /// How long the server serves a request that is admitted.
    pub(super) service: Nanos,
    /// What the policies of all clients together allow: requests per second, and at once.
    pub(super) policy: (Nanos, u64),
}

/// The least time in which all calls have their answers.
///
/// It is reached by sending each request as soon as it will be admitted, which none of the
/// algorithms punishes: what is admitted by a time is never more if something was not used before.
pub(super) fn least(given: Given) -> Nanos {
    let Given { limit, calls, start, trip, service, policy: (interval, burst) } = given;
    let calls = u64::try_from(calls).expect("a number");
    if matches!(limit.algorithm, Algorithm::Concurrency) {
        return calls.div_ceil(limit.requests) * service + 2 * trip;
    }
    let mut limiter = limit.limiter();
    let (mut now, mut tat) = (start + trip, 0);
    let mut last = 0;
    for _ in 0..calls {
        now = now.max((tat + trip).saturating_sub((burst - 1) * interval));
        while limiter.wait(now) > 0 {
            now += limiter.wait(now);
        }
        tat = tat.max(now - trip) + interval;
        last = last.max(now + limiter.admit(now));
    }
    last + service + trip - start
}

/// A ratio, in thousandths.
pub(super) fn ratio(part: Nanos, of: Nanos) -> u64 {
    let thousandths = u128::from(part) * 1000 / u128::from(of.max(1));
    thousandths.try_into().unwrap_or(u64::MAX)
}

/// A ratio as it is read.
pub(super) fn shown(thousandths: u64) -> String {
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

/// Seconds as they are read.
pub(super) fn seconds(time: Nanos) -> String {
    format!("{}.{}", time / SECOND, time % SECOND / (SECOND / 10))
}
