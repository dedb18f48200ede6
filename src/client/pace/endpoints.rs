//! Makes the endpoints of a policy.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::common::Common;
use super::endpoint::PacedEndpoint;
use super::group::Group;
use super::limits::Limits;
use super::pair::Pair;
use super::pairs::Pairs;
use super::pool::Pool;
use super::queue::Order;
use super::settings::Settings;
use super::shared::Shared;
use super::state::State;
use crate::client::log::Events;
use crate::policy::Rule;
use crate::values::{Endpoint, Entry, LimitName, Scope};

/// An endpoint and its limits.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) endpoint: Endpoint,
    /// Those that a client keeps to.
    pub(super) entries: Vec<Entry>,
}

impl Member {
    pub(super) fn of(rule: &Rule) -> Self {
        Self { endpoint: rule.endpoint(), entries: paced(rule).copied().collect() }
    }
}

/// A paced endpoint for each endpoint, in the same order.
pub(super) fn paced_endpoints(
    members: &[Member],
    settings: Settings,
    origin: Instant,
    common: &Arc<Common>,
) -> Box<[Arc<PacedEndpoint>]> {
    let mut endpoints = vec![None; members.len()];
    for group in groups(members) {
        let of_group = group.iter().map(|&member| &members[member]);
        let shared = Arc::new(Shared::new(group_of(of_group, settings)));
        for (at, member) in group.into_iter().enumerate() {
            let endpoint = members[member].endpoint;
            let (common, shared) = (Arc::clone(common), Arc::clone(&shared));
            let endpoint = PacedEndpoint::new(endpoint, settings, origin, common, at, shared);
            endpoints[member] = Some(Arc::new(endpoint));
        }
    }
    endpoints.into_iter().flatten().collect()
}

/// The indices of the endpoints that share limits with each other, also by way of others.
fn groups(members: &[Member]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    // The group of each rule, and a rule of each limit.
    let (mut group_of, mut rule_of) = (Vec::new(), HashMap::new());
    for (index, member) in members.iter().enumerate() {
        group_of.push(groups.len());
        groups.push(vec![index]);
        for entry in &member.entries {
            let other = *rule_of.entry(entry.name()).or_insert(index);
            let (one, other) = (group_of[index], group_of[other]);
            if one != other {
                for member in std::mem::take(&mut groups[one]) {
                    group_of[member] = other;
                    groups[other].push(member);
                }
            }
        }
    }
    groups.retain(|members| !members.is_empty());
    groups
}

/// The limits that a client keeps to. Of a rate for everyone, other accounts take most units. But
/// no caller can have more requests in flight than everyone together.
fn paced(rule: &Rule) -> impl Iterator<Item = &Entry> {
    rule.entries().iter().filter(|it| it.scope() != Scope::Everyone || it.is_concurrent())
}

/// The group of these members. Each limit is in it once: it has one cost, whatever the endpoint.
pub(super) fn group_of<'a>(members: impl Iterator<Item = &'a Member>, settings: Settings) -> Group {
    let (mut rates, mut pools) = (Vec::new(), Vec::new());
    let mut known: HashMap<(LimitName, bool), usize> = HashMap::new();
    let mut states = Vec::new();
    for member in members {
        let (mut shares, mut shared_pools) = (Vec::new(), Vec::new());
        for entry in &member.entries {
            let is_own = entry.name() == member.endpoint;
            let at = *known.entry((entry.name(), entry.is_concurrent())).or_insert_with(|| {
                if entry.is_concurrent() {
                    pools.push(Pool::new(entry));
                    pools.len() - 1
                } else {
                    let pair = Pair::new(entry, &settings);
                    rates.push(match (is_own, settings.is_even) {
                        (false, _) => pair,
                        (true, false) => pair.own(),
                        (true, true) => pair.own().even(),
                    });
                    rates.len() - 1
                }
            });
            if entry.is_concurrent() { &mut shared_pools } else { &mut shares }.push(at);
        }
        states.push((member.endpoint, Limits::new(shares, shared_pools)));
    }
    let pairs = Pairs { rates: rates.into(), pools, events: Events::default() };
    let state = |(endpoint, limits)| State::new(endpoint, limits, &pairs, settings);
    let states = states.into_iter().map(state).collect();
    Group::new(states, pairs, Order::new(settings.bulk_share))
}
