//! The errors of a server, with texts that say what to do.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::{StoreError, StoreEvent};

/// Why a [`RedisStore`](crate::store::RedisStore) can't use its server.
///
/// * [`kind`](Self::kind) is the kind of error.
/// * The text names the server, the rule that is broken, and what to do.
/// * The [`source`](Error::source) is what the server or the operating system said, if anything.
#[derive(Clone, Debug)]
pub struct RedisStoreError {
    kind: RedisStoreErrorKind,
    server: String,
    detail: String,
    source: Option<Said>,
}

/// What the server or the operating system said. It wraps the client's error, so that the client's
/// type is not part of this crate's API.
#[derive(Clone, Debug)]
struct Said(RedisError);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Said {}

/// What is wrong with a server, or with its address or another setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RedisStoreErrorKind {
    /// An address, a prefix, a time, a number or a certificate is wrong. This is found before the
    /// store connects.
    Setting,
    /// Nothing answers at the address, or not in time.
    Unreachable,
    /// The server requires a password and was given none, or it does not know the user with that
    /// password.
    WrongPassword,
    /// The user lacks a permission. The text names it.
    MissingPermission,
    /// The server does not run the store's scripts: `EVAL` or `EVALSHA` is switched off or renamed.
    NoScripts,
    /// The server is older than Redis 6.2, and lacks the expiry times that buckets need.
    TooOld,
    /// The server takes no writes: it is a replica, lacks replicas, or lacks room on its disk.
    ReadOnly,
    /// `maxmemory` is reached, and nothing may be evicted to make room for a bucket.
    OutOfMemory,
    /// The server is loading its data, or is running a slow script.
    Busy,
    /// The Sentinels do not know the primary, or the cluster does not know the node of a slot.
    NoPrimary,
    /// Any other error.
    Other,
}

use RedisStoreErrorKind as Kind;

impl Kind {
    /// The [`kind`](StoreError::kind) of the error of a request that the server answered this way.
    const fn word(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::WrongPassword => "wrong_password",
            Self::MissingPermission => "missing_permission",
            Self::NoScripts => "no_scripts",
            Self::TooOld => "too_old",
            Self::ReadOnly => "read_only",
            Self::OutOfMemory => "out_of_memory",
            Self::Busy => "busy",
            Self::NoPrimary => "no_primary",
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

    /// The event that `server` is lost for this reason.
    pub(super) fn lost(&self, server: &str) -> StoreEvent {
        let (kind, reason) = (self.kind.word(), self.why(server).into());
        StoreEvent::Lost { server: Some(server.into()), kind, reason }
    }

    /// The event that `server` is still lost, and now for this reason.
    pub(super) fn still_lost(&self, server: &str) -> StoreEvent {
        let (kind, reason) = (self.kind.word(), self.why(server).into());
        StoreEvent::StillLost { server: Some(server.into()), kind, reason }
    }

    /// The text for an event that names `server` itself: without the server, if it is the same.
    fn why(&self, server: &str) -> String {
        let mut text =
            if self.server == server { String::new() } else { format!("{}: ", self.server) };
        text.push_str(&self.detail);
        if let (Kind::Unreachable, Some(source)) = (self.kind, &self.source) {
            text.push_str(&format!(" ({source})"));
        }
        text
    }

    pub(super) fn new(kind: Kind, server: &str, detail: impl Into<String>) -> Self {
        Self { kind, server: server.to_owned(), detail: detail.into(), source: None }
    }

    /// The error that `server` gave to a command that every bucket needs.
    pub(super) fn of(server: &str, error: RedisError) -> Self {
        let kind = kind_of(&error);
        let said = error.detail().unwrap_or_default();
        let detail = match kind {
            Kind::WrongPassword if error.code() == Some("NOAUTH") => {
                "it asks for a password and was given none".into()
            }
            Kind::WrongPassword => "it knows no such user with that password".into(),
            Kind::MissingPermission => format!(
                "its user lacks a permission: {said}. The store needs +evalsha +eval +time +get \
                 +set +del, in a cluster also +cluster|slots, for a database other than 0 also \
                 +select, and the keys ~<prefix>:1:*"
            ),
            Kind::NoScripts => {
                // The arguments that follow repeat the script.
                let said = said.split(", with args").next().unwrap_or(said);
                format!("it does not run scripts: {said}. The store needs EVAL and EVALSHA")
            }
            Kind::TooOld => "it is older than Redis 6.2, and has no SET ... PXAT".into(),
            Kind::ReadOnly if is_replica(&error) => REPLICA.into(),
            Kind::ReadOnly => format!("it takes no writes: {said}"),
            Kind::OutOfMemory => {
                "maxmemory is reached and nothing may be evicted: raise it, or set \
                 maxmemory-policy volatile-ttl"
                    .into()
            }
            Kind::Busy => "it is busy: it is loading its data, or running a slow script".into(),
            Kind::Unreachable => "it can't be reached".into(),
            // The client's own text. Nothing was sent to the server.
            Kind::Setting => format!("its address or another setting is wrong: {error}"),
            Kind::NoPrimary | Kind::Other if said.is_empty() => "it answered with an error".into(),
            Kind::NoPrimary | Kind::Other => format!("it answered with an error: {said}"),
        };
        Self { kind, server: server.to_owned(), detail, source: Some(Said(error)) }
    }
}

impl fmt::Display for RedisStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the rate limiter can't count on {}: {}", self.server, self.detail)
    }
}

impl Error for RedisStoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as &(dyn Error + 'static))
    }
}

fn kind_of(error: &RedisError) -> Kind {
    // Since Redis 7.0, an error inside a script keeps its code; before, the code is in the text.
    let said = error.detail().unwrap_or_default();
    let says = |text: &str| said.contains(text) || error.code() == Some(text);
    match error.kind() {
        ErrorKind::AuthenticationFailed => Kind::WrongPassword,
        ErrorKind::Io => Kind::Unreachable,
        ErrorKind::InvalidClientConfig => Kind::Setting,
        ErrorKind::Server(ServerErrorKind::ReadOnly) => Kind::ReadOnly,
        ErrorKind::Server(ServerErrorKind::BusyLoading) => Kind::Busy,
        ErrorKind::Server(ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown) => {
            Kind::NoPrimary
        }
        ErrorKind::Server(ServerErrorKind::NoPerm) => Kind::MissingPermission,
        _ if says("NOAUTH") || says("WRONGPASS") => Kind::WrongPassword,
        _ if says("ACL failure")
            || says("NOPERM")
            || says("no permissions")
            || says("can't run this command") =>
        {
            Kind::MissingPermission
        }
        _ if says("OOM") || says("command not allowed when used memory") => Kind::OutOfMemory,
        _ if says("BUSY") => Kind::Busy,
        _ if is_replica(error) || says("NOREPLICAS") || says("MISCONF") => Kind::ReadOnly,
        _ if says("unknown command") || says("Unknown Redis command") => Kind::NoScripts,
        _ if says("syntax error") => Kind::TooOld,
        _ => Kind::Other,
    }
}

/// The text of the error of a server that is not a primary.
pub(super) const REPLICA: &str =
    "it is a replica and can't be written to: name the primary, or the Sentinels";

fn is_replica(error: &RedisError) -> bool {
    let said = error.detail().unwrap_or_default();
    error.code() == Some("READONLY")
        || said.contains("READONLY")
        || said.contains("read only replica")
}

/// Whether the error is only about this key, which holds something that is no bucket.
pub(super) fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
        || error.detail().is_some_and(|said| said.contains("WRONGTYPE"))
}

/// Whether another node serves the key: `Some(true)` if it already does, `Some(false)` if it will
/// when the key has been migrated.
pub(super) fn is_elsewhere(error: &RedisError) -> Option<bool> {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved) => Some(true),
        ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::TryAgain) => Some(false),
        _ => None,
    }
}

/// Whether the connection has to be replaced: it is broken, or its server takes no writes, rejects
/// the user, or has no primary.
pub(super) fn is_lost(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || matches!(
            kind_of(error),
            Kind::Unreachable | Kind::ReadOnly | Kind::WrongPassword | Kind::NoPrimary
        )
}

/// Why one request was not decided.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// There is no connection.
    Lost,
    /// The answer did not come within the deadline.
    NoAnswer(Duration),
    /// The call reached the server after the deadline, and nothing was changed.
    Late,
    /// This many requests are waiting already.
    TooMany(usize),
    /// The key is served by another node, which the topology does not show yet.
    Moved,
    /// No node serves the key.
    #[cfg(feature = "redis-cluster")]
    Unserved,
    /// A key with this beginning holds something that is no bucket.
    Foreign(Arc<str>),
    /// The server answered with an error.
    Server(Arc<RedisStoreError>),
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
            #[cfg(feature = "redis-cluster")]
            Self::Unserved => f.write_str("no node of the cluster serves the bucket"),
            Self::Foreign(class) => {
                write!(
                    f,
                    "a key {class}:* holds something that is no bucket: delete it, or choose \
                     another prefix"
                )
            }
            Self::Server(error) => error.fmt(f),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Server(error) => error.source(),
            _ => None,
        }
    }
}

impl Failure {
    /// One of the kinds that [`StoreError::kind`] documents.
    fn kind(&self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::NoAnswer(_) => "no_answer",
            Self::Late => "late",
            Self::TooMany(_) => "too_many",
            Self::Moved => "moved",
            #[cfg(feature = "redis-cluster")]
            Self::Unserved => "unserved",
            Self::Foreign(_) => "foreign_key",
            Self::Server(error) => error.kind.word(),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let kind = failure.kind();
        let error = match failure {
            Failure::TooMany(_) | Failure::Moved | Failure::Foreign(_) => Self::of_request(failure),
            #[cfg(feature = "redis-cluster")]
            Failure::Unserved => Self::new(failure),
            Failure::Lost | Failure::NoAnswer(_) | Failure::Late | Failure::Server(_) => {
                Self::new(failure)
            }
        };
        error.of_kind(kind)
    }
}
