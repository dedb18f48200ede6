//! Several limits for one request, on servers: of an account, of each user within it, and of
//! everyone together.

mod by_hand;
mod calls;
mod cluster;
mod costs;
mod enforcement;
mod outages;
mod replicas;
mod spellings;
mod whose;

use std::collections::BTreeMap;

use bolna_rate_limit::policy::{LimitBuilder, PolicyBuilder};
use bolna_rate_limit::store::{RedisStore, Store};
use bolna_rate_limit::{Account, Decision, Endpoint, Limiter, Policy, Ruling};

use crate::servers::Server;
use crate::support::{Replica, buckets, charged, once_an_hour};

/// 10 calls of an organization, 4 of each user, 15 of everyone together. No unit comes back within
/// a test.
fn ten_four_fifteen() -> PolicyBuilder {
    calls(10, 4).also("call", LimitBuilder::everyone("call-all", once_an_hour(15)))
}

/// So many calls of an organization, and of each user.
fn calls(of_organization: u32, of_user: u32) -> PolicyBuilder {
    Policy::bolna()
        .quota("call", once_an_hour(of_organization))
        .also("call", LimitBuilder::user("call-user", once_an_hour(of_user)))
}

fn member(user: &str, organization: &str) -> Account {
    Account::user(user).in_organization(organization)
}

async fn call<St: Store>(limiter: &Limiter<St>, account: &Account) -> Ruling {
    limiter.check(account, "/call").unwrap().wait().await.unwrap()
}

/// How many of 20 calls are admitted.
async fn admitted(limiter: &Limiter<RedisStore>, account: &Account) -> u32 {
    let mut admitted = 0;
    for _ in 0..20 {
        admitted += u32::from(call(limiter, account).await.is_admitted());
    }
    admitted
}

/// What is left of each limit of `/call`, by a peek.
async fn left<St: Store>(limiter: &Limiter<St>, account: &Account) -> Vec<(&'static str, u32)> {
    let ruling = limiter.peek(account, Endpoint::CALL).await.unwrap().unwrap();
    ruling.decisions().iter().map(named).collect()
}

fn named(decision: &Decision) -> (&'static str, u32) {
    (decision.name().name(), decision.remaining())
}

fn names<'a>(decisions: impl Iterator<Item = &'a Decision>) -> Vec<&'static str> {
    decisions.map(|decision| decision.name().name()).collect()
}

/// The units that the server has charged, by the key of the bucket.
async fn charges(server: &Server) -> BTreeMap<String, u64> {
    let mut charges = BTreeMap::new();
    for key in buckets(server).await {
        let units = charged(server, &key).await;
        charges.insert(key, units);
    }
    charges
}

fn keys<const N: usize>(charges: [(&str, u64); N]) -> BTreeMap<String, u64> {
    charges.into_iter().map(|(key, units)| (key.to_owned(), units)).collect()
}

#[track_caller]
fn nothing_was_lost(fleet: &[Replica]) {
    for replica in fleet {
        assert_eq!(replica.events.all(), []);
    }
}
