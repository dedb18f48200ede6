//! Why a request is not sent, and what can be wrong with the settings of a pacer.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::readable::Readable;
use crate::values::{Endpoint, LimitName};

/// A request was not sent, because it would have had to wait too long, or because too many requests
/// were waiting.
///
/// The client's error is a [`BoxError`](tower::BoxError), from which this error can be downcast:
///
/// ```
/// use bolna_rate_limit::client::WaitError;
/// use tower::BoxError;
///
/// fn explain(error: &BoxError) {
///     if let Some(error) = error.downcast_ref::<WaitError>() {
///         eprintln!("try {} again in {:?}", error.endpoint(), error.wait());
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitError {
    endpoint: Endpoint,
    wait: Duration,
    lack: Lack,
    bound: Bound,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    /// The limit that it waits for, unless only the server knows it.
    pub(super) limit: Option<LimitName>,
    /// How many requests may be in flight, if it waits for one of them to end.
    pub(super) in_flight: Option<u64>,
}

/// What a request would have exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// The number of waiting requests.
    Waiting(usize),
    /// The longest wait.
    Wait(Duration),
    /// The longest wait of this request.
    OwnWait(Duration),
    /// The time for retries.
    Retries,
}

impl Bound {
    /// Whether a request may wait for so long.
    fn is_at_least(self, wait: Duration) -> bool {
        matches!(self, Self::Wait(longest) | Self::OwnWait(longest) if wait <= longest)
    }
}

/// The shortest wait that an error reports, so that no caller comes back at once.
const SHORTEST: Duration = Duration::from_millis(1);

impl WaitError {
    /// The request would still have to wait for so many nanoseconds.
    pub(super) const fn new(endpoint: Endpoint, wait: u64, lack: Lack, bound: Bound) -> Self {
        let wait = Duration::from_nanos(wait);
        // The units may be there, and taken by requests that are about to be sent.
        let is_unknown = lack.in_flight.is_some();
        let wait = if wait.is_zero() && !is_unknown { SHORTEST } else { wait };
        Self { endpoint, wait, lack, bound }
    }

    /// The endpoint whose units the request would have used.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The limit for which the request had to wait: the one that takes the longest, or one of
    /// requests in flight. `None` if it is a limit that is not in the policy and was reported by
    /// the server.
    #[must_use]
    pub const fn limit(&self) -> Option<LimitName> {
        self.lack.limit
    }

    /// Whether the request had to wait until another one ends, and not for units that come back
    /// with time.
    #[must_use]
    pub const fn is_concurrent(&self) -> bool {
        self.lack.in_flight.is_some()
    }

    /// How long the request would still have had to wait when it failed, as far as was known then,
    /// at least 1 ms. It is not known when a request in flight ends, so this may be zero if the
    /// request [waited for one](Self::is_concurrent).
    #[must_use]
    pub const fn wait(&self) -> Duration {
        self.wait
    }

    /// Whether the request had been refused before, and could not be sent again within the
    /// [time](crate::client::RetryPolicyBuilder::total_time) that its retries may take.
    #[must_use]
    pub const fn is_retry(&self) -> bool {
        matches!(self.bound, Bound::Retries)
    }

    /// Whether the request failed because the [number](super::PacerBuilder::max_waiting) of waiting
    /// requests had reached its bound, and not because of the
    /// [time](super::PacerBuilder::max_wait) or its own [`MaxWait`](crate::client::MaxWait).
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self.bound, Bound::Waiting(_))
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, wait, lack, bound } = self;
        write!(f, "not sent: a request to {:?} would have to wait ", endpoint.name())?;
        match lack.in_flight {
            Some(1) => f.write_str("until the 1 request in flight ends"),
            Some(most) => write!(f, "until one of {most} requests in flight ends"),
            // It has waited for a part of that time already.
            None if bound.is_at_least(*wait) => write!(f, "for another {}", Readable::Wait(*wait)),
            None => write!(f, "for {}", Readable::Wait(*wait)),
        }?;
        // An endpoint's own limit has its name.
        match lack.limit.filter(|limit| limit.name() != endpoint.name()) {
            Some(limit) => write!(f, " by the limit {:?}, ", limit.name()),
            None if lack.in_flight.is_some() => f.write_str(" by a limit of the server, "),
            None => f.write_str(", "),
        }?;
        match bound {
            Bound::Waiting(1) => {
                f.write_str("and 1 request waits already, the most that this client allows")
            }
            Bound::Waiting(most) => {
                write!(f, "and {most} requests wait already, the most that this client allows")
            }
            Bound::Retries => {
                f.write_str("but it is a retry, and the time for its retries ends before that")
            }
            Bound::Wait(longest) => {
                write!(f, "and this client allows at most {}", Readable::Bound(*longest))
            }
            Bound::OwnWait(Duration::ZERO) => f.write_str("and its MaxWait is zero"),
            Bound::OwnWait(longest) => {
                write!(f, "and its MaxWait is {}", Readable::Bound(*longest))
            }
        }
    }
}

impl Error for WaitError {}

/// Why a pacer can't be built.
///
/// ```
/// use bolna_rate_limit::client::Pacer;
///
/// let error = Pacer::builder().hosts(["https://api.bolna.ai"]).build().unwrap_err();
/// let text = r#"hosts has "https://api.bolna.ai", so requests to it would not be paced: "#;
/// assert!(error.to_string().starts_with(text));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PacerError {
    /// `max_waiting` is 0: no request could wait.
    ZeroWaiting,
    /// `max_wait` is 0 s: a request could wait for no time.
    ZeroWait,
    /// `max_pause` is 0 s: a refused request would be sent again at once.
    ZeroPause,
    /// `bulk_share` is 100 % or more: no interactive request would be sent while bulk ones wait.
    BulkShare(u8),
    /// `hosts` has this text, which is not a host, nor a host and a port.
    Host(String),
    /// `hosts` is empty: no request would be paced.
    NoHosts,
}

impl fmt::Display for PacerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BulkShare(percent) => {
                return write!(
                    f,
                    "bulk_share is {percent} %, so no interactive request would be sent while \
                     bulk ones wait: it must be at most 99 %"
                );
            }
            Self::Host(text) => {
                return write!(
                    f,
                    "hosts has {text:?}, so requests to it would not be paced: each must be a \
                     host, or a host and a port, without a scheme or a path, such as \
                     \"api.bolna.ai\" or \"127.0.0.1:3000\""
                );
            }
            Self::NoHosts => {
                "hosts is empty, so no request would be paced: name at least one, or leave it out \
                 to pace requests to all hosts"
            }
            Self::ZeroWaiting => {
                "max_waiting is 0, so every request that can't be sent at once would fail: it \
                 must be at least 1 request"
            }
            Self::ZeroWait => {
                "max_wait is 0 s, so every request that can't be sent at once would fail: it \
                 must be at least 1 ns; to let single requests fail at once, give them \
                 MaxWait::ZERO"
            }
            Self::ZeroPause => {
                "max_pause is 0 s, so the next request would be sent at once after each refusal: \
                 it must be at least 1 ns; set 1 s or more, or leave it out for the default of 1 \
                 hour"
            }
        })
    }
}

impl Error for PacerError {}
