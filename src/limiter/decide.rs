//! How the limiter decides about a request.
//!
//! [`Limiter::decide`] finds the rule, charges the bucket and that of the candidate, applies
//! enforcement and reports to observers. The Tower service, `check` and `check_now` all call it.

use std::sync::Arc;
use std::time::Duration;

use super::Limiter;
use super::active::Active;
use super::deciding::Deciding;
use super::pending::{Answers, Pending};
use crate::observe::{Mark, Observation, Seen};
use crate::policy::{Account, Policy, Rule};
use crate::store::{Answer, Charge, Checked, Store, StoreError};
use crate::values::{Decision, Enforcement, OnStoreFailure, OnUnidentified, Principal, Ruling};

/// The settings that a layer adds to those of the limiter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) enforcement: Enforcement,
    pub(crate) on_unidentified: OnUnidentified,
    pub(crate) on_store_failure: OnStoreFailure,
}

/// What was decided about a request, at once or when the store has answered.
pub(crate) enum Decided<F: Future> {
    /// The path is exempt: nothing was decided or counted.
    Exempt,
    Now(Conclusion),
    Later(Deciding<F>),
}

/// A ruling, and what a layer needs besides.
pub(crate) struct Conclusion {
    pub(crate) ruling: Ruling,
    /// Why the store failed. In a box, because admitted requests have this field too.
    pub(crate) error: Option<Box<StoreError>>,
    /// A mark to leave in the request, if the request is admitted.
    pub(crate) mark: Option<Box<Mark>>,
}

impl<St: Store> Limiter<St> {
    /// Decides about a request. `account` is `None` if it has none, and `path` is as it came over
    /// the wire.
    #[inline]
    pub(crate) fn decide(
        &self,
        account: Option<&Account>,
        path: &str,
        terms: &Terms,
        seen: &impl Seen,
    ) -> Decided<St::Check> {
        let active = self.active();
        let own = account.and_then(Account::policy);
        let policy = own.unwrap_or(&active.policy);
        let Some(principal) = account.and_then(Account::principal) else {
            return unidentified(&active, policy, path, terms, seen);
        };
        let Some(rule) = policy.rule_of(path) else { return Decided::Exempt };
        let answer = self.store().check(Charge::of_one(principal, &rule.entry));
        let enforced_on_all =
            (terms.enforcement, rule.enforcement) == (Enforcement::FULL, Enforcement::FULL);
        if active.is_plain() && enforced_on_all {
            return match answer {
                Answer::Now(answer) => {
                    Decided::Now(Conclusion::plain(of_first(answer), rule, terms))
                }
                Answer::Later(check) => Decided::Later(Deciding::plain(check, *rule, *terms)),
            };
        }
        let request = Request { policy, rule, principal, waited: None };
        self.decide_in_full(&active, &request, own.is_some(), path, answer, terms, seen)
    }

    /// When there is more to do than to decide: a candidate, observers, or enforcement on some.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "all of them are needed")]
    fn decide_in_full(
        &self,
        active: &Arc<Active>,
        request: &Request<'_>,
        has_own_policy: bool,
        path: &str,
        answer: Answer<St::Check>,
        terms: &Terms,
        seen: &impl Seen,
    ) -> Decided<St::Check> {
        // A block holds under any policy, and blocked requests are not charged.
        let is_blocked =
            || matches!(&answer, Answer::Now(Ok(decisions)) if decisions.first().is_blocked());
        let candidate = match &active.candidate {
            Some(candidate) if !has_own_policy && !is_blocked() => {
                candidate.check(self.store(), request.principal, path)
            }
            _ => None,
        };
        let (answer, candidate) = match (answer, candidate) {
            (Answer::Now(answer), None) => (of_first(answer), None),
            (answer, candidate) => match Pending::both(answer, candidate) {
                Ok(Answers { active, candidate }) => (active, candidate),
                Err(pending) => {
                    return Decided::Later(Deciding::full(pending, active, request, terms));
                }
            },
        };
        Decided::Now(active.conclude(request, answer, candidate, terms, seen))
    }
}

/// A request that is charged to a principal by a rule.
pub(super) struct Request<'a> {
    pub(super) policy: &'a Policy,
    pub(super) rule: &'a Rule,
    pub(super) principal: &'a Principal,
    /// How long the store took, if it did not answer at once.
    pub(super) waited: Option<Duration>,
}

impl Active {
    /// Draws the conclusion from the store's answer: applies enforcement, counts for the candidate,
    /// and reports to observers.
    #[inline(always)]
    pub(super) fn conclude(
        &self,
        request: &Request<'_>,
        answer: Result<Decision, StoreError>,
        candidate: Option<Decision>,
        terms: &Terms,
        seen: &impl Seen,
    ) -> Conclusion {
        let enforcement = self.enforcement.and(request.rule.enforcement).and(terms.enforcement);
        let enforced = enforcement.applies_to(request.principal);
        let judged = self.candidate.as_ref().zip(candidate);
        let candidate = judged
            .and_then(|(candidate, decision)| candidate.count(decision, answer.as_ref().ok()));
        let (ruling, error) = rule_on(answer, candidate, request.rule, enforced, terms);
        let mut mark = None;
        if let Some(observers) = &self.observers {
            let (principal, error) = (request.principal, error.as_deref());
            let observation = Observation::new(Some(principal), &ruling, error, request.waited);
            observers.on_decision(&observation);
            if let Some(decision) = ruling.decision() {
                mark = observers.check(seen, request.policy, principal, decision);
            }
        }
        Conclusion { ruling, error, mark }
    }
}

impl Conclusion {
    /// For a check without Tower: the ruling, or why the store failed, if the request is refused
    /// for that.
    pub(super) fn into_result(self) -> Result<Ruling, StoreError> {
        match self.error {
            Some(error) if !self.ruling.is_admitted() => Err(*error),
            _ => Ok(self.ruling),
        }
    }

    /// The conclusion for a request that only has to be decided about.
    #[inline]
    pub(super) fn plain(answer: Result<Decision, StoreError>, rule: &Rule, terms: &Terms) -> Self {
        let (ruling, error) = rule_on(answer, None, rule, true, terms);
        Self { ruling, error, mark: None }
    }
}

#[inline]
fn rule_on(
    answer: Result<Decision, StoreError>,
    candidate: Option<Decision>,
    rule: &Rule,
    enforced: bool,
    terms: &Terms,
) -> (Ruling, Option<Box<StoreError>>) {
    match answer {
        Ok(decision) => (Ruling::of_decision(decision, enforced, candidate), None),
        Err(error) => {
            let admits = terms.on_store_failure == OnStoreFailure::Admit;
            let ruling = Ruling::store_failed(rule.endpoint(), enforced, admits, candidate);
            (ruling, Some(Box::new(error)))
        }
    }
}

/// The decision about the only entry of a charge. A store that contradicts itself must not open the
/// gate.
#[inline]
pub(super) fn of_first(answer: Checked) -> Result<Decision, StoreError> {
    match answer {
        Ok(decisions) if decisions.agrees() => Ok(*decisions.first()),
        Ok(_) => Err(contradiction()),
        Err(error) => Err(error),
    }
}

#[cold]
fn contradiction() -> StoreError {
    StoreError::of_request("the store's outcome contradicts its decision")
}

/// Decides about an unidentified request. Enforcement is about limits, so it plays no part in this.
#[inline(never)]
fn unidentified<F: Future>(
    active: &Active,
    policy: &Policy,
    path: &str,
    terms: &Terms,
    seen: &impl Seen,
) -> Decided<F> {
    let admits = terms.on_unidentified == OnUnidentified::Admit;
    let ruling = Ruling::unidentified(admits);
    if admits && active.observers.is_none() {
        return Decided::Now(Conclusion { ruling, error: None, mark: None });
    }
    if policy.exempts(path) {
        return Decided::Exempt;
    }
    if let Some(observers) = &active.observers {
        observers.on_decision(&Observation::new(None, &ruling, None, None));
        observers.check_unidentified(seen, !admits);
    }
    Decided::Now(Conclusion { ruling, error: None, mark: None })
}
