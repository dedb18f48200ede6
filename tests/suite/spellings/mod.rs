//! Paths that servers read in several ways, and which are therefore charged to several endpoints.

mod ambiguous;
mod callers;
mod charges;
mod model;
mod others;

use bolna_rate_limit::store::{MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Account, Endpoint, Limiter, Policy, Ruling};

use crate::support::now;

/// `default` as it is written, and `call` where the server decodes it.
const CALL: &str = "/%63all";
/// `agent` as it is written, and `executions` where the server decodes it.
const EXECUTIONS: &str = "/v2/agent/x%2Fexecutions";

type Stopped = Limiter<MemoryStore<ManualClock>>;

fn caller() -> Account {
    Account::user("u-1").in_organization("o-1")
}

fn check(limiter: &Stopped, account: &Account, path: &str) -> Ruling {
    limiter.check_now(account, path).unwrap()
}

/// How many of so many requests are admitted.
fn admitted(limiter: &Stopped, account: &Account, path: &str, requests: usize) -> usize {
    (0..requests).filter(|_| check(limiter, account, path).is_admitted()).count()
}

/// What is left of each limit, by `usage`.
fn left<St: Store>(limiter: &Limiter<St>, account: &Account) -> Vec<(&'static str, u32)> {
    let usage = now(limiter.usage(account)).unwrap();
    usage.iter().map(|it| (it.name().name(), it.remaining())).collect()
}

/// What each limit has left by the ruling, in its order.
fn told(ruling: &Ruling) -> Vec<(&'static str, u32)> {
    ruling.decisions().iter().map(|it| (it.name().name(), it.remaining())).collect()
}

fn charged(policy: &Policy, path: &str) -> Vec<&'static str> {
    policy.endpoints_of(path).iter().map(Endpoint::name).collect()
}
