//! Rules: what a policy says about one endpoint.

use crate::values::{Endpoint, Enforcement, Entry, Quota};

/// What a policy says about one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rule {
    /// What a request to the endpoint is charged.
    pub(crate) entry: Entry,
    /// On which principals the policy enforces the quota. The limiter or a layer may enforce less.
    pub(crate) enforcement: Enforcement,
}

impl Rule {
    pub(super) const fn new(endpoint: Endpoint, quota: Quota, enforcement: Enforcement) -> Self {
        Self { entry: Entry::new(endpoint, quota), enforcement }
    }

    pub(crate) const fn endpoint(&self) -> Endpoint {
        self.entry.endpoint()
    }

    pub(crate) const fn quota(&self) -> Quota {
        self.entry.quota()
    }
}
