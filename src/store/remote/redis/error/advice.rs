//! What an error means, and what to do about it.

use redis::{ErrorKind, RedisError};

use super::RedisStoreErrorKind as Kind;
use super::answer::refuses_time;
use super::said::{Said, words};
use crate::store::remote::redis::address::Address;

/// The kind of an error, and its text: `text` alone if `then` is `None`, and otherwise `text`, a
/// quotation of what the server said, and `then`.
#[derive(Clone, Copy)]
pub(super) struct Advice {
    pub(super) kind: Kind,
    text: &'static str,
    then: Option<&'static str>,
}

impl Advice {
    pub(super) fn with(self, said: Option<&Said>) -> String {
        let Self { text, then, .. } = self;
        let Some(then) = then else { return text.to_owned() };
        let said = said.map_or_else(String::new, |said| {
            format!(": {}", said.as_str().trim_end_matches(['.', ' ']))
        });
        if then.is_empty() { format!("{text}{said}") } else { format!("{text}{said}. {then}") }
    }
}

const fn plain(kind: Kind, text: &'static str) -> Advice {
    Advice { kind, text, then: None }
}

const fn quoting(kind: Kind, text: &'static str, then: &'static str) -> Advice {
    Advice { kind, text, then: Some(then) }
}

/// Words of servers, and what they mean.
struct Row(&'static [&'static str], Advice);

/// The words of Redis 6.2 to 8, Valkey 8 and 9, and servers and proxies that are compatible with
/// them, in lower case. They are looked for in the code and the text of an error: since Redis 7.0,
/// an error inside a script keeps its code; before, the code is in the text. The first row that
/// fits counts.
static ROWS: &[Row] = &[
    Row(
        &["protected mode"],
        plain(
            Kind::WrongPassword,
            "it is in protected mode, and so takes connections from its own machine only: set a \
             password on the server (requirepass, or a user), or switch protected-mode off",
        ),
    ),
    Row(
        &["noauth", "authentication required"],
        plain(
            Kind::WrongPassword,
            "it asks for a password and was given none: write it before the host, as in \
             redis://user:password@host, or redis://:password@host without a user",
        ),
    ),
    Row(
        &["without any password configured", "no password is set"],
        plain(
            Kind::WrongPassword,
            "it was given a password and has none: leave the password out, or set one on the \
             server (requirepass)",
        ),
    ),
    Row(
        &["wrong number of arguments for 'auth'", "wrong number of arguments for `auth`"],
        plain(
            Kind::WrongPassword,
            "it, or a proxy in front of it, knows passwords but no users: leave the user out, as \
             in redis://:password@host",
        ),
    ),
    Row(
        &["wrongpass", "invalid password", "invalid username-password", "user is disabled"],
        plain(Kind::WrongPassword, "it knows no such user with that password, or has disabled it"),
    ),
    Row(
        &["max number of clients"],
        plain(
            Kind::Busy,
            "it is busy: it has as many clients as it allows. Raise maxclients, or close \
             connections that are not needed",
        ),
    ),
    Row(
        &[
            "noperm",
            "acl failure",
            "no permissions",
            "can't run this command",
            "can't access at least one of the keys",
        ],
        quoting(
            Kind::MissingPermission,
            "its user lacks a permission",
            "The store needs +evalsha +eval +time +get +set +del, in a cluster also \
             +cluster|slots +asking, for a database other than 0 also +select, and the keys \
             ~<prefix>:2:*",
        ),
    ),
    Row(
        &["readonly you", "read only replica", "read only slave"],
        plain(
            Kind::ReadOnly,
            "it is a replica and can't be written to: name the primary, or the Sentinels",
        ),
    ),
    Row(
        &["noreplicas"],
        plain(
            Kind::ReadOnly,
            "it takes no writes, because it has too few replicas that keep up: see its settings \
             min-replicas-to-write and min-replicas-max-lag",
        ),
    ),
    Row(
        &["misconf"],
        plain(
            Kind::ReadOnly,
            "it takes no writes, because it can't save its data to disk: see its log, and the \
             setting stop-writes-on-bgsave-error",
        ),
    ),
    Row(
        &["oom command", "command not allowed when used memory"],
        plain(
            Kind::OutOfMemory,
            "maxmemory is reached and nothing may be evicted: raise it, or set maxmemory-policy \
             volatile-ttl",
        ),
    ),
    Row(
        &["masterdown"],
        plain(
            Kind::NoPrimary,
            "it is a replica, and has lost its primary: name the primary, or the Sentinels",
        ),
    ),
    Row(
        &["clusterdown"],
        quoting(
            Kind::NoPrimary,
            "its cluster is down",
            "See CLUSTER INFO: every slot needs a primary that is up",
        ),
    ),
    Row(
        &["select is not allowed in cluster mode"],
        plain(
            Kind::NoDatabase,
            "it is a node of a cluster, which has database 0 only: leave the number of the \
             database out, and name the cluster by redis+cluster://",
        ),
    ),
    Row(
        &["cluster support disabled"],
        quoting(
            Kind::WrongServer,
            "it is not a node of a cluster",
            "Name it by redis:// instead of redis+cluster://",
        ),
    ),
    Row(
        &["crossslot"],
        plain(
            Kind::Other,
            "it holds that the keys of one call are in different slots: it, or a proxy in front \
             of it, does not go by the {...} in keys, which the store needs",
        ),
    ),
    Row(
        &["db index", "database index"],
        quoting(
            Kind::NoDatabase,
            "it does not have that database",
            "Choose another number, or leave it out for database 0",
        ),
    ),
    Row(
        &[
            "could not find scripting engine",
            "scripts are disabled",
            "scripting is disabled",
            "noscript no",
        ],
        NO_SCRIPTS,
    ),
];

const NO_SCRIPTS: Advice =
    quoting(Kind::NoScripts, "it does not run scripts", "The store needs EVAL and EVALSHA");

const IN_CLUSTER: Advice = plain(
    Kind::WrongServer,
    "it is a node of a cluster, and another node holds some of the keys: name the cluster \
             by redis+cluster://host:port",
);

const LOADING: Advice =
    plain(Kind::Busy, "it is busy: it is loading its data, or waits for its primary to send it");

const SLOW_SCRIPT: Advice =
    plain(Kind::Busy, "it is busy: it is running a slow script or module command");

const NO_TIME: Advice = plain(
    Kind::NoScripts,
    "it does not let scripts ask for the time (TIME), nor does the store have the time in another \
     way: allow TIME, in scripts or outside of them",
);

pub(super) fn advice(server: &Address, asked: &'static str, error: &RedisError) -> Advice {
    let said = lower(error);
    match error.kind() {
        ErrorKind::Io => return unreachable(server, asked, error, &said),
        ErrorKind::Parse => return not_redis(server),
        ErrorKind::UnexpectedReturnType => {
            return plain(
                Kind::WrongServer,
                "it answers in a form that is not that of Redis or Valkey",
            );
        }
        // The client's own text. Nothing was sent to the server.
        ErrorKind::InvalidClientConfig => {
            return quoting(Kind::Setting, "its address or another setting is wrong", "");
        }
        _ => {}
    }
    match error.code() {
        Some("LOADING") => return LOADING,
        Some("BUSY") => return SLOW_SCRIPT,
        Some("MOVED" | "ASK") => return IN_CLUSTER,
        _ => {}
    }
    if let Some(Row(_, advice)) = ROWS.iter().find(|row| row.0.iter().any(|it| said.contains(it))) {
        return *advice;
    }
    if is_unknown_command(&said) {
        return unknown_command(asked, &said);
    }
    if refuses_time(error) {
        return NO_TIME;
    }
    match asked {
        _ if error.kind() == ErrorKind::AuthenticationFailed => {
            quoting(Kind::WrongPassword, "it refuses the user or the password", "")
        }
        "AUTH" => quoting(Kind::WrongPassword, "it refuses the user or the password", ""),
        "SELECT" => quoting(
            Kind::NoDatabase,
            "it refuses to use that database",
            "Leave the number out for database 0",
        ),
        _ => quoting(Kind::Other, "it answered with an error", ""),
    }
}

fn lower(error: &RedisError) -> String {
    words(error).to_lowercase()
}

fn is_unknown_command(said: &str) -> bool {
    [
        "unknown command",
        "unknown redis command",
        "unknown valkey command",
        "unsupported command",
        "invalid command",
        "command is not available",
        "command not available",
        "not supported",
        "not support",
        "is disabled",
    ]
    .iter()
    .any(|words| said.contains(words))
}

fn unknown_command(asked: &'static str, said: &str) -> Advice {
    // Inside a script it is one of the script's commands.
    if said.contains("called from") {
        return quoting(
            Kind::MissingCommand,
            "its scripts lack a command",
            "The store's scripts need TIME, GET, SET and DEL",
        );
    }
    match asked {
        "EVAL" | "EVALSHA" | "SCRIPT" => NO_SCRIPTS,
        "SELECT" => plain(
            Kind::NoDatabase,
            "it, or a proxy in front of it, has database 0 only: leave the number of the database \
             out",
        ),
        "AUTH" => plain(
            Kind::MissingCommand,
            "it, or a proxy in front of it, does not know passwords (AUTH): leave user and \
             password out",
        ),
        "CLUSTER" => quoting(
            Kind::MissingCommand,
            "it, or a proxy in front of it, does not know CLUSTER",
            "If it is not a cluster, name it by redis:// instead of redis+cluster://",
        ),
        _ => quoting(
            Kind::MissingCommand,
            "it, or a proxy in front of it, lacks a command that the store needs",
            "See its settings, such as rename-command",
        ),
    }
}

fn unreachable(server: &Address, asked: &'static str, error: &RedisError, said: &str) -> Advice {
    const KIND: Kind = Kind::Unreachable;
    if server.tls && said.contains("certificate") {
        return quoting(
            KIND,
            "its certificate, or that of this client, is not accepted",
            "The server's authority has to be among the root certificates \
             (RedisStoreBuilder::root_certificates), and the address has to have the name that \
             the certificate has",
        );
    }
    let is_dropped = error.is_connection_dropped() && !error.is_connection_refusal();
    let is_greeted = is_greeting(asked);
    if server.tls
        && ["corrupt message", "contenttype", "handshake"].iter().any(|it| said.contains(it))
        || server.tls && is_dropped && asked.is_empty()
    {
        return quoting(
            KIND,
            "TLS can't be agreed upon with it",
            "If it does not expect TLS, name it by redis://, without the second s",
        );
    }
    match asked {
        "" => quoting(KIND, "it can't be reached", ""),
        _ if is_dropped && is_greeted && !server.tls => quoting(
            KIND,
            "it closed the connection at the first command",
            "If it expects TLS, name it by rediss://. If it is a proxy, it may not know that \
             command",
        ),
        _ => quoting(KIND, "the connection to it broke", ""),
    }
}

/// Whether a command is sent before the server has shown that it speaks the protocol.
fn is_greeting(asked: &str) -> bool {
    matches!(asked, "HELLO" | "AUTH" | "SELECT" | "CLIENT" | "PING")
}

fn not_redis(server: &Address) -> Advice {
    if server.tls {
        plain(Kind::WrongServer, "what it answers is not the protocol of Redis: check the port")
    } else {
        plain(
            Kind::WrongServer,
            "what it answers is not the protocol of Redis: check the port, and if it expects TLS, \
             name it by rediss://",
        )
    }
}
