//! Why one request was not decided by its server.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::store::{StoreError, StoreEvent};

/// Why one request was not decided. No text of it holds a secret or an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no connection.
    Lost,
    /// The answer did not come within the deadline.
    NoAnswer(Duration),
    /// Requests of this many principals are waiting already.
    TooMany(usize),
    /// This many corrections are waiting already.
    TooManyCorrections(usize),
    /// The bucket is on another node, which does not answer yet.
    Moved,
    /// No node serves the bucket.
    Unserved,
    /// A key holds something that is no bucket. The text shows the pattern of such keys: the key
    /// with a `*` for each id.
    Foreign(Arc<str>),
    /// The server answered with an error.
    Server(Reason),
}

/// An error of a server: what events and the errors of requests say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// The server, as it is named in texts.
    pub(super) server: Arc<str>,
    /// The [kind](StoreError::kind) of the errors of requests.
    pub(super) kind: &'static str,
    /// What is wrong, without the server's name.
    pub(super) detail: Arc<str>,
}

impl Reason {
    /// Whether the server has said that it refuses calls, so that it has not begun to carry out the
    /// one that it answers. A proxy, too, may answer with an error that is none of these, while its
    /// server carries out the call.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self.kind,
            "busy" | "out_of_memory" | "read_only" | "no_primary" | "wrong_password" | "no_scripts"
        )
    }

    /// The event that `server` is lost for this reason.
    pub(super) fn lost(&self, server: &Arc<str>) -> StoreEvent {
        let (kind, reason) = (self.kind, self.as_seen_from(server));
        StoreEvent::Lost { server: Some(Arc::clone(server)), kind, reason }
    }

    /// The event that `server` is still lost, and now for this reason.
    pub(super) fn still_lost(&self, server: &Arc<str>) -> StoreEvent {
        let (kind, reason) = (self.kind, self.as_seen_from(server));
        StoreEvent::StillLost { server: Some(Arc::clone(server)), kind, reason }
    }

    /// The text for an event that names `server` itself.
    fn as_seen_from(&self, server: &Arc<str>) -> Arc<str> {
        if self.server == *server {
            Arc::clone(&self.detail)
        } else {
            format!("{}: {}", self.server, self.detail).into()
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the rate limiter can't count on {}: {}", self.server, self.detail)
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
            Self::TooMany(most) => {
                write!(f, "requests of {most} principals are already waiting for the server")
            }
            Self::TooManyCorrections(most) => {
                write!(f, "{most} refunds and settlements are already waiting for the server")
            }
            Self::Moved => f.write_str("the bucket has moved to another node of the cluster"),
            Self::Unserved => f.write_str("no node of the cluster serves the bucket"),
            Self::Foreign(pattern) => write!(
                f,
                "a key {pattern} holds something that is no bucket: delete it, or choose another \
                 prefix"
            ),
            Self::Server(reason) => reason.fmt(f),
        }
    }
}

impl Error for Failure {}

impl Failure {
    /// One of the kinds that [`StoreError::kind`] documents.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::NoAnswer(_) => "no_answer",
            Self::TooMany(_) | Self::TooManyCorrections(_) => "too_many",
            Self::Moved => "moved",
            Self::Unserved => "unserved",
            Self::Foreign(_) => "foreign_key",
            Self::Server(reason) => reason.kind,
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let kind = failure.kind();
        let error = match failure {
            Failure::TooMany(_)
            | Failure::TooManyCorrections(_)
            | Failure::Moved
            | Failure::Foreign(_) => Self::of_request(failure),
            _ => Self::new(failure),
        };
        error.of_kind(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_the_stores_or_the_requests_and_keeps_its_kind() {
        let reason =
            Reason { server: "a:1".into(), kind: "busy", detail: "it is loading its data".into() };
        let failures = [
            (Failure::Lost, "lost", true),
            (Failure::NoAnswer(Duration::from_millis(25)), "no_answer", true),
            (Failure::TooMany(8192), "too_many", false),
            (Failure::TooManyCorrections(65_536), "too_many", false),
            (Failure::Moved, "moved", false),
            (Failure::Unserved, "unserved", true),
            (Failure::Foreign("bolna:2:{user:*}:call".into()), "foreign_key", false),
            (Failure::Server(reason), "busy", true),
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
