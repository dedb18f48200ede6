//! A limit of requests in flight that several processes share.

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::{LocalFallback, MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Limiter, Policy, Quota};

use super::{assert_refused, call, calls_at_once, left, member};
use crate::support::quiet;

type Replica = Limiter<LocalFallback<MemoryStore<ManualClock>, ManualClock>>;

fn replica_of(policy: Policy, replicas: u32) -> Replica {
    let memory = || MemoryStore::with_clock(ManualClock::new());
    let store = LocalFallback::with_local(memory(), memory()).expected_replicas(replicas);
    assert_eq!(store.capabilities().replicas.get(), replicas.max(1));
    quiet(Limiter::with_store(policy, store).unwrap())
}

/// How many calls an account can have in flight.
fn most(limiter: &Replica) -> usize {
    let caller = member("u", "o");
    let mut kept = Vec::new();
    while limiter.check_now(&caller) {
        kept.push(call(limiter, &caller));
    }
    assert_refused(limiter, &caller, &["call-concurrent"]);
    kept.len()
}

trait CheckNow {
    fn check_now(&self, account: &bolna_rate_limit::Account) -> bool;
}

impl CheckNow for Replica {
    fn check_now(&self, account: &bolna_rate_limit::Account) -> bool {
        crate::support::now(self.check(account, "/call").unwrap().wait()).unwrap().is_admitted()
    }
}

#[test]
fn each_replica_allows_its_share_rounded_down_and_at_least_one() {
    for (limit, replicas, part) in
        [(10, 3, 3), (10, 1, 10), (10, 0, 10), (9, 3, 3), (2, 3, 1), (1, 1000, 1), (10, 11, 1)]
    {
        let limiter = replica_of(calls_at_once(limit), replicas);
        assert_eq!(most(&limiter), part, "{limit} among {replicas}");
        assert_eq!(limiter.report().in_flight, 0);
    }
}

#[test]
fn usage_shows_a_replicas_share() {
    let limiter = replica_of(calls_at_once(10), 3);
    let caller = member("u", "o");
    assert_eq!(left(&limiter, &caller, "call-concurrent"), 3);
    let _one = call(&limiter, &caller);
    assert_eq!(left(&limiter, &caller, "call-concurrent"), 2);
}

#[test]
fn a_share_has_room_for_one_request_whatever_it_costs() {
    let limit = LimitBuilder::account("call-concurrent", Quota::concurrent(10)).cost(7);
    let policy = Policy::bolna().also("call", limit).build().unwrap();
    let limiter = replica_of(policy, 3);
    let caller = member("u", "o");
    let first = call(&limiter, &caller);
    assert_refused(&limiter, &caller, &["call-concurrent"]);
    drop(first);
    let _second = call(&limiter, &caller);
}

#[test]
fn clones_of_a_limiter_are_one_process() {
    let limiter = replica_of(calls_at_once(10), 3);
    let clones = [limiter.clone(), limiter.clone(), limiter.clone()];
    let caller = member("u", "o");
    let _kept = clones.each_ref().map(|clone| call(clone, &caller));
    assert_refused(&limiter, &caller, &["call-concurrent"]);
}
