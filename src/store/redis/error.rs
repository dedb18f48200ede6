//! What can be wrong with a server, in words that say what to do.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::StoreError;

/// Why a [`RedisStore`](crate::store::RedisStore) can't count on its server.
///
/// [`kind`](Self::kind) says what kind of thing is wrong, the text names the server, the rule and
/// what to do, and the [`source`](Error::source) is what the server or the operating system said,
/// if it said something.
#[derive(Clone, Debug)]
pub struct RedisStoreError {
    kind: RedisStoreErrorKind,
    server: String,
    detail: String,
    source: Option<Said>,
}

/// What the server or the operating system said, in the client's words but not of its type.
#[derive(Clone, Debug)]
struct Said(RedisError);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Said {}

/// What kind of thing is wrong with a server, or with how it was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RedisStoreErrorKind {
    /// An address, a prefix or a number that can't be right. Found before anything is connected.
    Setting,
    /// Nothing answers there, or not in time.
    Unreachable,
    /// The server wants a password and was given none, or another one.
    WrongPassword,
    /// The user lacks a permission, which the text names.
    MissingPermission,
    /// The server runs no scripts, or not this one: `EVAL` and `EVALSHA` are switched off or
    /// renamed.
    NoScripts,
    /// The server is older than 6.2, and does not know the expiry times that buckets need.
    TooOld,
    /// The server takes no writes: it is a replica, or lacks replicas or room on its disk.
    ReadOnly,
    /// `maxmemory` is reached, and nothing may be evicted for a bucket.
    OutOfMemory,
    /// The server is loading its data, or runs somebody's slow script.
    Busy,
    /// The Sentinels do not know the primary, or the cluster does not know who serves a slot.
    NoPrimary,
    /// Anything else.
    Other,
}

use RedisStoreErrorKind as Kind;

impl Kind {
    /// The kind of a request's failure, when the server answered it like that.
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
            // Settings are found to be wrong before there are requests.
            Self::Setting | Self::Other => "server_error",
        }
    }
}

impl RedisStoreError {
    /// What kind of thing is wrong.
    #[must_use]
    pub const fn kind(&self) -> RedisStoreErrorKind {
        self.kind
    }

    /// The text for those who know which server it is about.
    pub(super) fn why(&self, server: &str) -> String {
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

    /// What `server` meant by its answer to something that every bucket needs.
    pub(super) fn of(server: &str, error: RedisError) -> Self {
        let kind = kind_of(&error);
        let said = error.detail().unwrap_or_default();
        let detail = match kind {
            Kind::WrongPassword if error.code() == Some("NOAUTH") => "it asks for a password and was given none".into(),
            Kind::WrongPassword => "it knows no such user with that password".into(),
            Kind::MissingPermission => format!(
                "its user lacks a permission: {said}. The store needs +evalsha +eval +time +get +set +del, in a cluster \
                 +cluster|slots, for a database other than 0 +select, and the keys ~<prefix>:1:*"
            ),
            Kind::NoScripts => {
                // What follows repeats the script.
                let said = said.split(", with args").next().unwrap_or(said);
                format!("it does not run scripts: {said}. The store needs EVAL and EVALSHA")
            }
            Kind::TooOld => "it is older than Redis 6.2, and has no SET ... PXAT".into(),
            Kind::ReadOnly if is_replica(&error) => REPLICA.into(),
            Kind::ReadOnly => format!("it takes no writes: {said}"),
            Kind::OutOfMemory => {
                "maxmemory is reached and nothing may be evicted: raise it, or set maxmemory-policy volatile-ttl".into()
            }
            Kind::Busy => "it is busy, loading its data or with somebody's script".into(),
            Kind::Unreachable => "it can't be reached".into(),
            // The client's own word. Nothing has been sent.
            Kind::Setting => format!("it can't be connected to like that: {error}"),
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
    // An error within a script keeps its code from 7.0 on; before, the code stands in the text.
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

/// What is said of a server that is no primary.
pub(super) const REPLICA: &str =
    "it is a replica and can't be written to: name the primary, or the Sentinels";

fn is_replica(error: &RedisError) -> bool {
    let said = error.detail().unwrap_or_default();
    error.code() == Some("READONLY")
        || said.contains("READONLY")
        || said.contains("read only replica")
}

/// Whether the server answered well, only that this one key holds something that is no bucket.
pub(super) fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
        || error.detail().is_some_and(|said| said.contains("WRONGTYPE"))
}

/// Whether the key is served by another node: already, `Some(true)`, or when it has been carried
/// over.
pub(super) fn is_elsewhere(error: &RedisError) -> Option<bool> {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved) => Some(true),
        ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::TryAgain) => Some(false),
        _ => None,
    }
}

/// Whether the connection is of no more use: it is broken, or leads to a server that can't be
/// written to.
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
    /// So many wait already.
    TooMany(usize),
    /// The key is served by another node, which the topology does not show yet.
    Moved,
    /// No node serves the key.
    #[cfg(feature = "redis-cluster")]
    Unserved,
    /// A key that begins like that holds something that is no bucket.
    Foreign(Arc<str>),
    /// The server answered with an error.
    Server(Arc<RedisStoreError>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost => f.write_str(
                "there is no connection to the server; it is made anew in the background",
            ),
            Self::NoAnswer(deadline) => {
                write!(f, "the server has not answered within {deadline:?}")
            }
            Self::Late => {
                f.write_str("the call came to the server after its deadline, and changed nothing")
            }
            Self::TooMany(most) => write!(f, "{most} requests wait for the server already"),
            Self::Moved => f.write_str("the bucket has moved to another node of the cluster"),
            #[cfg(feature = "redis-cluster")]
            Self::Unserved => f.write_str("no node of the cluster serves the bucket"),
            Self::Foreign(class) => {
                write!(
                    f,
                    "a key {class}:* holds something that is no bucket: delete it, or choose another prefix"
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
    /// As [`StoreError::kind`] documents them.
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
