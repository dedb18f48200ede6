//! What the tests of the store have in common.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::store::{RedisStore, RedisStoreBuilder, Store, StoreEvent, StoreListener};
use bolna_rate_limit::{Decision, Endpoint, Limiter, Policy, Principal, Quota};
use http::{Request, Response};
use redis::FromRedisValue;

use crate::servers::Server;

/// The deadline of a check. It is long, because the servers of all tests share one machine.
pub(crate) const DEADLINE: Duration = Duration::from_millis(300);

/// The time in which a unit comes back under a [`slow`] policy: longer than any test takes.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A policy under which no unit comes back within a test.
pub(crate) fn slow(burst: u32) -> Policy {
    Policy::builder().default_quota(once_an_hour(burst)).build().unwrap()
}

pub(crate) fn once_an_hour(burst: u32) -> Quota {
    Quota::per(1, HOUR).burst(burst).build().unwrap()
}

/// A store with the tests' deadline. Without the server it has a share of its own, which shows what
/// has decided.
pub(crate) fn store(url: impl AsRef<str>) -> RedisStoreBuilder {
    patient(RedisStore::builder(url))
}

pub(crate) fn patient(builder: RedisStoreBuilder) -> RedisStoreBuilder {
    builder.deadline(DEADLINE).expected_replicas(2)
}

/// One of the processes that share a limit.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) limiter: Limiter<RedisStore>,
    pub(crate) events: Events,
}

impl Replica {
    pub(crate) async fn connect(builder: RedisStoreBuilder, policy: Policy) -> Self {
        let store = builder.connect().await.unwrap();
        let events = Events::of(&store);
        let limiter =
            Limiter::with_store(policy, store).expect("the store can do what the policy asks for");
        // Without observers it then goes the way that it goes in release builds.
        limiter.print_advice(false);
        Self { limiter, events }
    }

    pub(crate) async fn on(server: &Server, policy: Policy) -> Self {
        Self::connect(store(server.url()), policy).await
    }

    /// A request to `/`.
    pub(crate) async fn check(&self, who: &Principal) -> Decision {
        *self.limiter.check(&who.into(), "/").unwrap().wait().await.unwrap().decision().unwrap()
    }

    pub(crate) async fn left(&self, who: &Principal) -> u32 {
        let ruling = self.limiter.peek(who, Endpoint::DEFAULT).await.unwrap().unwrap();
        ruling.decision().unwrap().remaining()
    }

    /// Checks until a request is refused, and returns how many were admitted.
    pub(crate) async fn drain(&self, who: &Principal) -> u32 {
        let mut admitted = 0;
        while self.check(who).await.is_allowed() {
            admitted += 1;
        }
        admitted
    }
}

/// The events of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<StoreEvent>>>);

impl Events {
    /// From now on. Those of a loss during the start included, since it still lasts.
    pub(crate) fn of(store: &RedisStore) -> Self {
        let events = Self::default();
        let told = Arc::clone(&events.0);
        store.subscribe(StoreListener::new(move |event| told.lock().unwrap().push(event.clone())));
        events
    }

    pub(crate) fn all(&self) -> Vec<StoreEvent> {
        self.0.lock().unwrap().clone()
    }
}

pub(crate) fn organization(id: &str) -> Principal {
    Principal::organization(id).unwrap()
}

/// An inner service that answers `200 OK`.
pub(crate) async fn ok<B>(_: Request<B>) -> Result<Response<String>, Infallible> {
    Ok(Response::new("inner".to_owned()))
}

/// The server's time, in microseconds since the epoch.
pub(crate) async fn time_of(server: &Server) -> u64 {
    let (seconds, micros): (u64, u64) = server.command(&["TIME"]).await.unwrap();
    seconds * 1_000_000 + micros
}

/// The result of a command about stored keys, in a cluster too.
pub(crate) async fn stored<T: FromRedisValue>(server: &Server, words: &[&str]) -> T {
    server.command(words).await.unwrap()
}

/// The units of a [`slow`] bucket that the server has charged, an overdraft included.
pub(crate) async fn charged(server: &Server, key: &str) -> u64 {
    let Some(value) = stored::<Option<String>>(server, &["GET", key]).await else { return 0 };
    // The time at which the bucket is full, and perhaps the ends of an overdraft and a block.
    let full_at: u64 = value.split(['+', '!']).next().unwrap().parse().unwrap();
    let hour = u64::try_from(HOUR.as_micros()).unwrap();
    full_at.saturating_sub(time_of(server).await).div_ceil(hour)
}

/// Asserts that the key lasts until this time, in microseconds of the server's clock, and hardly
/// longer. Redis 6.2 has no `PEXPIRETIME`.
pub(crate) async fn assert_lasts_until(server: &Server, key: &str, end: u64) {
    let before = time_of(server).await / 1000;
    let left: u64 = stored(server, &["PTTL", key]).await;
    let after = time_of(server).await / 1000;
    let end = end / 1000;
    assert!(after + left >= end, "{left} ms left at {before} to {after}, and not until {end}");
    assert!(before + left <= end + 3, "{left} ms left at {before} to {after}, past {end}");
}

/// The keys of all buckets, sorted, without the keys of probes.
pub(crate) async fn buckets(server: &Server) -> Vec<String> {
    let mut keys: Vec<String> = stored(server, &["KEYS", "*"]).await;
    keys.retain(|key| !key.contains("{~probe:"));
    keys.sort();
    keys
}

pub(crate) fn key_of(organization: &str) -> String {
    format!("bolna:2:{{organization:{organization}}}:default")
}
