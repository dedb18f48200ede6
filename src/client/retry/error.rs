//! What can be wrong with a retry policy.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Why a retry policy can't be built: the value, the rule that it breaks, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryPolicyError {
    /// 0 attempts: not even the first request could be sent.
    ZeroAttempts,
    /// A total time of 0 s.
    ZeroTotalTime,
    /// A backoff that starts with 0 s, and stays there.
    ZeroBackoff,
    /// A backoff that starts above its maximum.
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
                "attempts is 0, which would send nothing: it counts the first request too, so 1 means that none is sent again",
            ),
            Self::ZeroTotalTime => f.write_str(
                "total time is 0 s, in which no retry could begin: it must be at least 1 ns; to send nothing again, set \
                 attempts to 1",
            ),
            Self::ZeroBackoff => f.write_str(
                "backoff base is 0 s, so all who were refused would come back at once: it must be at least 1 ns; the \
                 default is 100 ms",
            ),
            Self::BackoffAboveMax { base, max } => write!(
                f,
                "backoff base {base:?} is longer than its maximum, {max:?}: the first is the longest delay before the first \
                 retry, the second before any; give the shorter one first",
            ),
        }
    }
}

impl Error for RetryPolicyError {}
