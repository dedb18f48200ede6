//! Questions about a server's error, whose answers decide what the store does next.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::RedisStoreErrorKind as Kind;
use super::advice::advice;
use super::said::words;
use crate::store::remote::redis::address::Address;

/// Whether the server refuses `TIME` inside scripts, so that the time has to be an argument. A user
/// that lacks the permission for `TIME` is another matter.
pub(in crate::store::remote::redis) fn refuses_time(error: &RedisError) -> bool {
    let said = words(error).to_lowercase();
    let is_permission = said.contains("noperm") || said.contains("acl failure");
    // A server that does not know `TIME` in scripts may know it outside of them. Before Redis 5, a
    // script that knows the time may not write: the last two.
    !is_permission
        && [
            "command is not allowed from script",
            "command not allowed from script",
            "not allowed in script",
            "command called from",
            "non deterministic command",
            "non-deterministic command",
        ]
        .iter()
        .any(|words| said.contains(words))
}

pub(in crate::store::remote::redis) fn is_unknown_script(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

/// Whether the error is only about this key, which holds something that is no bucket.
pub(in crate::store::remote::redis) fn is_wrong_type(error: &RedisError) -> bool {
    words(error).contains("WRONGTYPE")
}

/// Whether another node serves the key: `Some(true)` if it already does, `Some(false)` if it will
/// when the key has been migrated.
pub(in crate::store::remote::redis) fn is_elsewhere(error: &RedisError) -> Option<bool> {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved) => Some(true),
        ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::TryAgain) => Some(false),
        _ => None,
    }
}

/// Whether the connection has to be replaced: it is broken, or its server takes no writes, rejects
/// the user, or has no primary.
pub(in crate::store::remote::redis) fn is_lost(
    server: &Address,
    asked: &'static str,
    error: &RedisError,
) -> bool {
    error.is_unrecoverable_error()
        || matches!(
            advice(server, asked, error).kind,
            Kind::Unreachable | Kind::ReadOnly | Kind::WrongPassword | Kind::NoPrimary
        )
}
