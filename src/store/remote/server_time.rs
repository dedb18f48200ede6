//! An estimate of the server's clock, from its answers.

/// For how long, in nanoseconds, the best answer counts for [`ServerTime::estimate`]: clocks drift.
const FRESH: u64 = 10_000_000_000;

/// How far the server's clock is ahead of this process's clock.
///
/// An answer that shows the time `t` was written after the call was sent and before the answer
/// arrived. So the server's clock was ahead by at least `t - arrived` and at most `t - sent`.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerTime {
    /// A lower bound of the lead in microseconds; `None` before the first answer. It is kept until
    /// an answer contradicts it: a larger bound is known then, or the server's clock was set back
    /// or runs slower than ours.
    ahead: Option<i64>,
    /// The most exact answer of the last ten seconds.
    best: Option<Best>,
}

#[derive(Clone, Copy, Debug)]
struct Best {
    middle: i64,
    round_trip: u64,
    arrived: u64,
}

/// When a call was sent and when its answer arrived, in nanoseconds of this process's clock, and
/// the server's time in the answer, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) sent: u64,
    pub(super) arrived: u64,
    pub(super) shown: i64,
}

impl ServerTime {
    pub(super) fn learn(&mut self, Sighting { sent, arrived, shown }: Sighting) {
        // What a server shows may be nonsense.
        let before = |time| shown.saturating_sub(micros(time));
        let (least, most) = (before(arrived), before(sent));
        self.ahead = Some(match self.ahead {
            Some(ahead) if (least..=most).contains(&ahead) => ahead,
            _ => least,
        });
        let round_trip = arrived.saturating_sub(sent);
        let keep = self.best.is_some_and(|best| {
            best.round_trip < round_trip
                && arrived.saturating_sub(best.arrived) < FRESH
                && (least..=most).contains(&best.middle)
        });
        if !keep {
            self.best = Some(Best { middle: least + (most - least) / 2, round_trip, arrived });
        }
    }

    /// The server's time at `now`, in microseconds since the epoch; 0 if it is unknown. It may be a
    /// little early, and is late only if the server's clock was set back since the last answer.
    pub(super) fn at(&self, now: u64) -> i64 {
        self.ahead.map_or(0, |ahead| ahead.saturating_add(micros(now)).max(1))
    }

    /// The server's time at `now` as exactly as it is known: half the round trip of the best answer
    /// is the error. 0 if it is unknown.
    pub(super) fn estimate(&self, now: u64) -> i64 {
        self.best.map_or(0, |best| best.middle.saturating_add(micros(now)).max(1))
    }
}

fn micros(nanos: u64) -> i64 {
    i64::try_from(nanos / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{ServerTime, Sighting};

    const EPOCH: i64 = 1_795_000_000_000_000;

    fn seen(sent: u64, arrived: u64, shown: i64) -> Sighting {
        Sighting { sent: sent * 1000, arrived: arrived * 1000, shown }
    }

    #[test]
    fn it_is_never_ahead_of_a_server_whose_clock_goes_steadily() {
        let (mut time, later) = (ServerTime::default(), 10_000_000);
        assert_eq!(time.at(later), 0);
        // The first answer is written just before it arrives, the second just after its call was
        // sent.
        time.learn(seen(1000, 2000, EPOCH + 1900));
        assert_eq!(time.at(later), EPOCH + 9900);
        time.learn(seen(2000, 3000, EPOCH + 2100));
        assert_eq!(time.at(later), EPOCH + 9900);
    }

    #[test]
    fn it_follows_a_clock_that_is_set() {
        let mut time = ServerTime::default();
        for shown in [EPOCH, EPOCH + 3_600_000_000, EPOCH - 3_600_000_000] {
            time.learn(seen(0, 100, shown));
            assert_eq!((time.at(100_000), time.estimate(100_000)), (shown, shown + 50));
        }
    }

    #[test]
    fn any_time_is_believed_and_contradicted_by_the_next() {
        let mut time = ServerTime::default();
        for shown in [i64::MAX, i64::MIN, 0, EPOCH] {
            time.learn(seen(0, 100, shown));
            assert!(time.at(1_000_000) >= 1 && time.estimate(1_000_000) >= 1);
        }
        assert_eq!((time.at(100_000), time.estimate(100_000)), (EPOCH, EPOCH + 50));
    }

    #[test]
    fn the_estimate_is_that_of_the_shortest_round_trip_of_late() {
        let mut time = ServerTime::default();
        time.learn(seen(0, 1000, EPOCH + 500));
        time.learn(seen(2000, 2100, EPOCH + 2080));
        time.learn(seen(3000, 3900, EPOCH + 3100));
        assert_eq!(time.estimate(5_000_000), EPOCH + 5030);
        // After ten seconds the next answer counts, however long it took.
        time.learn(seen(11_000_000, 11_002_000, EPOCH + 11_001_500));
        assert_eq!(time.estimate(12_000_000_000), EPOCH + 12_000_500);
    }
}
