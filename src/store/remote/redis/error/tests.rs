#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod secrets;

use std::io;

use redis::Value;

use super::RedisStoreErrorKind as Kind;
use super::answer::{is_elsewhere, is_lost, is_unknown_script, is_wrong_type, refuses_time};
use super::*;
use crate::store::StoreEvent;
use crate::store::remote::failure::Reason;
use crate::store::remote::redis::address::Servers;

fn server(address: &str) -> Address {
    match Servers::parse(address) {
        Ok(Servers::One(server)) => server,
        other => panic!("{address}: {other:?}"),
    }
}

/// The error as the client reads it from the wire.
fn answer(line: &str) -> RedisError {
    let answer = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
    match answer {
        Value::ServerError(error) => error.into(),
        other => panic!("{line}: {other:?}"),
    }
}

fn plain() -> Address {
    server("redis://limiter:hemlig-1@localhost:7")
}

#[track_caller]
fn assert_told(cases: &[(&'static str, &str, Kind, &str)]) {
    for &(asked, line, kind, words) in cases {
        let error = RedisStoreError::of(&plain(), asked, &answer(line));
        let told = format!("{error} ({})", error.source().unwrap());
        assert_eq!(error.kind(), kind, "{line}: {told}");
        assert!(told.contains(words), "{line}: {told}");
        let told = told.strip_prefix("the rate limiter can't count on localhost:7: ").unwrap();
        let told = told.replace("{...}", "{}");
        for unfit in ["5f3c", "user_script", "beginning with", "bolna", "limiter ", "  ", ".."] {
            assert!(!told.contains(unfit), "{unfit:?} of {line}: {told}");
        }
    }
}

#[test]
fn what_is_wrong_with_the_password_or_the_user_is_told() {
    assert_told(&[
        ("HELLO", "NOAUTH Authentication required.", Kind::WrongPassword, "given none"),
        (
            "HELLO",
            "NOAUTH HELLO must be called with the client already authenticated, otherwise \
          the HELLO <proto> AUTH <user> <pass> option can be used",
            Kind::WrongPassword,
            "none",
        ),
        (
            "AUTH",
            "WRONGPASS invalid username-password pair or user is disabled.",
            Kind::WrongPassword,
            "no such user with that password",
        ),
        (
            "AUTH",
            "ERR AUTH <password> called without any password configured for the default \
          user. Are you sure your configuration is correct?",
            Kind::WrongPassword,
            "has none",
        ),
        ("AUTH", "ERR Client sent AUTH, but no password is set", Kind::WrongPassword, "has none"),
        (
            "AUTH",
            "ERR wrong number of arguments for 'auth' command",
            Kind::WrongPassword,
            "no users",
        ),
        ("AUTH", "ERR invalid password", Kind::WrongPassword, "no such user"),
        (
            "AUTH",
            "ERR token expired",
            Kind::WrongPassword,
            "refuses the user or the password: \
          token expired",
        ),
        ("AUTH", "ERR unknown command 'AUTH'", Kind::MissingCommand, "does not know passwords"),
        (
            "HELLO",
            "DENIED Redis is running in protected mode because protected mode is enabled \
          and no password is set for the default user.",
            Kind::WrongPassword,
            "protected mode",
        ),
        (
            "SELECT",
            "NOPERM User limiter has no permissions to run the 'select' command",
            Kind::MissingPermission,
            "'select' command",
        ),
        (
            "EVALSHA",
            "NOPERM this user has no permissions to run the 'evalsha' command",
            Kind::MissingPermission,
            "'evalsha' command. The store needs",
        ),
        (
            "EVAL",
            "NOPERM ACL failure in script: User limiter has no permissions to run the 'time' \
          command script: 5f3c2a1b5f3c2a1b5f3c2a1b5f3c2a1b5f3c2a1b, on @user_script:1.",
            Kind::MissingPermission,
            "'time' command. The store needs",
        ),
        (
            "EVAL",
            "ERR Error running script (call to f_5f3c2a1b5f3c2a1b5f3c2a1b5f3c2a1b5f3c2a1b): \
          @user_script:1: The user executing the script can't run this command or subcommand ",
            Kind::MissingPermission,
            "permission: The user executing the script can't run",
        ),
        (
            "EVAL",
            "ERR The user executing the script can't run this command or subcommand script: \
             1a8c67671c988614eb0c618efa73283c54565629, on @user_script:1.",
            Kind::MissingPermission,
            "can't run this command or subcommand. The store needs",
        ),
        (
            "EVAL",
            "ERR The user executing the script can't access at least one of the keys mentioned in \
             the command arguments script: 443554f6290e7caaf46052fb30fa789790441b80, on \
             @user_script:1.",
            Kind::MissingPermission,
            "in the command arguments. The store needs",
        ),
        ("EVAL", "NOPERM No permissions to access a key", Kind::MissingPermission, "access a key"),
    ]);
}

#[test]
fn a_command_that_is_missing_is_told() {
    assert_told(&[
        (
            "HELLO",
            "ERR unknown command `HELLO`, with args beginning with: ",
            Kind::MissingCommand,
            "unknown command `HELLO`. See",
        ),
        ("HELLO", "ERR unknown command 'HELLO'", Kind::MissingCommand, "proxy"),
        (
            "TIME",
            "ERR unknown command 'TIME', with args beginning with: ",
            Kind::MissingCommand,
            "'TIME'",
        ),
        (
            "SELECT",
            "ERR unknown command 'SELECT', with args beginning with: '3' ",
            Kind::NoDatabase,
            "database 0 only",
        ),
        (
            "SELECT",
            "ERR SELECT is not allowed in cluster mode",
            Kind::NoDatabase,
            "redis+cluster://",
        ),
        ("SELECT", "ERR DB index is out of range", Kind::NoDatabase, "out of range. Choose"),
        ("SELECT", "ERR invalid DB index", Kind::NoDatabase, "does not have that database"),
        ("SELECT", "ERR not here", Kind::NoDatabase, "refuses to use that database: not here"),
        (
            "EVAL",
            "ERR Unknown Redis command called from script",
            Kind::MissingCommand,
            "scripts need TIME",
        ),
        ("CLUSTER", "ERR unknown command 'CLUSTER'", Kind::MissingCommand, "redis://"),
    ]);
}

#[test]
fn what_is_wrong_with_scripts_is_told() {
    assert_told(&[
        (
            "EVALSHA",
            "ERR unknown command 'EVALSHA', with args beginning with: '5f3c' '1' 'bolna' ",
            Kind::NoScripts,
            "EVAL and EVALSHA",
        ),
        (
            "EVAL",
            "ERR Command is not available: 'EVAL'. See the documentation",
            Kind::NoScripts,
            "does not run scripts",
        ),
        ("EVAL", "ERR Could not find scripting engine 'lua'", Kind::NoScripts, "'lua'"),
        ("EVAL", "NOSCRIPT No matching script. Please use EVAL.", Kind::NoScripts, "scripts"),
        ("EVAL", "ERR This Redis command is not allowed from script", Kind::NoScripts, "TIME"),
        ("EVAL", "ERR syntax error", Kind::Other, "syntax error"),
        ("HELLO", "ERR syntax error", Kind::Other, "syntax error"),
    ]);
}

#[test]
fn what_keeps_a_server_from_writing_is_told() {
    assert_told(&[
        ("HELLO", "ERR max number of clients reached", Kind::Busy, "maxclients"),
        ("HELLO", "ERR max number of clients + cluster connections reached", Kind::Busy, "as many"),
        (
            "EVAL",
            "READONLY You can't write against a read only replica.",
            Kind::ReadOnly,
            "replica",
        ),
        (
            "EVAL",
            "ERR Error running script (call to f_5f3c2a1b5f3c2a1b5f3c2a1b5f3c2a1b5f3c2a1b): \
          @user_script:9: @user_script: 9: -READONLY You can't write against a read only replica. ",
            Kind::ReadOnly,
            "primary",
        ),
        ("EVAL", "NOREPLICAS Not enough good replicas to write.", Kind::ReadOnly, "min-replicas"),
        (
            "EVAL",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to \
          persist to disk.",
            Kind::ReadOnly,
            "disk",
        ),
        (
            "EVAL",
            "OOM command not allowed when used memory > 'maxmemory'.",
            Kind::OutOfMemory,
            "volatile-ttl",
        ),
        (
            "EVAL",
            "ERR Error running script (call to f_5f3c2a1b5f3c2a1b5f3c2a1b5f3c2a1b5f3c2a1b): \
          @user_script:9: @user_script: 9: -OOM command not allowed when used memory > \
          'maxmemory'.",
            Kind::OutOfMemory,
            "maxmemory",
        ),
        ("EVAL", "LOADING Redis is loading the dataset in memory", Kind::Busy, "loading"),
        (
            "EVAL",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN \
          NOSAVE.",
            Kind::Busy,
            "script",
        ),
    ]);
}

#[test]
fn what_is_wrong_with_a_cluster_is_told() {
    assert_told(&[
        (
            "EVAL",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to \
          'no'.",
            Kind::NoPrimary,
            "lost its primary",
        ),
        ("EVAL", "CLUSTERDOWN Hash slot not served", Kind::NoPrimary, "slot not served. See"),
        ("EVAL", "MOVED 3999 127.0.0.1:6381", Kind::WrongServer, "redis+cluster://"),
        ("EVAL", "CROSSSLOT Keys in request don't hash to the same slot", Kind::Other, "{...}"),
        (
            "CLUSTER",
            "ERR This instance has cluster support disabled",
            Kind::WrongServer,
            "cluster support disabled. Name it by redis://",
        ),
    ]);
}

#[test]
fn any_other_error_is_quoted() {
    assert_told(&[
        ("EVAL", "ERR the task is at room 5", Kind::Other, "the task is at room 5"),
        (
            "EVAL",
            "ERR it broke script: 5f3c2a1b5f3c2a1b5f3c2a1b5f3c2a1b5f3c2a1b, on @user_script:12.",
            Kind::Other,
            "with an error: it broke",
        ),
    ]);
}

fn io(kind: io::ErrorKind, text: &str) -> RedisError {
    io::Error::new(kind, text).into()
}

#[test]
fn a_connection_that_fails_is_told_and_what_may_be_wrong() {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, InvalidData, TimedOut, UnexpectedEof};

    let tls = || {
        let mut server = plain();
        server.tls = true;
        server
    };
    for (server, asked, error, words) in [
        (plain(), "", io(ConnectionRefused, "refused"), "can't be reached: refused"),
        (plain(), "", io(TimedOut, "timed out"), "can't be reached: timed out"),
        (plain(), "HELLO", io(UnexpectedEof, "eof"), "rediss://"),
        (plain(), "EVALSHA", io(ConnectionReset, "reset"), "the connection to it broke: reset"),
        (
            tls(),
            "",
            io(InvalidData, "received corrupt message of type InvalidContentType"),
            "redis://",
        ),
        (tls(), "", io(UnexpectedEof, "tls handshake eof"), "redis://"),
        (tls(), "", io(InvalidData, "invalid peer certificate: UnknownIssuer"), "UnknownIssuer. "),
        (tls(), "HELLO", io(UnexpectedEof, "eof"), "the connection to it broke"),
    ] {
        let error = RedisStoreError::of(&server, asked, &error);
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(is_lost(&server, asked, &io(ConnectionReset, "reset")));
    }
}

#[test]
fn what_does_not_speak_the_protocol_is_told() {
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", "\u{15}\u{3}\u{1}\0\u{2}\u{2}F"] {
        let error = redis::parse_redis_value(answer.as_bytes()).unwrap_err();
        let error = RedisStoreError::of(&plain(), "HELLO", &error);
        assert_eq!(error.kind(), Kind::WrongServer, "{error}");
        assert!(error.to_string().contains("rediss://"), "{error}");
    }
}

#[test]
fn a_server_that_refuses_time_in_scripts_is_known() {
    for line in [
        "ERR This Redis command is not allowed from script script: 53aa, on @user_script:13.",
        "ERR This Valkey command is not allowed from script script: 53aa, on @user_script:13.",
        "ERR Error running script (call to f_53aa): @user_script:1: @user_script: 1: This Redis \
         command is not allowed from scripts ",
        "ERR Unknown Redis command called from script script: 53aa, on @user_script:13.",
        "ERR Write commands not allowed after non deterministic commands.",
    ] {
        assert!(refuses_time(&answer(line)), "{line}");
    }
    for line in [
        "NOPERM ACL failure in script: User x has no permissions to run the 'time' command",
        "ERR unknown command 'TIME'",
        "ERR unknown command 'EVALSHA'",
        "OOM command not allowed when used memory > 'maxmemory'.",
    ] {
        assert!(!refuses_time(&answer(line)), "{line}");
    }
}

#[test]
fn the_questions_about_an_answer_are_answered() {
    let lost = |line| is_lost(&plain(), "EVALSHA", &answer(line));
    assert!(lost("READONLY You can't write against a read only replica."));
    assert!(lost("NOAUTH Authentication required."));
    assert!(lost("CLUSTERDOWN Hash slot not served"));
    assert!(!lost("OOM command not allowed when used memory > 'maxmemory'."));
    assert!(!lost("ERR broken"));

    assert_eq!(is_elsewhere(&answer("MOVED 1 a:1")), Some(true));
    assert_eq!(is_elsewhere(&answer("ASK 1 a:1")), Some(false));
    assert_eq!(is_elsewhere(&answer("TRYAGAIN Multiple keys request")), Some(false));
    assert_eq!(is_elsewhere(&answer("ERR MOVED")), None);
    assert!(is_unknown_script(&answer("NOSCRIPT No matching script.")));
    assert!(is_wrong_type(&answer("WRONGTYPE Operation against a key")));
    let before_7 =
        "ERR Error running script (call to f_5f3c): @user_script:1: -WRONGTYPE Operation";
    assert!(is_wrong_type(&answer(before_7)));
    assert!(!is_wrong_type(&answer("ERR syntax error")));
}

#[test]
fn a_server_that_is_no_sentinel_is_told() {
    let refused = answer("ERR unknown command 'SENTINEL', with args beginning with: 'GET-MASTER'");
    let error = RedisStoreError::of_sentinel(&plain(), "SENTINEL", &refused);
    assert_eq!(error.kind(), Kind::NoPrimary);
    assert_eq!(
        error.to_string(),
        "the rate limiter can't count on the Sentinel localhost:7: it is not a Sentinel: name a \
         server by redis://"
    );
}

#[test]
fn an_error_has_no_ids_and_is_not_long() {
    let key = "bolna:2:{user:u-17}:call:user:u-18";
    let error = answer(&format!("ERR the key '{key}' ({key}) is bad {}", "x".repeat(1000)));
    let error = RedisStoreError::of(&plain(), "EVALSHA", &error);
    let said = error.source().unwrap().to_string();
    assert!(said.starts_with("the key 'bolna:2:{...}' (bolna:2:{...}) is bad xx"), "{said}");
    assert_eq!(said.len(), 200);
    assert!(!error.to_string().contains("u-1"), "{error}");
}

#[test]
fn a_secret_that_looks_like_a_key_is_hidden_before_keys_are() {
    let server = plain().with_credentials(None, Some("hemlig{12345}"));
    let error = RedisStoreError::of(&server, "AUTH", &answer("ERR no hemlig{12345}"));
    assert_eq!(error.source().unwrap().to_string(), "no ***");
}

#[test]
fn an_error_is_a_failure_and_an_event_tells_its_server_once() {
    let error = RedisStoreError::of(&plain(), "EVALSHA", &answer("ERR broken"));
    let reason = Reason::from(&error);
    assert_eq!((reason.kind, reason.to_string()), ("server_error", error.to_string()));
    let seen_from = |server: &str| match reason.lost(&server.into()) {
        StoreEvent::Lost { reason, .. } => reason.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(seen_from("localhost:7"), "it answered with an error: broken");
    assert_eq!(seen_from("the primary m"), "localhost:7: it answered with an error: broken");

    let (server, within) = (plain(), Duration::from_millis(12));
    let silent = RedisStoreError::silent(&server, within);
    assert_eq!(&*Reason::from(&silent).detail, "it has not answered within 12ms");
    let old = RedisStoreError::quoting(Kind::Other, &server, "it is ", "5.0\r\nhemlig-1", "!");
    assert_eq!(&*Reason::from(&old).detail, "it is 5.0 ***!");
}
