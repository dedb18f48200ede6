//! Why one request was not decided.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::store::StoreError;

/// Why one request was not decided. No text of it holds a secret or an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no connection.
    Lost,
    /// The answer did not come within the deadline.
    NoAnswer(Duration),
    /// The call reached the server after the deadline, and nothing was changed.
    Late,
    /// This many requests are waiting already.
    TooMany(usize),
    /// The bucket is served by another node, which the topology does not show yet.
    Moved,
    /// No node serves the bucket.
    Unserved,
    /// A key holds something that is no bucket. The text shows the pattern of such keys: the key
    /// with a `*` for each id.
    Foreign(Arc<str>),
    /// The server answered with an error.
    Server {
        /// The word for it: see [`StoreError::kind`].
        kind: &'static str,
        /// The server, what is wrong with it, and what to do.
        reason: Arc<str>,
    },
}

impl Failure {
    /// One of the kinds that [`StoreError::kind`] documents.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::NoAnswer(_) => "no_answer",
            Self::Late => "late",
            Self::TooMany(_) => "too_many",
            Self::Moved => "moved",
            Self::Unserved => "unserved",
            Self::Foreign(_) => "foreign_key",
            Self::Server { kind, .. } => kind,
        }
    }

    /// Whether it says nothing about the next request.
    pub(super) const fn is_of_request(&self) -> bool {
        match self {
            Self::TooMany(_) | Self::Moved | Self::Foreign(_) => true,
            Self::Lost | Self::NoAnswer(_) | Self::Late | Self::Unserved | Self::Server { .. } => {
                false
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str(
                "there is no connection to the server; the store reconnects in the background",
            ),
            Self::NoAnswer(deadline) => {
                write!(f, "the server has not answered within {deadline:?}")
            }
            Self::Late => {
                f.write_str("the call reached the server after its deadline, and changed nothing")
            }
            Self::TooMany(most) => write!(f, "{most} requests are already waiting for the server"),
            Self::Moved => f.write_str("the bucket has moved to another node of the cluster"),
            Self::Unserved => f.write_str("no node of the cluster serves the bucket"),
            Self::Foreign(pattern) => write!(
                f,
                "a key {pattern} holds something that is no bucket: delete it, or choose another \
                 prefix"
            ),
            Self::Server { reason, .. } => f.write_str(reason),
        }
    }
}

impl Error for Failure {}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let kind = failure.kind();
        let error =
            if failure.is_of_request() { Self::of_request(failure) } else { Self::new(failure) };
        error.of_kind(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_the_stores_or_the_requests_and_keeps_its_kind() {
        let failures = [
            (Failure::Lost, "lost", true),
            (Failure::NoAnswer(Duration::from_millis(25)), "no_answer", true),
            (Failure::Late, "late", true),
            (Failure::TooMany(8192), "too_many", false),
            (Failure::Moved, "moved", false),
            (Failure::Unserved, "unserved", true),
            (Failure::Foreign("bolna:2:{user:*}:call".into()), "foreign_key", false),
            (Failure::Server { kind: "busy", reason: "it is busy".into() }, "busy", true),
        ];
        for (failure, kind, of_store) in failures {
            let reason = failure.to_string();
            let error = StoreError::from(failure);
            assert_eq!((error.kind(), error.is_of_store()), (kind, of_store));
            let told = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            assert_eq!(told, reason);
        }
    }
}
