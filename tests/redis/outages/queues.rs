//! Many requests at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bolna_rate_limit::store::{RedisStore, Store, StoreReport};
use bolna_rate_limit::{Account, Limiter, Policy, Quota};
use tokio::task::JoinSet;

use super::Build;
use crate::servers::{Mode, Proxy, Server};

/// So many requests for one bucket of 500 units at one instant. Returns how many were admitted.
pub(crate) async fn at_one_instant(build: Build, requests: usize) -> (u64, StoreReport) {
    let server = Server::start().await;
    let store = build(&server.url()).connect().await.unwrap();
    let quota = Quota::per(1, Duration::from_secs(3600)).burst(500);
    let policy = Policy::builder().default_quota(quota).build().unwrap();
    let limiter =
        Limiter::with_store(policy, store).expect("the store can do what the policy asks for");
    let mut tasks = JoinSet::new();
    for _ in 0..requests {
        let limiter = limiter.clone();
        tasks.spawn(async move {
            let account = Account::user("one").in_organization("acme");
            limiter.check(&account, "/").unwrap().wait().await.unwrap().is_admitted()
        });
    }
    let admitted = tasks.join_all().await.into_iter().map(u64::from).sum();
    (admitted, limiter.store().report())
}

/// How many checks there were of the bucket and of the other callers, and the store's report.
#[derive(Debug)]
pub(crate) struct TwoQuotas {
    pub(crate) checks: u64,
    pub(crate) of_others: u64,
    pub(crate) report: StoreReport,
}

/// Two limiters measure one bucket by quotas of their own, in turn, with so many requests at a
/// time, beside a hundred other callers, over a network that takes half a millisecond each way.
pub(crate) async fn two_quotas(build: Build, at_once: usize, time: Duration) -> TwoQuotas {
    let server = Server::start().await;
    let proxy = Proxy::to(server.port());
    proxy.set(Mode::Delay(Duration::from_micros(500)));
    let store = Arc::new(build(&proxy.url()).connect().await.unwrap());
    // Generous, so that no request is refused without a call.
    let limiters = [1_000_000, 2_000_000].map(|limit| {
        let quota = Quota::per_second(limit);
        let policy = Policy::builder().default_quota(quota).build().unwrap();
        Limiter::with_store(policy, Arc::clone(&store))
            .expect("the store can do what the policy asks for")
    });
    let (checks, of_others) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..at_once + 100 {
        let limiters: [Limiter<Arc<RedisStore>>; 2] = limiters.clone();
        let account = match number.checked_sub(at_once) {
            None => Account::user(number).in_organization("acme"),
            Some(other) => Account::user(format!("other-{other}")),
        };
        let counts = if number < at_once { &checks } else { &of_others };
        let count = Arc::clone(counts);
        tasks.spawn(async move {
            for turn in number.. {
                if began.elapsed() > time {
                    break;
                }
                let check = limiters[turn % 2].check(&account, "/").unwrap();
                assert!(check.wait().await.unwrap().is_admitted());
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    tasks.join_all().await;
    let [checks, of_others] = [checks, of_others].map(|count| count.load(Ordering::Relaxed));
    TwoQuotas { checks, of_others, report: store.report() }
}
