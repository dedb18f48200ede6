//! The server's clock.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A time in nanoseconds, or a difference of two.
type Nanos = i128;

/// How much later than by the system's clock a point in time may be waited for.
const TENTH: Nanos = 100_000_000;

const SECOND: Nanos = 1_000_000_000;

/// What is known of the server's clock, from all exchanges with the server.
///
/// `Date` has whole seconds. But at some time between sending the request and receiving the
/// response, the server's clock was in that second, so each exchange bounds the difference between
/// the two clocks. All bounds together are narrower.
#[derive(Debug)]
pub(in crate::client) struct ServerClock {
    /// From which the times of requests are counted.
    origin: Instant,
    bounds: Mutex<Option<Bounds>>,
}

/// Between which limits the server's clock is ahead of this system's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    least: Nanos,
    most: Nanos,
    /// When these bounds were calculated, by this system's clock.
    at: Nanos,
}

impl ServerClock {
    /// A clock of which nothing is known yet. Times of requests are counted from `origin`.
    pub(in crate::client) fn new(origin: Instant) -> Self {
        Self { origin, bounds: Mutex::new(None) }
    }

    /// The server's time, as the time since 1970. A response to a request that was sent at
    /// `sent_at` has just been received, and was made at `date`.
    pub(super) fn now(&self, date: Option<Duration>, sent_at: u64) -> Duration {
        let now = system_clock();
        let took = self.origin.elapsed().saturating_sub(Duration::from_nanos(sent_at));
        let mut known = self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(date) = date {
            let bounds = Bounds::of(nanos(date), now - nanos(took), now);
            *known = Some(known.map_or(bounds, |known| known.narrowed(bounds)));
        }
        server_time(*known, now)
    }
}

/// The server's time by one response alone, which has just been received and was made at `date`.
pub(super) fn now_by(date: Option<Duration>) -> Duration {
    let now = system_clock();
    server_time(date.map(|date| Bounds::of(nanos(date), now, now)), now)
}

impl Bounds {
    /// The bounds that follow from one exchange.
    fn of(date: Nanos, sent: Nanos, received: Nanos) -> Self {
        Self { least: date - received, most: date + SECOND - sent, at: received }
    }

    /// These bounds and others, which are newer. If both can't be true, one of the clocks was set,
    /// or another server has answered: then the newer ones count alone.
    fn narrowed(self, newer: Self) -> Self {
        // A clock that nothing corrects loses or gains less than 1 s in an hour.
        let drift = newer.at.saturating_sub(self.at).max(0) / 4096;
        let least = newer.least.max(self.least - drift);
        let most = newer.most.min(self.most + drift);
        if least <= most { Self { least, most, ..newer } } else { newer }
    }
}

/// The server's time within its bounds, where the system's clock says `now`.
///
/// A clock that fits the bounds is taken to be right, since most are set by NTP, but for an error
/// of a tenth of a second at most. Otherwise it is the earliest possible time, so that no request
/// comes too early.
fn server_time(bounds: Option<Bounds>, now: Nanos) -> Duration {
    let ahead = match bounds {
        Some(bounds) if bounds.least <= 0 && bounds.most >= 0 => bounds.least.max(-TENTH),
        Some(bounds) => bounds.least,
        None => 0,
    };
    let nanos = u128::try_from(now + ahead).unwrap_or_default();
    super::later::duration(nanos)
}

fn nanos(time: Duration) -> Nanos {
    Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX)
}

/// The time of the system's clock since 1970. Where tokio's time was paused and advanced, in tests,
/// the clock goes on with it.
fn system_clock() -> Nanos {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (tokio, real) = (Instant::now().into_std(), std::time::Instant::now());
    let advanced = nanos(tokio.saturating_duration_since(real));
    nanos(since_1970) + advanced - nanos(real.saturating_duration_since(tokio))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: Nanos = 1_000_000;

    /// Some time in the year 2026, by the system's clock.
    const START: Nanos = 1_796_000_000 * SECOND;

    /// The estimate after exchanges that begin and end at these times, counted in milliseconds
    /// from the start, with the server's clock ahead by so many milliseconds. Returns how far the
    /// estimate is ahead of the server's real time.
    fn error(ahead: i64, exchanges: &[(i64, i64, i64)]) -> i64 {
        let ahead = Nanos::from(ahead) * MILLI;
        let mut bounds: Option<Bounds> = None;
        let mut now = START;
        for &(sent, made, received) in exchanges {
            let at = |millis: i64| START + Nanos::from(millis) * MILLI;
            now = at(received);
            let date = (at(made) + ahead).div_euclid(SECOND) * SECOND;
            let newer = Bounds::of(date, at(sent), now);
            bounds = Some(bounds.map_or(newer, |known| known.narrowed(newer)));
        }
        let error = nanos(server_time(bounds, now)) - (now + ahead);
        i64::try_from(error / MILLI).unwrap_or(i64::MAX)
    }

    #[test]
    fn a_system_clock_that_is_right_gives_the_tenth_of_a_second() {
        for made in [0, 1, 250, 500, 999] {
            let error = error(0, &[(made - 10, made, made + 10)]);
            assert!((-100..=0).contains(&error), "{error} ms at {made} ms");
        }
        // Closely after the second begins, it is more precise.
        assert_eq!(error(0, &[(-10, 20, 50)]), -50);
    }

    #[test]
    fn a_system_clock_that_is_wrong_is_corrected_by_each_exchange() {
        for ahead in [-3_600_000, -5432, 5432, 3_600_000] {
            let first = error(ahead, &[(0, 5, 10)]);
            assert!((-1010..=0).contains(&first), "{first} ms with {ahead} ms");
            // The dates of exchanges at all tenths of a second.
            let exchanges: Vec<_> =
                (0..10).map(|it| (it * 1100, it * 1100 + 5, it * 1100 + 10)).collect();
            let last = error(ahead, &exchanges);
            assert!((-115..=0).contains(&last), "{last} ms with {ahead} ms");
        }
    }

    #[test]
    fn a_clock_that_was_set_starts_anew() {
        let bounds = |date: Nanos, at: Nanos| Bounds::of(START + date * SECOND, at, at);
        let first = bounds(0, START);
        for seconds in [-3600, -2, 2, 3600] {
            let second = bounds(seconds, START + SECOND / 10);
            assert_eq!(first.narrowed(second), second, "{seconds} s");
        }
    }

    #[test]
    fn without_a_date_the_system_clock_counts() {
        assert_eq!(nanos(server_time(None, START)), START);
        let clock = ServerClock::new(Instant::now());
        let real = nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        assert!((nanos(clock.now(None, 0)) - real).abs() < SECOND);
        assert!((nanos(now_by(None)) - real).abs() < SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_goes_on_with_the_time_of_a_test() {
        let before = system_clock();
        tokio::time::advance(Duration::from_secs(3600)).await;
        let passed = system_clock() - before;
        assert!((passed - 3600 * SECOND).abs() < SECOND, "{passed} ns");
    }

    proptest! {
        // Whatever the clocks say, the estimate is never ahead by more than the system's clock is,
        // and then less than the one second that fits the bounds.
        #[test]
        fn the_estimate_is_not_too_late(
            ahead in prop_oneof![-5000..5000_i64, -100_000_000..100_000_000_i64],
            exchanges in prop::collection::vec((0..5000_i64, 0..2000_i64, 0..2000_i64), 1..20),
        ) {
            let mut start = 0;
            let exchanges: Vec<_> = exchanges
                .into_iter()
                .map(|(after, there, back)| {
                    let sent = start + after;
                    start = sent + there + back;
                    (sent, sent + there, start)
                })
                .collect();
            let (_, made, received) = *exchanges.last().unwrap_or(&(0, 0, 0));
            let error = error(ahead, &exchanges);
            prop_assert!(error <= (-ahead).max(0), "{error} ms");
            // It is late by no more than the last exchange allows alone.
            prop_assert!(error >= -1000 - (received - made) - 1, "{error} ms");
        }
    }
}
