//! What the client logs with `tracing`, if it has that feature.
//!
//! A subscriber may run any code, even a request through the same client. So under a lock events
//! are only collected, and they are logged after it.

use std::time::Duration;

use http::StatusCode;

use crate::values::{Endpoint, LimitName};

/// Something that happened to an endpoint or one of its limits.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "only logs read the fields"))]
pub(super) enum Event {
    /// No request is sent for that time. Without a status, a response that was not a refusal has
    /// reported that no units are left.
    Paused {
        endpoint: Endpoint,
        wait: Duration,
        status: Option<StatusCode>,
        /// The wait that the refusal has named.
        named: Option<Duration>,
        in_a_row: u32,
    },
    /// A pause was ended by hand, so much earlier than it was to end.
    Resumed { endpoint: Endpoint, early: Duration },
    /// For that time, no more requests may be in flight.
    Lowered { endpoint: Endpoint, status: StatusCode, most: u64, wait: Duration, in_a_row: u32 },
    /// Refusals have taught a rate. Times are those between two requests.
    Learned { limit: LimitName, rate: Measured, is_first: bool },
    /// The server admits as many requests as the policy.
    NotStricter { limit: LimitName },
    /// What refusals have taught is too old, or forgotten by hand.
    RateForgotten { limit: LimitName, is_by_hand: bool },
    /// The server has reported a quota that is stricter than the policy, or than before.
    QuotaAdopted { limit: LimitName, burst: u32, window: Option<Duration> },
    /// The quota of the policy counts again: the server has reported one that is not stricter, or
    /// none for an hour, or it is forgotten by hand.
    QuotaDropped { limit: LimitName },
    /// The server has reported another limit of requests in flight than before. `None` if the
    /// policy has no such limit.
    ConcurrencyAdopted { endpoint: Endpoint, limit: Option<LimitName>, most: u64 },
    /// Requests were not sent, because they would have waited too long, or too many wait.
    Unsent { endpoint: Endpoint, requests: u64, wait: Duration, limit: Option<LimitName> },
}

/// A rate that was measured between refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    /// The time between two requests that the server has admitted, on average.
    pub(super) interval: Duration,
    /// The one that was adopted, between this and the one before.
    pub(super) plateau: Duration,
    /// The one that begins now.
    pub(super) begins: Duration,
    /// From how many requests, in which time.
    pub(super) requests: u64,
    pub(super) time: Duration,
}

#[cfg(feature = "tracing")]
pub(super) use on::{Events, Pending, Retries};

#[cfg(not(feature = "tracing"))]
pub(super) use off::{Events, Pending, Retries};

#[cfg(not(feature = "tracing"))]
mod off {
    use std::time::Duration;

    use http::StatusCode;

    use super::Event;
    use crate::values::Endpoint;

    #[derive(Debug, Default)]
    pub(in crate::client) struct Events {}

    #[derive(Debug, Default)]
    pub(in crate::client) struct Pending {}

    #[derive(Debug, Default)]
    pub(in crate::client) struct Retries {}

    impl Events {
        pub(in crate::client) const fn add(&mut self, _now: u64, _event: Event) {}

        pub(in crate::client) const fn drain(&mut self) -> Pending {
            Pending {}
        }
    }

    impl Pending {
        pub(in crate::client) const fn log(self) {}
    }

    impl Retries {
        pub(in crate::client) const fn planned(
            &self,
            _endpoint: Option<Endpoint>,
            _status: Option<StatusCode>,
            _attempt: u32,
            _delay: Duration,
            _left: Duration,
        ) {
        }
    }
}

#[cfg(feature = "tracing")]
mod on {
    use std::mem;
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::time::Duration;

    use http::StatusCode;
    use tokio::time::Instant;
    use tracing::{Level, debug, enabled, info};

    use super::{Event, Measured};
    use crate::client::usage::per_minute;
    use crate::values::Endpoint;

    const TARGET: &str = "bolna_rate_limit::client";

    /// A pause of at least this time is logged at `info`, since people may notice it.
    const LONG: Duration = Duration::from_secs(1);

    const KINDS: usize = 10;

    /// The events of a group of endpoints that were not logged yet.
    #[derive(Debug, Default)]
    pub(in crate::client) struct Events {
        pending: Pending,
        throttles: [Throttle; KINDS],
    }

    /// Events to be logged after the lock is released.
    #[derive(Debug, Default)]
    #[must_use = "events are to be logged"]
    pub(in crate::client) struct Pending(Vec<(Event, u64)>);

    /// The retries of all requests with one retry policy.
    #[derive(Debug, Default)]
    pub(in crate::client) struct Retries {
        origin: OnceLock<Instant>,
        throttle: Mutex<Throttle>,
    }

    /// Admits ten lines at once, and one a second after that.
    #[derive(Clone, Copy, Debug, Default)]
    struct Throttle {
        /// When there are ten lines again.
        full_at: u64,
        left_out: u64,
    }

    impl Events {
        #[cold]
        pub(in crate::client) fn add(&mut self, now: u64, event: Event) {
            if let Some(left_out) = self.throttles[event.kind()].admit(now) {
                self.pending.0.push((event, left_out));
            }
        }

        #[inline]
        pub(in crate::client) fn drain(&mut self) -> Pending {
            if self.pending.0.is_empty() {
                Pending::default()
            } else {
                mem::take(&mut self.pending)
            }
        }
    }

    impl Pending {
        /// Logs the events. No lock may be held.
        #[inline]
        pub(in crate::client) fn log(self) {
            if !self.0.is_empty() {
                self.log_all();
            }
        }

        #[cold]
        fn log_all(self) {
            self.0.into_iter().for_each(|(event, left_out)| event.log(left_out));
        }
    }

    impl Retries {
        /// A retry is planned.
        pub(in crate::client) fn planned(
            &self,
            endpoint: Option<Endpoint>,
            status: Option<StatusCode>,
            attempt: u32,
            delay: Duration,
            left: Duration,
        ) {
            if !enabled!(target: TARGET, Level::DEBUG) {
                return;
            }
            let now = self.origin.get_or_init(Instant::now).elapsed().as_nanos();
            let now = u64::try_from(now).unwrap_or(u64::MAX);
            let admitted = self.throttle.lock().unwrap_or_else(PoisonError::into_inner).admit(now);
            let Some(left_out) = admitted else { return };
            debug!(
                target: TARGET,
                event = "retry",
                endpoint = endpoint.map(|endpoint| endpoint.name()),
                status = status.map(|status| status.as_u16()),
                attempt,
                delay_ms = millis(delay),
                left_ms = millis(left),
                left_out,
                "{}",
                if status.is_some() {
                    "a request was refused, and is sent again"
                } else {
                    "a request got no response, and is sent again"
                },
            );
        }
    }

    impl Throttle {
        /// The number of lines that were left out before this one, or `None` if this one is left
        /// out.
        fn admit(&mut self, now: u64) -> Option<u64> {
            const SECOND: u64 = 1_000_000_000;
            let full_at = self.full_at.max(now).saturating_add(SECOND);
            if full_at - now > 10 * SECOND {
                self.left_out += 1;
                return None;
            }
            self.full_at = full_at;
            Some(mem::take(&mut self.left_out))
        }
    }

    /// Logs at `info` or else at `debug`.
    macro_rules! log {
        ($is_info:expr, $($rest:tt)*) => {
            if $is_info {
                info!(target: TARGET, $($rest)*)
            } else {
                debug!(target: TARGET, $($rest)*)
            }
        };
    }

    impl Event {
        const fn kind(&self) -> usize {
            match self {
                Self::Paused { .. } => 0,
                Self::Lowered { .. } => 1,
                Self::Learned { .. } => 2,
                Self::NotStricter { .. } => 3,
                Self::RateForgotten { .. } => 4,
                Self::QuotaAdopted { .. } => 5,
                Self::QuotaDropped { .. } => 6,
                Self::ConcurrencyAdopted { .. } => 7,
                Self::Resumed { .. } => 8,
                Self::Unsent { .. } => KINDS - 1,
            }
        }

        fn log(self, left_out: u64) {
            match self {
                Self::Paused { endpoint, wait, status, named, in_a_row } => log!(
                    wait >= LONG,
                    event = "paused",
                    endpoint = endpoint.name(),
                    pause_ms = millis(wait),
                    status = status.map(|status| status.as_u16()),
                    named_ms = named.map(millis),
                    in_a_row = status.map(|_| in_a_row),
                    left_out,
                    "{}",
                    if status.is_some() {
                        "the endpoint is paused: a request was refused"
                    } else {
                        "the endpoint is paused: the server reports that no units are left"
                    },
                ),
                Self::Resumed { endpoint, early } => info!(
                    target: TARGET,
                    event = "resumed",
                    endpoint = endpoint.name(),
                    early_ms = millis(early),
                    left_out,
                    "a pause of the endpoint was ended by hand",
                ),
                Self::Lowered { endpoint, status, most, wait, in_a_row } => log!(
                    wait >= LONG,
                    event = "lowered",
                    endpoint = endpoint.name(),
                    most,
                    for_ms = millis(wait),
                    status = status.as_u16(),
                    in_a_row,
                    left_out,
                    "no more requests may be in flight for now: a request was refused",
                ),
                Self::Learned { limit, rate, is_first } => {
                    let Measured { interval, plateau, begins, requests, time } = rate;
                    log!(
                        is_first,
                        event = "learned",
                        limit = limit.name(),
                        per_minute = rounded(begins),
                        plateau_per_minute = rounded(plateau),
                        measured_per_minute = rounded(interval),
                        from_requests = requests,
                        from_ms = millis(time),
                        left_out,
                        "the server admits fewer requests than the policy",
                    );
                }
                Self::NotStricter { limit } => info!(
                    target: TARGET,
                    event = "not_stricter",
                    limit = limit.name(),
                    left_out,
                    "the server admits as many requests as the policy",
                ),
                Self::RateForgotten { limit, is_by_hand } => info!(
                    target: TARGET,
                    event = "rate_forgotten",
                    limit = limit.name(),
                    left_out,
                    "{}",
                    if is_by_hand {
                        "the learned rate is forgotten by hand"
                    } else {
                        "the learned rate is forgotten: nothing was refused for an hour"
                    },
                ),
                Self::QuotaAdopted { limit, burst, window } => info!(
                    target: TARGET,
                    event = "quota_adopted",
                    limit = limit.name(),
                    burst,
                    window_ms = window.map(millis),
                    left_out,
                    "the server reports a stricter quota than the policy",
                ),
                Self::QuotaDropped { limit } => info!(
                    target: TARGET,
                    event = "quota_dropped",
                    limit = limit.name(),
                    left_out,
                    "the quota of the policy counts again",
                ),
                Self::ConcurrencyAdopted { endpoint, limit, most } => info!(
                    target: TARGET,
                    event = "concurrency_adopted",
                    endpoint = endpoint.name(),
                    limit = limit.map(|limit| limit.name()),
                    most,
                    left_out,
                    "the server reports another limit of requests in flight",
                ),
                Self::Unsent { endpoint, requests, wait, limit } => debug!(
                    target: TARGET,
                    event = "unsent",
                    endpoint = endpoint.name(),
                    requests,
                    wait_ms = millis(wait),
                    limit = limit.map(|limit| limit.name()),
                    left_out,
                    "requests were not sent: the wait or the queue would have been too long",
                ),
            }
        }
    }

    /// Rounded up, so that no wait is shown as none.
    fn millis(duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// The rate with two decimals.
    #[expect(clippy::float_arithmetic, reason = "a rate for people to read")]
    fn rounded(interval: Duration) -> f64 {
        (per_minute(interval) * 100.0).round() / 100.0
    }
}
