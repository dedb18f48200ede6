//! Looks for what is set up wrongly: in the first requests of a limiter, and in a sample of all
//! later ones.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::Advice;
use super::charged_twice::Mark;
use super::exemptions::{self, Exemptions};
use super::print::print;
use super::reached::Reached;
use super::sample::Sample;
use super::seen::Seen;
use crate::observe::{Event, Observers};
use crate::policy::{Account, Policy};
use crate::values::{Endpoint, Limit, LimitName, Principal, Ruling};

/// The number of unidentified requests without credentials, and without an identified one, after
/// which this is reported.
const UNIDENTIFIED: u32 = 16;
/// The number of requests that are all marked, so that a second limiter recognises them.
const MARKED: u32 = 16;
/// Each of so many requests at the start is examined. If all of them were charged to `default`,
/// this is reported.
const FIRST: u32 = 1000;
/// The number of limiters in a row with one request at most after which this is reported.
const SHORT_LIVED: u32 = 64;

/// The number of limiters in a row that were dropped after one request at most.
static DROPPED: AtomicU32 = AtomicU32::new(0);

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Checkup {
    /// Whether a request had an account.
    is_identified: AtomicBool,
    /// The number of requests about which a limit has decided, counted up to [`FIRST`].
    requests: AtomicU32,
    /// Whether one of them was charged to another endpoint than `default`.
    is_matched: AtomicBool,
    /// The number of unidentified requests, counted up to [`UNIDENTIFIED`].
    unidentified: AtomicU32,
    /// Whether what is odd about the active policy has been printed, if it is to be.
    is_policy_printed: AtomicBool,
    /// A bit for each advice that has been given.
    given: AtomicU32,
    reached: Reached,
    exemptions: Exemptions,
}

/// A request of an account that is charged.
#[derive(Clone, Copy)]
pub(crate) struct Examined<'a> {
    /// The limiter's policy.
    pub(crate) active: &'a Policy,
    /// The policy by which it is charged: the account's own, or the active one.
    pub(crate) policy: &'a Policy,
    pub(crate) principal: &'a Principal,
    pub(crate) endpoint: Endpoint,
    pub(crate) ruling: &'a Ruling,
}

impl Observers {
    /// Looks at an unidentified request. `refused` is whether it is refused.
    pub(crate) fn check_unidentified(&self, active: &Policy, seen: &impl Seen, refused: bool) {
        let checkup = &self.checkup;
        if checkup.unidentified.load(Ordering::Relaxed) < UNIDENTIFIED {
            let requests = checkup.unidentified.fetch_add(1, Ordering::Relaxed) + 1;
            self.print_oddities(active);
            if !checkup.is_identified.load(Ordering::Relaxed) {
                let has_credentials = seen.has_credentials();
                if has_credentials || requests == UNIDENTIFIED {
                    self.advise_once(Advice::AllUnidentified { requests, has_credentials });
                }
            }
        }
        if refused && seen.is_preflight() {
            self.advise_once(Advice::PreflightCharged { endpoint: None });
        }
    }

    /// Looks at a request of an account that is charged to an endpoint. Some get a mark.
    #[inline(always)]
    pub(crate) fn check(&self, seen: &impl Seen, request: Examined<'_>) -> Option<Box<Mark>> {
        let checkup = &self.checkup;
        let sample = Sample::next();
        let is_looked_at = sample != Sample::PassedOver
            || checkup.requests.load(Ordering::Relaxed) < FIRST
            || !checkup.reached.has(request.endpoint);
        if is_looked_at || seen.is_preflight() { self.look(seen, request, sample) } else { None }
    }

    #[inline(never)]
    fn look(&self, seen: &impl Seen, request: Examined<'_>, sample: Sample) -> Option<Box<Mark>> {
        let Examined { active, policy, principal, endpoint, ruling } = request;
        self.found_reached(endpoint);
        let checkup = &self.checkup;
        let is_early = checkup.requests.load(Ordering::Relaxed) < FIRST;
        // Also if the store failed, so that no limit has decided.
        if (is_early || sample == Sample::Chosen) && policy.is_same(active) {
            self.count_exempt(false, sample);
        }
        self.check_address(principal);
        // The endpoint's own limit.
        let own = ruling.decisions().first()?;
        if seen.is_preflight() {
            self.advise_once(Advice::PreflightCharged { endpoint: Some(endpoint) });
        }
        let mut is_marked = sample == Sample::Chosen;
        if is_early {
            let requests = checkup.requests.fetch_add(1, Ordering::Relaxed) + 1;
            is_marked |= requests <= MARKED;
            self.print_oddities(active);
            self.check_matched(requests, endpoint, policy);
        }
        if is_early || sample == Sample::Chosen {
            let path = seen.path().filter(|_| !checkup.has_given(NOT_REACHED));
            let look = |path| checkup.reached.look(endpoint, policy, path);
            if let Some(advice) = path.and_then(look) {
                self.advise_once(advice);
            }
        }
        if !ruling.is_allowed() {
            return None;
        }
        let is_searched = is_marked || sample == Sample::Searched;
        let mark = if is_searched { seen.mark() } else { None };
        if let Some(advice) = mark.and_then(|mark| mark.compare(principal, endpoint, own)) {
            self.advise_once(advice);
        }
        let is_marked = is_marked && seen.can_be_marked();
        is_marked.then(|| Box::new(Mark::new(principal, endpoint, own)))
    }

    /// Whether any of the first requests was charged to another endpoint than `default`.
    fn check_matched(&self, requests: u32, endpoint: Endpoint, policy: &Policy) {
        let checkup = &self.checkup;
        if endpoint != Endpoint::DEFAULT {
            checkup.is_matched.store(true, Ordering::Relaxed);
        }
        let is_reported =
            checkup.is_matched.load(Ordering::Relaxed) || checkup.has_given(NOT_REACHED);
        if requests == FIRST && !is_reported {
            if let Some(endpoint) = policy.first_endpoint() {
                self.advise_once(Advice::NoRuleMatches { requests, endpoint });
            }
        }
    }

    /// Looks at a request of an account whose path is exempt.
    #[inline]
    pub(crate) fn check_exempt(&self, active: &Policy, account: &Account, path: &str) {
        let checkup = &self.checkup;
        let sample = Sample::next();
        if checkup.counts_exempt(sample) || !checkup.is_identified.load(Ordering::Relaxed) {
            self.look_at_exempt(active, account, path, sample);
        }
    }

    #[inline(never)]
    fn look_at_exempt(&self, active: &Policy, account: &Account, path: &str, sample: Sample) {
        let checkup = &self.checkup;
        checkup.is_identified.store(true, Ordering::Relaxed);
        self.print_oddities(active);
        // A policy of the account's own may well exempt all that it asks for, and the limiter's may
        // be without limits by intention.
        let may_be_wrong = account.policy().is_none() && active.endpoints().next().is_some();
        if may_be_wrong && !exemptions::is_file(path) {
            self.count_exempt(true, sample);
        }
    }

    /// Counts a request of an account, exempt or not.
    fn count_exempt(&self, is_exempt: bool, sample: Sample) {
        let checkup = &self.checkup;
        if checkup.counts_exempt(sample) {
            if let Some(advice) = checkup.exemptions.count(is_exempt) {
                self.advise_once(advice);
            }
        }
    }

    /// A request of an account is charged to that endpoint, or would be if it did not cost too
    /// much.
    pub(crate) fn found_reached(&self, endpoint: Endpoint) {
        let checkup = &self.checkup;
        // Written once, and read ever after.
        if !checkup.reached.has(endpoint) {
            checkup.is_identified.store(true, Ordering::Relaxed);
            checkup.reached.insert(endpoint);
        }
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

    /// Looks at a policy when it has become the active one in place of another.
    pub(crate) fn check_active_policy(&self, before: &Policy, policy: &Policy) {
        let checkup = &self.checkup;
        if before != policy {
            checkup.reached.clear();
            checkup.exemptions.clear();
        }
        checkup.is_policy_printed.store(self.prints, Ordering::Relaxed);
        self.check_policy(policy);
    }

    /// Prints what is odd about the active policy, if advice is printed and this has not been. It
    /// waits for the first request, since until then a closure may be added that receives advice.
    pub(crate) fn print_oddities(&self, active: &Policy) {
        if self.prints && !self.checkup.is_policy_printed.swap(true, Ordering::Relaxed) {
            for lint in active.lint() {
                print(&lint.into());
            }
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
            Advice::EndpointNotReached { .. } => NOT_REACHED,
            Advice::NearlyAllExempt { .. } => 128,
            _ => 8,
        };
        if self.checkup.given.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.on_event(&Event::Advice(advice));
        }
    }
}

/// The bit of [`Advice::EndpointNotReached`].
const NOT_REACHED: u32 = 64;

impl Checkup {
    /// Whether an exempt request is counted: each of the first ones is, and later those of the
    /// sample. Charged requests are counted in the same way, or the shares of the two could not be
    /// compared.
    #[inline]
    fn counts_exempt(&self, sample: Sample) -> bool {
        sample == Sample::Chosen
            || self.exemptions.are_new() && self.requests.load(Ordering::Relaxed) < FIRST
    }

    /// Lets advice be given once more, because it went to observers that show none.
    pub(in crate::observe) fn forget_given(&self) {
        self.given.store(0, Ordering::Relaxed);
        self.reached.forget_suspicion();
    }

    /// Whether the advice with this bit has been given.
    fn has_given(&self, bit: u32) -> bool {
        self.given.load(Ordering::Relaxed) & bit != 0
    }
}
