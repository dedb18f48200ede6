//! Why a request is not sent, and what can be wrong with the settings of a pacer.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::values::Endpoint;

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
    bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Waiting(usize),
    Wait(Duration),
    Retries,
}

impl WaitError {
    pub(super) const fn full(endpoint: Endpoint, wait: Duration, max_waiting: usize) -> Self {
        Self { endpoint, wait, bound: Bound::Waiting(max_waiting) }
    }

    pub(super) const fn too_long(endpoint: Endpoint, wait: Duration, max_wait: Duration) -> Self {
        Self { endpoint, wait, bound: Bound::Wait(max_wait) }
    }

    pub(super) const fn too_late(endpoint: Endpoint, wait: Duration) -> Self {
        Self { endpoint, wait, bound: Bound::Retries }
    }

    /// The endpoint whose units the request would have used.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// How long the request would still have had to wait when it failed, as far as was known then.
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
    /// [time](super::PacerBuilder::max_wait).
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self.bound, Bound::Waiting(_))
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, wait, bound } = self;
        write!(
            f,
            "not sent: a request to {:?} would have to wait for {wait:.1?}, ",
            endpoint.name()
        )?;
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
            Bound::Wait(longest) => write!(f, "and this client allows at most {longest:.1?}"),
        }
    }
}

impl Error for WaitError {}

/// Why a pacer can't be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PacerError {
    /// `max_waiting` is 0: no request could wait.
    ZeroWaiting,
    /// `max_wait` is 0 s: a request could wait for no time.
    ZeroWait,
}

impl fmt::Display for PacerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroWaiting => {
                "max_waiting is 0, so every request that can't be sent at once would fail: it \
                 must be at least 1 request"
            }
            Self::ZeroWait => {
                "max_wait is 0 s, so every request that can't be sent at once would fail: it \
                 must be at least 1 ns"
            }
        })
    }
}

impl Error for PacerError {}
