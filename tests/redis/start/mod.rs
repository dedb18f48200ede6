//! A store that starts reports what is wrong with its settings or its server, and works if all is
//! right.

use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use bolna_rate_limit::store::{
    RedisStore, RedisStoreBuilder, RedisStoreError, RedisStoreErrorKind, StoreEvent,
};
use bolna_rate_limit::{Limiter, Policy, Principal, Quota};

use crate::servers::{Server, until};
use crate::support::Events;

mod addresses;
mod lacking;
mod passwords;
mod permissions;
mod secrets;
mod sentinels;
mod settings;
#[cfg(feature = "redis-tls")]
mod tls;
mod unfit;
mod unreachable;

const KEY: &str = "bolna:2:{organization:acme}:default";

/// What the server leaves of the burst after one request, and what a replica without the server
/// leaves of its half.
const LEFT_BY_SERVER: u32 = 9;
const LEFT_BY_REPLICA: u32 = 4;
/// What the server leaves after one request if the replica has admitted another one without it: it
/// is charged for both.
const LEFT_AFTERWARDS: u32 = LEFT_BY_SERVER - 1;

/// The store of one of two replicas. Its deadlines are long, because the servers of all tests share
/// one machine.
fn store(url: impl AsRef<str>) -> RedisStoreBuilder {
    patient(RedisStore::builder(url))
}

fn patient(builder: RedisStoreBuilder) -> RedisStoreBuilder {
    builder
        .deadline(Duration::from_secs(2))
        .connect_timeout(Duration::from_secs(5))
        .expected_replicas(2)
}

/// Why the store does not start: the kind, and the text with all its causes.
async fn refusal(builder: RedisStoreBuilder) -> (RedisStoreErrorKind, String) {
    let error = builder.connect().await.expect_err("it starts");
    (error.kind(), text(&error))
}

/// The text that an operator sees.
fn text(error: &RedisStoreError) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[track_caller]
fn assert_refused<Kind: Copy + PartialEq + Debug>(
    (kind, text): &(Kind, String),
    expected: Kind,
    words: &[impl AsRef<str>],
) {
    assert_eq!(*kind, expected, "{text}");
    for word in words {
        assert!(text.contains(word.as_ref()), "{:?} is not in: {text}", word.as_ref());
    }
}

/// Ten requests at once, and no unit comes back within a test.
fn policy() -> Policy {
    let quota = Quota::per(1, Duration::from_secs(3600)).burst(10).build().unwrap();
    Policy::builder().default_quota(quota).build().unwrap()
}

fn limiter(store: RedisStore) -> Limiter<RedisStore> {
    Limiter::with_store(policy(), store).expect("the store can do what the policy asks for")
}

async fn connect(builder: RedisStoreBuilder) -> Limiter<RedisStore> {
    limiter(builder.connect().await.unwrap())
}

fn acme() -> Principal {
    Principal::organization("acme").unwrap()
}

/// What is left after a request of this organization.
async fn request(limiter: &Limiter<RedisStore>, who: &Principal) -> u32 {
    let ruling = limiter.check(&who.into(), "/").unwrap().wait().await.unwrap();
    ruling.decision().unwrap().remaining()
}

/// Asserts that the store starts, and charges on a server.
async fn assert_counts(builder: RedisStoreBuilder) {
    assert_eq!(request(&connect(builder).await, &acme()).await, LEFT_BY_SERVER);
}

/// A limiter on a store, and the store's events.
async fn connect_degraded(builder: RedisStoreBuilder) -> (Limiter<RedisStore>, Events) {
    let store = builder.start_degraded().connect().await.unwrap();
    let events = Events::of(&store);
    (limiter(store), events)
}

/// The kind of the error by which the server is lost, and the event as text, if that is the only
/// event.
#[track_caller]
fn lost(events: &Events) -> (&'static str, String) {
    match &events.all()[..] {
        [event @ StoreEvent::Lost { kind, .. }] => (kind, event.to_string()),
        other => panic!("{other:?}"),
    }
}

async fn until_regained(events: &Events) {
    until("the server is regained", async || match events.all().last() {
        Some(StoreEvent::Regained { .. }) => Ok(()),
        other => Err(format!("{other:?}").into()),
    })
    .await;
}

/// Makes the user `limiter` with the password `secret` and these rules.
async fn make_user(server: &Server, rules: &[&str]) {
    let user = ["ACL", "SETUSER", "limiter", "reset", "on", ">secret"];
    server.command::<()>(&[&user, rules].concat()).await.unwrap();
}

/// The server's URL with that user.
fn as_user(server: &Server) -> String {
    format!("redis://limiter:secret@127.0.0.1:{}", server.port())
}
