//! An estimate of the server's clock, from its replies.

use std::time::{Duration, Instant};

/// A lower bound of how far the server's clock is ahead of this process's clock.
///
/// A reply that shows the time `t` was written after the call was sent and before the reply
/// arrived. So the server's clock was ahead by at least `t - arrived` and at most `t - sent`. The
/// bound is kept until a reply contradicts it: a larger bound is known then, or the server's clock
/// was set back or runs slower than ours.
#[derive(Debug)]
pub(super) struct ServerTime {
    origin: Instant,
    /// The lower bound in microseconds; `None` before the first reply.
    ahead: Option<i64>,
}

impl ServerTime {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), ahead: None }
    }

    /// Takes the server's time that a reply has shown, in microseconds, with the times at which the
    /// call was sent and the reply arrived.
    pub(super) fn learn(&mut self, sent: Instant, arrived: Instant, shown: i64) {
        let least = shown - self.micros(arrived);
        let most = shown - self.micros(sent);
        self.ahead = Some(match self.ahead {
            Some(ahead) if (least..=most).contains(&ahead) => ahead,
            _ => least,
        });
    }

    /// The server's time at `instant`, in microseconds since the epoch; 0 if it is unknown. It may
    /// be a little early, and is late only if the server's clock was set back since the last reply.
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
        // The first reply is written just before it arrives, the second just after its call was
        // sent.
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
