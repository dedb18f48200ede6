//! Whether one request is charged twice.

use super::Advice;
use crate::values::{Decision, Endpoint, Principal, Quota};

/// What a limiter leaves in some requests: to what each was charged.
#[derive(Clone)]
pub(crate) struct Mark {
    principal: Principal,
    endpoint: Endpoint,
    quota: Quota,
}

impl Mark {
    /// The mark of a request that is charged to that endpoint, by that decision of its own limit.
    pub(super) fn new(principal: &Principal, endpoint: Endpoint, own: &Decision) -> Self {
        Self { principal: principal.clone(), endpoint, quota: own.quota() }
    }

    /// The advice, if a request with this mark is charged once more for the same.
    pub(super) fn compare(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        own: &Decision,
    ) -> Option<Advice> {
        let is_same =
            self.endpoint == endpoint && self.quota == own.quota() && self.principal == *principal;
        is_same.then_some(Advice::ChargedTwice { endpoint })
    }
}
