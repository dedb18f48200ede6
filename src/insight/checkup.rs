//! Looking for what is set up wrongly, in the first requests of a limiter.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{Method, Request};

use super::{Diagnosis, Event, Insight};
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::policy::Table;
use crate::principal::Principal;
use crate::quota::Quota;

/// So many requests of nobody, and none of anybody, are told of.
const STRANGERS: u32 = 16;
/// So many requests are marked, for a second limiter to see.
const MARKED: u32 = 16;
/// After so many requests without a rule that matches, that is told.
const UNMATCHED: u32 = 1000;
/// So many limiters that serve one request at most are told of.
const SHORT_LIVED: u32 = 64;

/// How many limiters in a row have been dropped after one request at most.
static DROPPED: AtomicU32 = AtomicU32::new(0);

/// What has been seen so far.
#[derive(Default)]
pub(crate) struct Checkup {
    /// Requests of somebody, up to [`UNMATCHED`].
    requests: AtomicU32,
    /// Whether one of them was billed to another endpoint than `default`.
    matched: AtomicBool,
    strangers: AtomicU32,
    /// A bit for each diagnosis that has been told.
    told: AtomicU32,
}

/// Left in the first requests of a limiter.
#[derive(Clone)]
pub(crate) struct Mark {
    principal: Principal,
    endpoint: Endpoint,
    quota: Quota,
}

impl Insight {
    /// A request of nobody. `refuses` is whether such requests are refused, when that is enforced.
    pub(crate) fn check_stranger<B>(&self, request: &Request<B>, refuses: bool) {
        let checkup = &self.checkup;
        if checkup.strangers.load(Ordering::Relaxed) < STRANGERS
            && checkup.strangers.fetch_add(1, Ordering::Relaxed) + 1 == STRANGERS
            && checkup.requests.load(Ordering::Relaxed) == 0
        {
            self.tell_once(Diagnosis::NobodyIdentified { requests: STRANGERS });
        }
        if refuses {
            self.check_preflight(request, None);
        }
    }

    /// A request of somebody, about which something was decided. The first ones get a mark.
    #[inline]
    pub(crate) fn check<B>(
        &self,
        request: &Request<B>,
        policy: &Table,
        principal: &Principal,
        decision: &Decision,
    ) -> Option<Box<Mark>> {
        if *request.method() == Method::OPTIONS {
            self.check_preflight(request, Some(decision.endpoint()));
        }
        let number = self.count(policy, decision)?;
        if number <= MARKED && decision.is_allowed() {
            Some(Box::new(self.mark(request, principal, decision)))
        } else {
            None
        }
    }

    /// Counts the first requests: which one it is.
    #[inline]
    pub(crate) fn count(&self, policy: &Table, decision: &Decision) -> Option<u32> {
        (self.checkup.requests.load(Ordering::Relaxed) < UNMATCHED)
            .then(|| self.count_early(policy, decision))
    }

    #[cold]
    fn count_early(&self, policy: &Table, decision: &Decision) -> u32 {
        let checkup = &self.checkup;
        if decision.endpoint() != Endpoint::DEFAULT {
            checkup.matched.store(true, Ordering::Relaxed);
        }
        let requests = checkup.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if requests == UNMATCHED && !checkup.matched.load(Ordering::Relaxed) {
            if let Some(endpoint) = policy.first_endpoint() {
                self.tell_once(Diagnosis::NoRuleMatches { requests, endpoint });
            }
        }
        requests
    }

    #[cold]
    fn mark<B>(&self, request: &Request<B>, principal: &Principal, decision: &Decision) -> Mark {
        let (endpoint, quota) = (decision.endpoint(), decision.quota());
        let again = |mark: &Mark| {
            mark.endpoint == endpoint && mark.quota == quota && mark.principal == *principal
        };
        if request.extensions().get().is_some_and(again) {
            self.tell_once(Diagnosis::ChargedTwice { endpoint });
        }
        Mark { principal: principal.clone(), endpoint, quota }
    }

    fn check_preflight<B>(&self, request: &Request<B>, endpoint: Option<Endpoint>) {
        let headers = request.headers();
        if *request.method() == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        {
            self.tell_once(Diagnosis::PreflightCharged { endpoint });
        }
    }

    /// What can be seen without requests.
    pub(crate) fn check_policy(&self, policy: &Table) {
        policy
            .diagnose()
            .into_iter()
            .for_each(|diagnosis| self.happened(&Event::Diagnosis(diagnosis)));
    }

    /// The limiter is no more.
    pub(crate) fn check_end(&self) {
        let seen = |requests: &AtomicU32| requests.load(Ordering::Relaxed);
        if seen(&self.checkup.requests) + seen(&self.checkup.strangers) > 1 {
            DROPPED.store(0, Ordering::Relaxed);
        } else if DROPPED.fetch_add(1, Ordering::Relaxed) + 1 == SHORT_LIVED {
            let event = Event::Diagnosis(Diagnosis::LimiterPerRequest { limiters: SHORT_LIVED });
            // An observer's panic would end the process if the limiter is dropped because of
            // another.
            let _ = catch_unwind(AssertUnwindSafe(|| self.happened(&event)));
        }
    }

    #[cold]
    fn tell_once(&self, diagnosis: Diagnosis) {
        let bit = match diagnosis {
            Diagnosis::NobodyIdentified { .. } => 1,
            Diagnosis::ChargedTwice { .. } => 2,
            Diagnosis::NoRuleMatches { .. } => 4,
            _ => 8,
        };
        if self.checkup.told.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.happened(&Event::Diagnosis(diagnosis));
        }
    }
}
