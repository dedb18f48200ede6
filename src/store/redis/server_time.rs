//! What the server's clock shows, as far as its replies tell.

use std::time::{Duration, Instant};

/// A lower bound of how far the server's clock is ahead of ours.
///
/// A reply that shows `t` was written between the sending of the call and its own arrival, so the
/// server's clock was ahead by at least `t - arrived` and at most `t - sent`. The largest lower
/// bound holds until a reply contradicts it, which means that the server's clock was set back, or
/// runs slower than ours.
#[derive(Debug)]
pub(super) struct ServerTime {
    origin: Instant,
    /// In microseconds; `None` before the first reply.
    ahead: Option<i64>,
}

impl ServerTime {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), ahead: None }
    }

    /// A call that was sent and answered then showed the server's time, in microseconds.
    pub(super) fn learn(&mut self, sent: Instant, arrived: Instant, shown: i64) {
        let least = shown - self.micros(arrived);
        let most = shown - self.micros(sent);
        self.ahead = Some(match self.ahead {
            Some(ahead) if (least..=most).contains(&ahead) => ahead,
            _ => least,
        });
    }

    /// What the server's clock shows at that time of ours, or a little earlier, unless it has been
    /// set back since the last reply: microseconds since the epoch, 0 if unknown.
    pub(super) fn at(&self, instant: Instant) -> i64 {
        self.ahead.map_or(0, |ahead| (ahead + self.micros(instant)).max(1))
    }

    fn micros(&self, instant: Instant) -> i64 {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        match instant.checked_duration_since(self.origin) {
            Some(since) => micros(since),
            None => -micros(self.origin.duration_since(instant)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::ServerTime;

    const EPOCH: i64 = 1_795_000_000_000_000;

    #[test]
    fn it_is_never_ahead_of_a_server_whose_clock_goes_steadily() {
        let mut time = ServerTime::new();
        let ours = |micros| time.origin + Duration::from_micros(micros);
        let (first, second, third, later) = (ours(1000), ours(2000), ours(3000), ours(10_000));
        assert_eq!(time.at(later), 0);
        // Written just before it arrived, then just after it was sent.
        time.learn(first, second, EPOCH + 1900);
        assert_eq!(time.at(later), EPOCH + 9900);
        time.learn(second, third, EPOCH + 2100);
        assert_eq!(time.at(later), EPOCH + 9900);
    }

    #[test]
    fn it_follows_a_clock_that_is_set() {
        let mut time = ServerTime::new();
        let (sent, arrived) = (time.origin, time.origin + Duration::from_micros(100));
        for shown in [EPOCH, EPOCH + 3_600_000_000, EPOCH - 3_600_000_000] {
            time.learn(sent, arrived, shown);
            assert_eq!(time.at(arrived), shown);
        }
    }
}
