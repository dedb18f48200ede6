//! Looks for what is set up wrongly, mostly in the first requests of a limiter.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::Advice;
use crate::observe::{Event, Observers};
use crate::policy::Policy;
use crate::values::{Decision, Endpoint, Limit, LimitName, Principal, Quota, Ruling};

/// The number of unidentified requests, without an identified one, after which this is reported.
const UNIDENTIFIED: u32 = 16;
/// The number of requests that are marked, so that a second limiter recognises them.
const MARKED: u32 = 16;
/// The number of requests that were all charged to `default` after which this is reported.
const UNMATCHED: u32 = 1000;
/// The number of limiters in a row with one request at most after which this is reported.
const SHORT_LIVED: u32 = 64;

/// The number of limiters in a row that were dropped after one request at most.
static DROPPED: AtomicU32 = AtomicU32::new(0);

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Checkup {
    /// The number of identified requests, counted up to [`UNMATCHED`].
    requests: AtomicU32,
    /// Whether one of them was charged to another endpoint than `default`.
    matched: AtomicBool,
    /// The number of unidentified requests, counted up to [`UNIDENTIFIED`].
    unidentified: AtomicU32,
    /// A bit for each advice that has been given.
    given: AtomicU32,
}

/// What is looked at in a request besides its account and its path. The layer implements it for
/// HTTP requests.
pub(crate) trait Seen {
    /// Whether it is a CORS preflight.
    fn is_preflight(&self) -> bool;

    /// The mark that another limiter has left in the request.
    fn mark(&self) -> Option<&Mark>;
}

/// Stands for the request in a check without one.
pub(crate) struct Nothing;

impl Seen for Nothing {
    fn is_preflight(&self) -> bool {
        false
    }

    fn mark(&self) -> Option<&Mark> {
        None
    }
}

/// What a limiter leaves in its first requests: to what each was charged.
#[derive(Clone)]
pub(crate) struct Mark {
    principal: Principal,
    endpoint: Endpoint,
    quota: Quota,
}

impl Observers {
    /// Looks at an unidentified request. `refused` is whether it is refused.
    pub(crate) fn check_unidentified(&self, seen: &impl Seen, refused: bool) {
        let checkup = &self.checkup;
        if checkup.unidentified.load(Ordering::Relaxed) < UNIDENTIFIED
            && checkup.unidentified.fetch_add(1, Ordering::Relaxed) + 1 == UNIDENTIFIED
            && checkup.requests.load(Ordering::Relaxed) == 0
        {
            self.advise_once(Advice::AllUnidentified { requests: UNIDENTIFIED });
        }
        if refused && seen.is_preflight() {
            self.advise_once(Advice::PreflightCharged { endpoint: None });
        }
    }

    /// Looks at a request about which a limit has decided. The first ones get a mark.
    #[inline]
    pub(crate) fn check(
        &self,
        seen: &impl Seen,
        policy: &Policy,
        principal: &Principal,
        ruling: &Ruling,
    ) -> Option<Box<Mark>> {
        // The endpoint's own limit.
        let decision = ruling.decisions().first()?;
        if seen.is_preflight() {
            self.advise_once(Advice::PreflightCharged { endpoint: ruling.endpoint() });
        }
        if self.checkup.requests.load(Ordering::Relaxed) < UNMATCHED {
            self.check_early(seen, policy, principal, ruling, decision)
        } else {
            None
        }
    }

    #[cold]
    fn check_early(
        &self,
        seen: &impl Seen,
        policy: &Policy,
        principal: &Principal,
        ruling: &Ruling,
        own: &Decision,
    ) -> Option<Box<Mark>> {
        let endpoint = ruling.endpoint()?;
        let checkup = &self.checkup;
        if endpoint != Endpoint::DEFAULT {
            checkup.matched.store(true, Ordering::Relaxed);
        }
        let requests = checkup.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if requests == UNMATCHED && !checkup.matched.load(Ordering::Relaxed) {
            if let Some(endpoint) = policy.first_endpoint() {
                self.advise_once(Advice::NoRuleMatches { requests, endpoint });
            }
        }
        if requests > MARKED || !ruling.is_allowed() {
            return None;
        }
        let quota = own.quota();
        let again = |mark: &Mark| {
            mark.endpoint == endpoint && mark.quota == quota && mark.principal == *principal
        };
        if seen.mark().is_some_and(again) {
            self.advise_once(Advice::ChargedTwice { endpoint });
        }
        Some(Box::new(Mark { principal: principal.clone(), endpoint, quota }))
    }

    /// A request costs more units than a limit can ever allow.
    pub(crate) fn found_too_costly(&self, limit: Limit, cost: u32) {
        self.advise_once(Advice::CostAboveBurst { limit, cost });
    }

    /// An unidentified request is limited by that address.
    pub(crate) fn check_address(&self, address: &Principal) {
        if address == Principal::unknown_address() {
            self.advise_once(Advice::AddressUnknown);
        }
    }

    /// A layer sets costs of a limit that the active policy does not have.
    pub(crate) fn found_unknown_limit(&self, limit: LimitName) {
        self.on_event(&Event::Advice(Advice::UnknownLimit { limit }));
    }

    /// Looks at a policy when it is set.
    pub(crate) fn check_policy(&self, policy: &Policy) {
        for lint in policy.lint() {
            self.on_event(&Event::Advice(lint.into()));
        }
    }

    /// Looks at a limiter when it is dropped.
    pub(crate) fn check_end(&self) {
        let seen = |requests: &AtomicU32| requests.load(Ordering::Relaxed);
        if seen(&self.checkup.requests) + seen(&self.checkup.unidentified) > 1 {
            DROPPED.store(0, Ordering::Relaxed);
        } else if DROPPED.fetch_add(1, Ordering::Relaxed) + 1 == SHORT_LIVED {
            let event = Event::Advice(Advice::LimiterPerRequest { limiters: SHORT_LIVED });
            // The limiter may be dropped because of a panic. A second panic, of an observer, would
            // abort the process.
            let _ = catch_unwind(AssertUnwindSafe(|| self.on_event(&event)));
        }
    }

    #[cold]
    fn advise_once(&self, advice: Advice) {
        let bit = match advice {
            Advice::AllUnidentified { .. } => 1,
            Advice::ChargedTwice { .. } => 2,
            Advice::NoRuleMatches { .. } => 4,
            Advice::CostAboveBurst { .. } => 16,
            Advice::AddressUnknown => 32,
            _ => 8,
        };
        if self.checkup.given.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.on_event(&Event::Advice(advice));
        }
    }
}
