//! Several limits for one request: users within an organization, days, everyone, costs.

mod addresses;
mod by_hand;
mod costs;
mod enforcement;
mod model;
mod threads;
mod websocket;
mod whose;
mod wire;

use bolna_rate_limit::policy::{LimitBuilder, PolicyBuilder};
use bolna_rate_limit::store::{MemoryStore, Store};
use bolna_rate_limit::values::Scope;
use bolna_rate_limit::{Account, Decision, Endpoint, Limiter, Policy, Quota, Ruling};

use crate::support::now;

/// 10 calls a minute of an organization, 4 of each user, 15 of everyone together.
fn ten_four_fifteen() -> PolicyBuilder {
    Policy::bolna()
        .quota("call", Quota::per_minute(10))
        .also("call", LimitBuilder::user("call-user", Quota::per_minute(4)))
        .also("call", LimitBuilder::everyone("call-all", Quota::per_minute(15)))
}

fn member(user: &str, organization: &str) -> Account {
    Account::user(user).in_organization(organization)
}

fn call<C: bolna_rate_limit::values::clock::Clock>(
    limiter: &Limiter<MemoryStore<C>>,
    account: &Account,
) -> Ruling {
    limiter.check_now(account, "/call").unwrap()
}

/// How many of a hundred calls are admitted.
fn admitted<C: bolna_rate_limit::values::clock::Clock>(
    limiter: &Limiter<MemoryStore<C>>,
    account: &Account,
) -> usize {
    (0..100).filter(|_| call(limiter, account).is_admitted()).count()
}

/// What is left of each limit of `/call`, by a peek.
fn left<St: Store>(limiter: &Limiter<St>, account: &Account) -> Vec<(&'static str, u32)> {
    let ruling = now(limiter.peek(account, Endpoint::CALL)).unwrap().unwrap();
    ruling.decisions().iter().map(named).collect()
}

fn named(decision: &Decision) -> (&'static str, u32) {
    (decision.name().name(), decision.remaining())
}

fn names<'a>(decisions: impl Iterator<Item = &'a Decision>) -> Vec<&'static str> {
    decisions.map(|decision| decision.name().name()).collect()
}

/// The limits of an endpoint, as a policy describes them.
fn described(policy: &Policy, endpoint: Endpoint) -> Vec<(String, Scope)> {
    policy.limits_of(endpoint).map(|it| (it.name().to_string(), it.scope())).collect()
}
