//! The errors of a server, with texts that say what it lacks and what to do.

mod advice;
pub(super) mod answer;
mod said;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use redis::RedisError;

use super::address::Address;
use crate::store::remote::failure::Reason;
use said::Said;

/// Why a [`RedisStore`](crate::store::RedisStore) can't use its server.
///
/// * [`kind`](Self::kind) is the kind of error.
/// * The text names the server, the rule that is broken, and what to do.
/// * The [`source`](Error::source) is what the server or the operating system said, if anything:
///   one line of at most 200 characters.
///
/// Neither holds the user, the password or an id. The error of an address that can't be read shows
/// no part of it but its scheme.
///
/// ```
/// use bolna_rate_limit::store::{RedisStore, RedisStoreErrorKind};
///
/// # tokio_test::block_on(async {
/// let address = "redis://limiter:secret@redis.internal:six";
/// let error = RedisStore::connect(address).await.unwrap_err();
/// assert_eq!(error.kind(), RedisStoreErrorKind::Setting);
/// assert!(!error.to_string().contains("secret"));
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct RedisStoreError {
    kind: RedisStoreErrorKind,
    server: String,
    detail: String,
    said: Option<Said>,
}

/// What is wrong with a server, or with its address or another setting.
///
/// ```no_run
/// use std::time::Duration;
/// use bolna_rate_limit::store::{RedisStore, RedisStoreError, RedisStoreErrorKind};
///
/// /// Waits for a server that starts together with this process. With `start_degraded`, callers
/// /// would be served meanwhile.
/// async fn connect(address: &str) -> Result<RedisStore, RedisStoreError> {
///     loop {
///         let result = RedisStore::connect(address).await;
///         match result.as_ref().map_err(RedisStoreError::kind) {
///             Err(RedisStoreErrorKind::Unreachable | RedisStoreErrorKind::Busy) => {
///                 tokio::time::sleep(Duration::from_secs(1)).await;
///             }
///             _ => return result,
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RedisStoreErrorKind {
    /// An address, a prefix, a time, a number or a certificate is wrong. This is found before the
    /// store connects.
    Setting,
    /// Nothing answers at the address, or not in time, or the connection broke.
    Unreachable,
    /// The server requires a password and was given none, it does not know the user with that
    /// password, or it was given a password and has none.
    WrongPassword,
    /// The user lacks a permission. The text names it.
    MissingPermission,
    /// The server does not run the store's scripts: `EVAL` or `EVALSHA` is switched off or renamed,
    /// or scripts may not do what the store's do.
    NoScripts,
    /// The server, or a proxy in front of it, does not know a command that the store needs. The
    /// text names it.
    MissingCommand,
    /// The server has no database of that number.
    NoDatabase,
    /// Another kind of server answers at the address: a node of a cluster, a single server where a
    /// cluster was expected, a Sentinel, one that expects TLS, or one that does not speak the
    /// protocol of Redis. The text says which.
    WrongServer,
    /// The server takes no writes: it is a replica, lacks replicas, or can't write to its disk.
    ReadOnly,
    /// `maxmemory` is reached, and nothing may be evicted to make room for a bucket.
    OutOfMemory,
    /// The server is loading its data, is running a slow script, or has as many clients as it
    /// allows.
    Busy,
    /// The Sentinels do not know the primary, or the cluster does not know the node of a slot.
    NoPrimary,
    /// The [callback](crate::store::RedisStoreBuilder::credentials) has returned no credentials.
    Credentials,
    /// Any other error.
    Other,
}

use RedisStoreErrorKind as Kind;

impl Kind {
    /// The [`kind`](crate::store::StoreError::kind) of the error of a request that the server
    /// answered this way.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::WrongPassword => "wrong_password",
            Self::MissingPermission => "missing_permission",
            Self::NoScripts => "no_scripts",
            Self::MissingCommand => "missing_command",
            Self::NoDatabase => "no_database",
            Self::WrongServer => "wrong_server",
            Self::ReadOnly => "read_only",
            Self::OutOfMemory => "out_of_memory",
            Self::Busy => "busy",
            Self::NoPrimary => "no_primary",
            Self::Credentials => "no_credentials",
            // Wrong settings are found before there are requests.
            Self::Setting | Self::Other => "server_error",
        }
    }
}

impl RedisStoreError {
    /// The kind of error.
    #[must_use]
    pub const fn kind(&self) -> RedisStoreErrorKind {
        self.kind
    }

    /// The error of `server` to the command `asked`, or of the connection while it waited. While
    /// the connection is opened, before any command, `asked` is empty.
    pub(super) fn of(server: &Address, asked: &'static str, error: &RedisError) -> Self {
        let advice = advice::advice(server, asked, error);
        let said = Said::of(error, &server.login);
        let (kind, detail) = (advice.kind, advice.with(said.as_ref()));
        Self { kind, server: server.name().to_string(), detail, said }
    }

    /// The error that the Sentinel `node` gave to the command `asked`.
    pub(super) fn of_sentinel(node: &Address, asked: &'static str, error: &RedisError) -> Self {
        let mut error = Self::of(node, asked, error);
        if asked.eq_ignore_ascii_case("SENTINEL") && error.kind == Kind::MissingCommand {
            error.kind = Kind::NoPrimary;
            "it is not a Sentinel: name a server by redis://".clone_into(&mut error.detail);
        }
        Self { server: format!("the Sentinel {node}"), ..error }
    }

    /// The error that `server` has not answered in time.
    pub(super) fn silent(server: &Address, within: Duration) -> Self {
        let detail = format!("it has not answered within {within:?}");
        Self { kind: Kind::Unreachable, server: server.name().to_string(), detail, said: None }
    }

    /// An error that was found without the server saying so. The detail is constant, so that it
    /// holds nothing of what the server said: see [`quoting`](Self::quoting).
    pub(super) fn new(kind: Kind, server: &Address, detail: &'static str) -> Self {
        Self { kind, server: server.name().to_string(), detail: detail.to_owned(), said: None }
    }

    /// As [`new`](Self::new), with something that the server said in the text: `{before}{said}` and
    /// `{after}`.
    pub(super) fn quoting(
        kind: Kind,
        server: &Address,
        before: &'static str,
        said: &str,
        after: &'static str,
    ) -> Self {
        let said = Said::new(said, &server.login);
        let quoted = said.as_ref().map_or("", Said::as_str);
        let detail = format!("{before}{quoted}{after}");
        Self { kind, server: server.name().to_string(), detail, said: None }
    }

    /// A wrong setting. Neither text may hold a part of an address.
    pub(super) fn setting(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: Kind::Setting, server: what.into(), detail: detail.into(), said: None }
    }

    /// The same error, which a Sentinel gave.
    pub(super) fn of_a_sentinel(self, node: &Address) -> Self {
        Self { server: format!("the Sentinel {}", node.name()), ..self }
    }
}

impl fmt::Display for RedisStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the rate limiter can't count on {}: {}", self.server, self.detail)
    }
}

impl Error for RedisStoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.said.as_ref().map(|said| said as &(dyn Error + 'static))
    }
}

impl From<&RedisStoreError> for Reason {
    fn from(error: &RedisStoreError) -> Self {
        let RedisStoreError { kind, server, detail, .. } = error;
        Self { server: server.as_str().into(), kind: kind.word(), detail: detail.as_str().into() }
    }
}
