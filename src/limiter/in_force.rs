//! What is in force: read once for each request, and replaced as a whole.

use std::sync::Arc;

use super::candidate::Candidate;
use crate::enforcement::Enforcement;
use crate::insight::Insight;
use crate::policy::Table;

/// A policy and all that goes with it. A request is judged by one of these, never by a mixture of
/// two.
#[derive(Clone)]
pub(crate) struct InForce {
    pub(crate) policy: Arc<Table>,
    /// On whom anything is enforced, by whatever policy.
    pub(crate) enforcement: Enforcement,
    pub(crate) candidate: Option<Arc<Candidate>>,
    pub(crate) insight: Option<Insight>,
    simple: bool,
}

impl InForce {
    pub(super) fn new(policy: Arc<Table>) -> Self {
        Self {
            policy,
            enforcement: Enforcement::FULL,
            candidate: None,
            insight: None,
            simple: true,
        }
    }

    /// A copy that is changed.
    pub(super) fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed.simple = changed.enforcement == Enforcement::FULL && changed.candidate.is_none();
        changed
    }

    /// Whether there is nothing to do for a request but to decide about it, and to tell observers
    /// if there are any.
    #[inline]
    pub(crate) fn is_simple(&self) -> bool {
        self.simple
    }

    /// Whether there is nothing to do for a request but to decide about it.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.simple && self.insight.is_none()
    }
}
