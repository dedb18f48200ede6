//! Limits of requests in flight.

mod by_hand;
mod candidates;
mod extensions;
mod handlers;
mod over_tcp;
mod policies;
mod replicas;
mod threads;
mod upgrades;

use bolna_rate_limit::limiter::Admission;
use bolna_rate_limit::store::{MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Account, Decision, Limiter, Policy, Ruling};

use crate::support::now;

type Limited = Limiter<MemoryStore<ManualClock>>;

fn member(user: &str, organization: &str) -> Account {
    Account::user(user).in_organization(organization)
}

/// So many calls of an account at once.
fn calls_at_once(limit: u32) -> Policy {
    Policy::bolna().concurrent("call", limit).build().unwrap()
}

/// Decides a request, and returns what it holds if it is admitted.
fn admit<St: Store>(
    limiter: &Limiter<St>,
    account: &Account,
    path: &str,
) -> (Ruling, Option<Admission>) {
    let admitted = now(limiter.admit(account, path).unwrap().wait()).unwrap();
    (admitted.ruling, admitted.admission)
}

/// Admits a call that is in flight as long as what is returned is kept.
#[track_caller]
fn call<St: Store>(limiter: &Limiter<St>, account: &Account) -> Admission {
    let (ruling, admission) = admit(limiter, account, "/call");
    assert!(ruling.is_admitted(), "{ruling:?}");
    admission.unwrap()
}

/// Asserts that a call is refused for these limits.
#[track_caller]
fn assert_refused<St: Store>(limiter: &Limiter<St>, account: &Account, limits: &[&str]) {
    let (ruling, admission) = admit(limiter, account, "/call");
    let violated: Vec<_> = ruling.violated().map(|it| it.name().name()).collect();
    assert!(!ruling.is_admitted() && admission.is_none());
    assert_eq!(violated, limits);
}

/// What is left of a limit, by the account's usage.
fn left<St: Store>(limiter: &Limiter<St>, account: &Account, limit: &str) -> u32 {
    let usage = now(limiter.usage(account)).unwrap();
    let named = |decision: &&Decision| decision.name().name() == limit;
    usage.iter().find(named).unwrap().remaining()
}
