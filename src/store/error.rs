//! The error of a store.

use std::error::Error;
use std::fmt;

use super::Command;

/// A store failed, so it has not decided the request.
#[derive(Debug)]
pub struct StoreError {
    reason: Box<dyn Error + Send + Sync>,
    kind: &'static str,
    of_store: bool,
}

impl StoreError {
    /// A failure of the store for that reason: other requests must expect the same.
    pub fn new(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { reason: reason.into(), kind: OTHER, of_store: true }
    }

    /// A failure of one request, which says nothing about the next one. For example, there were too
    /// many requests at once, or the store can't read what it holds for this one bucket.
    ///
    /// A [`Breaker`](super::Breaker) does not count it.
    pub fn of_request(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { of_store: false, ..Self::new(reason) }
    }

    /// The error of a store that does not know a command.
    #[must_use]
    pub fn unsupported(command: &Command<'_>) -> Self {
        Self::of_request(format!("the store does not know the command {}", command.name()))
            .of_kind(Self::UNSUPPORTED)
    }

    /// The error of a store whose commands have to be waited for, and that does not implement
    /// [`Store::submit`](super::Store::submit).
    pub(super) fn not_at_once(command: &Command<'_>) -> Self {
        Self::of_request(format!(
            "the store did not answer the command {} immediately, so the command was dropped: \
             implement `Store::submit`, for example with a queue that a task works off",
            command.name()
        ))
        .of_kind(Self::UNSUPPORTED)
    }

    /// The error of a store that takes only refunds and settlements without waiting for the reply.
    #[cfg(feature = "redis")]
    pub(super) fn not_submitted(command: &Command<'_>) -> Self {
        Self::of_request(format!(
            "the store does not take the command {} without waiting for the reply, only refund and \
             settle: use `Store::command`",
            command.name()
        ))
        .of_kind(Self::UNSUPPORTED)
    }

    pub(super) const UNSUPPORTED: &'static str = "unsupported";

    /// Sets the [`kind`](Self::kind) of the error.
    ///
    /// A kind is used as the label of a metric. So a store should have few of them, each a constant
    /// word in `snake_case`, without an address or an id.
    ///
    /// ```
    /// use bolna_rate_limit::store::StoreError;
    ///
    /// let error = StoreError::new("the table is locked").of_kind("locked");
    /// assert_eq!(error.kind(), "locked");
    /// ```
    #[must_use]
    pub fn of_kind(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    /// The kind of the failure: a constant word, for example for the label of a metric.
    ///
    /// * `other`: an error whose [kind](Self::of_kind) was not set
    /// * `unsupported`: the store does not know the command or does not take it by
    ///   [`submit`](super::Store::submit), or the charge is beyond its
    ///   [capabilities](super::Capabilities); a failure [of one request](Self::of_request)
    /// * `full`: a [`MemoryStore`](super::MemoryStore) has reached its cap, so it can't keep a
    ///   block or an overdraft; a failure of one request. For an overdraft the bucket is drained
    /// * `no_endpoint`, `no_principal`: the limiter was asked about an endpoint that the policy
    ///   does not have, or about an account without a principal; failures of one request
    /// * `share`: the cost is more than a replica's share of the burst, so a
    ///   [`LocalFallback`](super::LocalFallback) can't decide; a failure of one request
    /// * `open`: a [`Breaker`](super::Breaker) is open and has not called its store
    ///
    /// The kinds of a `RedisStore` are:
    ///
    /// * `lost`: there is no connection to the server, or it broke; the
    ///   [event](super::StoreEvent::Lost) says why
    /// * `no_answer`: the server has not answered within the deadline
    /// * `too_many`: the queue is full: too many principals have requests waiting for the server,
    ///   or too many refunds and settlements wait for it; a failure [of one
    ///   request](Self::of_request)
    /// * `foreign_key`: the key of the bucket holds something that is not a bucket; a failure of
    ///   one request
    /// * `moved`: the bucket has moved to another node of the cluster; a failure of one request
    /// * `unserved`: no node of the cluster serves the bucket
    /// * `missing_permission`, `no_scripts`, `missing_command`, `wrong_server`, `out_of_memory`,
    ///   `busy`: the server answered with an error of that kind
    /// * `server_error`: the server answered with another error
    ///
    /// Its events have the kinds of the server's errors above, and these for errors that end a
    /// connection or keep the store from connecting:
    ///
    /// * `unreachable`: nothing answers, or not in time, or the connection broke
    /// * `wrong_password`, `no_database`, `read_only`, `no_primary`: the server, or a Sentinel,
    ///   answered with an error of that kind
    /// * `no_credentials`: the callback for credentials has returned none
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// Whether this is a failure of the store, not only of this request.
    #[must_use]
    pub const fn is_of_store(&self) -> bool {
        self.of_store
    }
}

/// The kind of an error whose kind was not set.
pub(super) const OTHER: &str = "other";

/// A failure [of one request](Self::of_request) is shown by its reason. A failure of the store is
/// shown without it: the reason is the [source](Error::source).
impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.of_store {
            f.write_str("the rate limiter's store failed")
        } else {
            self.reason.fmt(f)
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if self.of_store { Some(&*self.reason) } else { self.reason.source() }
    }
}
