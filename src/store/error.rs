//! When a store can't be asked.

use std::error::Error;
use std::fmt;

/// A store could not be asked, so nothing was decided.
#[derive(Debug)]
pub struct StoreError {
    reason: Box<dyn Error + Send + Sync>,
    kind: &'static str,
    of_store: bool,
}

impl StoreError {
    /// The store failed for that reason, and others who ask it must expect the same.
    pub fn new(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { reason: reason.into(), kind: OTHER, of_store: true }
    }

    /// This request could not be decided, and that says nothing about the next: there were too many
    /// at once, or what is kept for this one bucket can't be read.
    ///
    /// A [`Breaker`](super::Breaker) does not count it.
    pub fn of_request(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { of_store: false, ..Self::new(reason) }
    }

    /// Gives the error a [`kind`](Self::kind).
    ///
    /// To be of use as the label of a metric it should be one of a few words, in `snake_case`, that
    /// stay what they are: no address and no id.
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

    /// What kind of failure it is, in a word that stays what it is: the label of a metric, say.
    ///
    /// | | |
    /// |---|---|
    /// | `other` | any that was not given a [kind](Self::of_kind) |
    /// | `open` | a [`Breaker`](super::Breaker) is open, and its store was not asked |
    ///
    /// Those of a `RedisStore`:
    ///
    /// | | |
    /// |---|---|
    /// | `lost` | there is no connection to the server |
    /// | `no_answer` | the server has not answered within the deadline |
    /// | `late` | the call came to the server after its deadline, and nothing was charged |
    /// | `too_many` | as many requests wait for the server as may; of one request |
    /// | `foreign_key` | the bucket's key holds something that is no bucket; of one request |
    /// | `moved` | the bucket has moved to another node of the cluster; of one request |
    /// | `unserved` | no node of the cluster serves the bucket |
    /// | `unreachable` | the connection broke |
    /// | `wrong_password`, `missing_permission`, `no_scripts`, `too_old`, `read_only`, `out_of_memory`, `busy`, `no_primary` | the server answered with an error of that kind |
    /// | `server_error` | the server answered with another error |
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// Whether the store failed, and not only this request.
    #[must_use]
    pub const fn is_of_store(&self) -> bool {
        self.of_store
    }
}

/// The kind of what was not given one.
pub(super) const OTHER: &str = "other";

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the rate limiter's store could not be asked")
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.reason)
    }
}
