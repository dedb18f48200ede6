//! Why a request is not sent, and what can be wrong with a pacer.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::endpoint::Endpoint;

/// A request was not sent, since it would have had to wait for longer, or among more others, than
/// the client allows.
///
/// The client's error is a [`BoxError`](tower::BoxError), in which this can be found:
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

    /// What the request would have drawn on.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// How long the request would have had to wait from now on, as far as is known now.
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

    /// Whether it is the [number](super::PacerBuilder::max_waiting) of those who wait that was
    /// reached, rather than the [time](super::PacerBuilder::max_wait).
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
            Bound::Waiting(1) => f.write_str(
                "and another one waits already, which is the most that this client allows",
            ),
            Bound::Waiting(most) => {
                write!(f, "and {most} wait already, which are the most that this client allows")
            }
            Bound::Retries => f.write_str(
                "and it has been refused before and may not be sent again as late as that",
            ),
            Bound::Wait(longest) => write!(f, "and this client allows at most {longest:.1?}"),
        }
    }
}

impl Error for WaitError {}

/// What is wrong with the settings of a pacer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PacerError {
    /// No request may wait.
    ZeroWaiting,
    /// A request may wait for no time.
    ZeroWait,
}

impl fmt::Display for PacerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroWaiting => {
                "max_waiting is 0, so whatever can't be sent at once would fail: it must be at least 1 request"
            }
            Self::ZeroWait => "max_wait is 0 s, so whatever can't be sent at once would fail: it must be at least 1 ns",
        })
    }
}

impl Error for PacerError {}
