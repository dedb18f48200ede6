//! What a policy takes over from the one that it replaces: everything of limits and endpoints that
//! keep their names, and all requests.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::task::Waker;

use super::endpoint::PacedEndpoint;
use super::endpoints::{Member, paced_endpoints};
use super::known::Known;
use super::pairs::Pairs;
use super::queue::{Order, Request, Ticket};
use super::shared::Shared;
use super::state::{Counts, State};
use super::table::{Active, Table};
use crate::policy::{Policy, Rule};
use crate::values::Endpoint;

/// All that the groups of a policy consist of.
#[derive(Default)]
pub(super) struct Estate {
    pub(super) known: Known,
    states: HashMap<Endpoint, (State, Order)>,
    /// Those of endpoints that are not in the policy.
    counts: HashMap<Endpoint, Counts>,
    /// The endpoint before is that of the state.
    requests: Vec<(Endpoint, Ticket, Request)>,
}

/// Replaces what is active, by calling `replace`. Returns the wakers of all requests that waited.
/// What is known of limits without heirs goes to `gone`, from which a later policy inherits it.
///
/// The locks of all old groups are held, so that no request arrives, is answered or is dropped in
/// the middle. No other code holds two of them at a time.
pub(super) fn inherit(
    table: &Table,
    gone: &mut Known,
    old: &Active,
    policy: Policy,
    replace: impl FnOnce(Active),
) -> Vec<Waker> {
    let groups = distinct(&old.endpoints);
    let mut locked: Vec<_> = groups.iter().map(|group| group.lock()).collect();
    let now = table.now();
    let (known, counts) = (mem::take(gone), old.counts.clone());
    let mut estate = Estate { known, counts, ..Estate::default() };
    for group in &mut locked {
        let (states, pairs, order) = group.give_up(Arc::clone(&table.replacement));
        estate.take(states, pairs, order);
    }
    let members = estate.members(old, &policy);
    let endpoints = paced_endpoints(&members, table.settings, table.origin, &table.common);
    let mut active = Active { policy, members, endpoints, counts: HashMap::new() };
    let mut woken = Vec::new();
    for (before, ticket, mut request) in mem::take(&mut estate.requests) {
        woken.extend(request.take_waker());
        // One whose path is exempt now is sent as soon as it is polled, even if it has expired.
        if let Some(endpoint) = active.of_path(request.path()) {
            endpoint.lock().endpoint(endpoint.at).0.welcome(ticket, request);
        } else if request.has_expired() {
            estate.send_after_all(before);
        }
    }
    for group in distinct(&active.endpoints) {
        group.lock().inherit(&mut estate, now);
    }
    (active.counts, *gone) = estate.leave(now);
    replace(active);
    drop(locked);
    groups.into_iter().for_each(|group| group.notify());
    woken
}

/// The groups of these endpoints, each once.
fn distinct(endpoints: &[Arc<PacedEndpoint>]) -> Vec<&Arc<Shared>> {
    let mut groups: Vec<&Arc<Shared>> = Vec::new();
    for endpoint in endpoints {
        if !groups.iter().any(|group| Arc::ptr_eq(group, &endpoint.group)) {
            groups.push(&endpoint.group);
        }
    }
    groups
}

impl Estate {
    fn take(&mut self, states: Box<[State]>, pairs: Pairs, order: Order) {
        self.known.add_limits(&states, pairs);
        for mut state in states {
            let endpoint = state.endpoint();
            let requests = state.give_up().map(|(ticket, request)| (endpoint, ticket, request));
            self.requests.extend(requests);
            self.states.insert(state.endpoint(), (state, order));
        }
    }

    /// The endpoints of the policy, and those of the policy before to which requests are in flight.
    /// The latter have the limits of the new policy where these have the same names.
    fn members(&self, old: &Active, policy: &Policy) -> Vec<Member> {
        let mut members: Vec<_> = policy.rules().iter().map(Member::of).collect();
        let entries = policy.rules().iter().flat_map(Rule::entries);
        let known: HashMap<_, _> = entries.map(|entry| (entry.name(), *entry)).collect();
        for member in &old.members {
            let is_gone = policy.rules().iter().all(|rule| rule.endpoint() != member.endpoint);
            let is_busy = |(state, _): &(State, Order)| state.is_busy();
            if is_gone && self.states.get(&member.endpoint).is_some_and(is_busy) {
                let entries = member.entries.iter().map(|entry| match known.get(&entry.name()) {
                    Some(new) if new.is_concurrent() == entry.is_concurrent() => *new,
                    _ => *entry,
                });
                members.push(Member { endpoint: member.endpoint, entries: entries.collect() });
            }
        }
        members
    }

    /// What is known of this endpoint, and of the order in which its requests were dispatched.
    pub(super) fn state(&mut self, endpoint: Endpoint) -> Option<(State, Order)> {
        self.states.remove(&endpoint)
    }

    /// A request is sent that this endpoint has counted as unsent.
    fn send_after_all(&mut self, endpoint: Endpoint) {
        if let Some((state, _)) = self.states.get_mut(&endpoint) {
            state.counts.send_after_all();
        }
    }

    /// What an endpoint has counted that was not in the policy before.
    pub(super) fn counts(&mut self, endpoint: Endpoint) -> Option<Counts> {
        self.counts.remove(&endpoint)
    }

    /// What has no heir: what endpoints have counted, and what is known of limits.
    fn leave(self, now: u64) -> (HashMap<Endpoint, Counts>, Known) {
        let Self { mut known, mut counts, states, .. } = self;
        for (endpoint, (state, _)) in states {
            known.add_refusals(endpoint, state.refused_in_a_row, now);
            counts.insert(endpoint, state.counts);
        }
        known.pass_time(now);
        (counts, known)
    }
}
