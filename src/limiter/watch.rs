//! What comes of a decision when there is more to it than the decision: observers, a candidate, or
//! enforcement on some only.

use std::sync::Arc;
use std::time::Duration;

use super::in_force::InForce;
use crate::decision::Decision;
use crate::insight::{Insight, Mode, Observation, Outcome};
use crate::policy::{Class, Table};
use crate::principal::Principal;
use crate::store::{Answer, Store, StoreError};

/// A request, as far as observers are told of it.
pub(crate) struct Watched<'a> {
    pub(crate) class: &'a Class,
    pub(crate) principal: &'a Principal,
    /// How long the store took, if it did not answer at once.
    pub(crate) waited: Option<Duration>,
}

impl InForce {
    /// Asks for the candidate's decision beside `answer`, that of the policy in force, to which an
    /// account with limits of its own is not subject.
    pub(crate) fn ask_candidate<St: Store>(
        &self,
        store: &St,
        policy: &Arc<Table>,
        answer: &Answer<St::Check>,
        principal: &Principal,
        path: &str,
    ) -> Option<Answer<St::Check>> {
        // Whoever is blocked is so by whatever policy, and is charged by none.
        if matches!(answer, Answer::Now(Ok(decision)) if decision.is_blocked()) {
            return None;
        }
        // The place is compared and not what it points to: an account may have been given the
        // policy that is in force.
        let candidate = self.candidate.as_ref().filter(|_| std::ptr::eq(policy, &self.policy))?;
        candidate.ask(store, principal, path)
    }

    /// [`conclude`](Self::conclude) for those who have asked without Tower and were answered at
    /// once.
    pub(super) fn conclude_now(
        &self,
        class: &Class,
        principal: &Principal,
        answer: &Result<Decision, StoreError>,
        candidate: Option<Decision>,
    ) {
        if !self.is_plain() {
            let watched = Watched { class, principal, waited: None };
            self.conclude_uncalled(&watched, answer, candidate);
        }
    }

    /// [`conclude`](Self::conclude) for those who have asked without Tower.
    pub(super) fn conclude_uncalled(
        &self,
        watched: &Watched<'_>,
        answer: &Result<Decision, StoreError>,
        candidate: Option<Decision>,
    ) {
        self.conclude(watched, answer, candidate, false);
        if let (Some(insight), Ok(decision)) = (&self.insight, answer) {
            insight.count(&self.policy, decision);
        }
    }

    /// Tells what was decided, and says whether that is enforced. `forgiving` is whether a request
    /// goes on when the store fails.
    pub(crate) fn conclude(
        &self,
        watched: &Watched<'_>,
        answer: &Result<Decision, StoreError>,
        candidate: Option<Decision>,
        forgiving: bool,
    ) -> Mode {
        let enforcement = self.enforcement.and(watched.class.enforcement);
        let mode =
            if enforcement.applies_to(watched.principal) { Mode::Enforced } else { Mode::Shadow };
        let enforced = answer.as_ref().ok().copied();
        let judged = self.candidate.as_ref().zip(candidate);
        let candidate =
            judged.and_then(|(candidate, decision)| candidate.conclude(decision, enforced));
        if let Some(insight) = &self.insight {
            tell(insight, watched, answer, candidate, mode, forgiving);
        }
        mode
    }
}

/// Tells observers what was decided.
#[inline]
pub(crate) fn tell(
    insight: &Insight,
    watched: &Watched<'_>,
    answer: &Result<Decision, StoreError>,
    candidate: Option<Decision>,
    mode: Mode,
    forgiving: bool,
) {
    let outcome = Outcome::of(answer);
    let refused = match outcome {
        Outcome::Allowed(_) => false,
        Outcome::StoreFailed(_) => !forgiving,
        _ => true,
    };
    insight.decided(&Observation {
        principal: Some(watched.principal),
        endpoint: Some(watched.class.endpoint),
        outcome,
        mode,
        admitted: !refused || mode == Mode::Shadow,
        candidate,
        waited: watched.waited,
    });
}
