//! What can be wrong with the settings of a retry policy.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Why a retry policy can't be built. The text names the value, the rule that it breaks, and what
/// to do.
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::client::{RetryPolicy, RetryPolicyError};
///
/// let (base, max) = (Duration::from_secs(20), Duration::from_secs(10));
/// let error = RetryPolicy::builder().backoff(base, max).build().unwrap_err();
/// assert_eq!(error, RetryPolicyError::BackoffAboveMax { base, max });
/// assert!(error.to_string().starts_with("backoff base 20s is longer than its maximum 10s: "));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryPolicyError {
    /// 0 attempts: no request would be sent.
    ZeroAttempts,
    /// A total time of 0 s: no retry could begin.
    ZeroTotalTime,
    /// A backoff with a base of 0 s: no delay would be random.
    ZeroBackoff,
    /// A backoff with a base longer than its maximum.
    BackoffAboveMax {
        /// The longest delay before the first retry.
        base: Duration,
        /// The longest delay before any retry.
        max: Duration,
    },
}

impl fmt::Display for RetryPolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroAttempts => f.write_str(
                "attempts is 0, so no request would be sent: the first send counts too, and 1 \
                 means \
                 that no request is sent again",
            ),
            Self::ZeroTotalTime => f.write_str(
                "total time is 0 s, so no retry could begin: it must be at least 1 ns; to retry \
                 nothing, set attempts to 1",
            ),
            Self::ZeroBackoff => f.write_str(
                "backoff base is 0 s, so requests that were refused together would be retried \
                 together: it must be \
                 at least 1 ns; the default is 100 ms",
            ),
            Self::BackoffAboveMax { base, max } => write!(
                f,
                "backoff base {base:?} is longer than its maximum {max:?}: the base is the longest \
                 delay before the first retry, the maximum the longest before any; give the \
                 shorter \
                 one first",
            ),
        }
    }
}

impl Error for RetryPolicyError {}
