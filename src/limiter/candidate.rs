//! The candidate: a policy that is evaluated beside the active one.

use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use super::LimiterState;
use super::admission::Held;
use super::bill::rates;
use super::decide::{Asked, Request};
use super::in_flight::Reserved;
use crate::policy::{Account, Charged, MOST_LIMITS, Policy, PolicyError, Rule};
use crate::store::{Answer, Charge, ChargeOutcome, Decisions, Entry, Store};
use crate::values::{Decision, Endpoint, LimitName, OwnedCharge, Principal, Quota, Scope};

/// How a [candidate](crate::Limiter::set_candidate) has decided about the requests to one of its
/// endpoints, compared with the active policy.
///
/// Even a stricter candidate allows some requests that the active policy limits: if a caller sends
/// more than both limits, each policy allows a request whenever a unit has come back, and their
/// units come back at different moments. So the number of requests that the candidate would refuse
/// in addition is [`newly_limited`](Self::newly_limited) minus
/// [`newly_allowed`](Self::newly_allowed).
///
/// ```
/// use bolna_rate_limit::limiter::CandidateReport;
///
/// /// What would change if the candidate were the active policy.
/// fn what_if(it: &CandidateReport) -> String {
///     let all = it.allowed + it.limited + it.newly_limited + it.newly_allowed;
///     let more = it.newly_limited.saturating_sub(it.newly_allowed);
///     format!("{} ({}): refuses {more} more of {all} requests", it.endpoint, it.quota)
/// }
/// # use bolna_rate_limit::{Account, Limiter, Policy, Quota};
/// # let limiter = Limiter::default();
/// # limiter.set_candidate(Policy::bolna().quota("call", Quota::per_minute(1)).build()?)?;
/// # for _ in 0..3 {
/// #     let _ruling = limiter.check_now(&Account::user("u-17"), "/call");
/// # }
/// # let call = &limiter.candidate_report()[2];
/// # assert_eq!(what_if(call), "call (1 request per minute): refuses 2 more of 3 requests");
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CandidateReport {
    /// The endpoint of the candidate.
    pub endpoint: Endpoint,
    /// The quota of the endpoint's own limit in the candidate.
    pub quota: Quota,
    /// The number of requests that both policies allow: all limits of both.
    pub allowed: u64,
    /// The number of requests that both policies limit.
    pub limited: u64,
    /// The number of requests that the candidate limits and the active policy allows.
    pub newly_limited: u64,
    /// The number of requests that the candidate allows and the active policy limits.
    pub newly_allowed: u64,
}

pub(super) struct Candidate {
    policy: Policy,
    /// One for each rule of the policy.
    trials: Vec<Trial>,
}

struct Trial {
    /// The rule under the names by which the store keeps the candidate's buckets.
    rule: Rule,
    /// The number of requests that both policies allow, that only the active one does, that only
    /// the candidate does, and that neither does.
    counts: [AtomicU64; 4],
}

/// The candidate's check of one request.
pub(super) struct Tried<F: Future> {
    /// `None` if the candidate is not evaluated for the request.
    pub(super) answer: Option<Answer<F>>,
    /// The user within the principal, if a limit of the candidate counts each user.
    pub(super) user: Option<Principal>,
    /// If something of the charge may be given back later.
    pub(super) charge: Option<Box<TrialCharge>>,
}

/// A charge of the candidate's buckets, of which something may be given back later.
pub(super) struct TrialCharge {
    /// The index of the rule that names the request.
    index: usize,
    charge: OwnedCharge,
    /// If a limit of the candidate is of requests in flight.
    reserved: Option<Reserved>,
}

impl<F: Future> Default for Tried<F> {
    fn default() -> Self {
        Self { answer: None, user: None, charge: None }
    }
}

impl TrialCharge {
    fn new(index: usize, charge: &Charge<'_>, reserved: Option<Reserved>) -> Self {
        Self { index, charge: OwnedCharge::of(charge), reserved }
    }

    /// The decisions of all limits, once those of the rates are there.
    fn merge(&mut self, decisions: Decisions) -> Decisions {
        match &mut self.reserved {
            Some(reserved) if reserved.look.outcome().is_admitted() => {
                reserved.merge(rates(self.charge.borrow().entries()), &decisions)
            }
            _ => decisions,
        }
    }
}

impl Candidate {
    pub(super) fn new(policy: Policy) -> Result<Self, PolicyError> {
        let trial = |rule: &Rule| match rule.renamed(LimitName::for_candidate) {
            Ok(rule) => Ok(Trial { rule, counts: <[_; 4]>::default() }),
            Err(reason) => Err(PolicyError::LimitName { reason }),
        };
        let trials = policy.rules().iter().map(trial).collect::<Result<_, _>>()?;
        Ok(Self { policy, trials })
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Charges the candidate's buckets for a request, with the request's costs: the buckets of all
    /// endpoints that the candidate charges the path to. There is no answer if the candidate
    /// exempts the path, or charges it to more limits than the store can charge at once.
    pub(super) fn check<St: Store>(
        &self,
        limiter: &LimiterState<St>,
        account: &Account,
        request: &Request<'_>,
        asked: &Asked<'_>,
        corrects: bool,
    ) -> Tried<St::Check> {
        let store = &limiter.store;
        let charged = asked.target.charged(&self.policy);
        let principal = request.charge.principal();
        if let (Charged::One(index), None) = (&charged, asked.costs) {
            if let Some(entry) = self.trials[*index].rule.only() {
                let charge = Charge::of_one(principal, entry);
                let trial = corrects.then(|| Box::new(TrialCharge::new(*index, &charge, None)));
                return Tried { answer: Some(store.check(charge)), user: None, charge: trial };
            }
        }
        let user = request.charge.user().cloned().or_else(|| account.user_principal());
        let applies = |entry: &Entry| entry.scope() != Scope::User || user.is_some();
        let mut entries: SmallVec<[Entry; MOST_LIMITS]> = SmallVec::new();
        for (entry, own) in charged.indices().iter().flat_map(|&index| self.entries(index)) {
            // Endpoints can share a limit.
            let is_known = entries.iter().any(|known| known.name() == entry.name());
            if applies(entry) && !is_known {
                let cost = asked.costs.map_or(own.cost(), |costs| costs.units(own));
                // A cost above the burst is not valid. A request of the whole burst is nearly
                // always limited, as one that costs more would be.
                let cost = cost.min(entry.quota().burst());
                entries.push(entry.with_cost(cost).unwrap_or(*entry));
            }
        }
        let Some(index) = charged.first() else { return Tried::default() };
        let charges_one = matches!(charged, Charged::One(_));
        let is_possible =
            charges_one || !entries.is_empty() && store.capabilities().permits_together(&entries);
        if !is_possible {
            return Tried::default();
        }
        let is_concurrent = entries.iter().any(Entry::is_concurrent);
        if is_concurrent {
            entries.sort_by_key(Entry::is_concurrent);
        }
        let charge = Charge::of(principal, user.as_ref(), &entries);
        let (answer, trial) = if is_concurrent {
            let reserved = limiter.in_flight.reserve(&charge);
            let answer = match reserved.look.outcome() {
                ChargeOutcome::Refused => Answer::Now(Ok(reserved.look.alone(true))),
                _ => store.check(charge.with_entries(rates(&entries))),
            };
            (answer, Some(Box::new(TrialCharge::new(index, &charge, Some(reserved)))))
        } else {
            let trial = corrects.then(|| Box::new(TrialCharge::new(index, &charge, None)));
            (store.check(charge), trial)
        };
        let counts_users = entries.iter().any(|entry| entry.scope() == Scope::User);
        Tried { answer: Some(answer), user: user.filter(|_| counts_users), charge: trial }
    }

    /// The entries of a rule under the names by which the store keeps them, and under their own.
    fn entries(&self, index: usize) -> impl Iterator<Item = (&Entry, &Entry)> + Clone {
        let own = self.policy.rules()[index].entries();
        self.trials[index].rule.entries().iter().zip(own)
    }

    /// Counts the candidate's decisions, and returns them under the limits' own names. `None` if
    /// the request is blocked, since a block holds under any policy.
    pub(super) fn count(
        &self,
        decisions: Decisions,
        active: Option<&Decisions>,
        trial: Option<&mut TrialCharge>,
    ) -> Option<Decisions> {
        if active.is_some_and(|active| active.as_slice().iter().any(Decision::is_blocked)) {
            return None;
        }
        // A store that contradicts itself must not spoil the comparison.
        if decisions.outcome().is_admitted() != decisions.all_allow() {
            return None;
        }
        let (index, decisions) = match trial {
            Some(trial) => (trial.index, trial.merge(decisions)),
            None => {
                let name = decisions.first().name();
                let of = |trial: &Trial| trial.rule.own().name() == name;
                (self.trials.iter().position(of)?, decisions)
            }
        };
        let trial = &self.trials[index];
        if let Some(active) = active {
            let case = usize::from(!decisions.all_allow()) + 2 * usize::from(!active.all_allow());
            trial.counts[case].fetch_add(1, Ordering::Relaxed);
        }
        Some(decisions.renamed(|name| self.own_name(index, name)))
    }

    /// Notes what the candidate's buckets were charged for an admitted request.
    pub(super) fn pay(
        &self,
        trial: TrialCharge,
        outcome: ChargeOutcome,
        corrects: bool,
        held: &mut Held,
    ) {
        if outcome.is_admitted() {
            if corrects {
                let own_name = |name| self.own_name(trial.index, name);
                held.pay(false, &trial.charge.borrow(), |_| true, own_name);
            }
            if let Some(reserved) = trial.reserved {
                held.keep_trial(reserved.into_places());
            }
        }
    }

    /// The limit's own name, by that under which the store keeps the candidate's bucket. `index` is
    /// that of the rule that names the request. The path may be charged to other endpoints, too.
    fn own_name(&self, index: usize, name: LimitName) -> LimitName {
        let rules = [index].into_iter().chain(0..self.trials.len());
        let mut names = rules.flat_map(|index| self.entries(index));
        let known = names.find(|(trial, _)| trial.name() == name);
        known.map_or(name, |(_, own)| own.name())
    }

    pub(super) fn report(&self) -> Vec<CandidateReport> {
        let report = |(rule, trial): (&Rule, &Trial)| {
            let [allowed, newly_limited, newly_allowed, limited] =
                [0, 1, 2, 3].map(|case: usize| trial.counts[case].load(Ordering::Relaxed));
            let (endpoint, quota) = (rule.endpoint(), rule.quota());
            CandidateReport { endpoint, quota, allowed, limited, newly_limited, newly_allowed }
        };
        self.policy.rules().iter().zip(&self.trials).map(report).collect()
    }
}
