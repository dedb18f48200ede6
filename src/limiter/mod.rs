//! The limiter: everything that is true without HTTP.

mod active;
mod candidate;
mod decide;
mod deciding;
mod pending;
mod support;

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::observe::{Event, Listener, Nothing, Observer, Observers, Report};
use crate::policy::{Account, Policy, PolicyError};
use crate::store::{Answer, MemoryStore, Store, StoreListener};
use crate::values::clock::Clock;
use crate::values::{Enforcement, Ruling};

use active::Active;
use candidate::Candidate;

pub use candidate::CandidateReport;
pub use deciding::LimiterCheck;

pub(crate) use decide::{Decided, Outcome, Terms};
pub(crate) use deciding::Deciding;

/// A policy and a store: decides, without HTTP and without Tower.
///
/// Clones share everything, so a limiter can be handed to several layers, and kept to ask about
/// buckets and to change limits. What is set here holds for all of them; what is set on a
/// [layer](crate::BolnaRateLimitLayer) holds for that layer only.
///
/// ```
/// use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy, Quota};
///
/// let limiter = Limiter::new(Policy::default());
/// let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
///
/// let caller = Account::user("u-17").in_organization("org-4");
/// let ruling = limiter.check_now(&caller, "/call").expect("/call is not exempt");
/// assert!(ruling.is_admitted());
/// assert_eq!(ruling.decision().map(|decision| decision.remaining()), Some(499));
///
/// // Under load, without losing what was spent:
/// limiter.set_policy(Policy::bolna().quota("call", Quota::per_minute(2000)).build()?);
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
pub struct Limiter<St = MemoryStore> {
    shared: Arc<Shared<St>>,
}

struct Shared<St> {
    active: ArcSwap<Active>,
    store: St,
}

impl Limiter {
    /// A limiter that counts in this process.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self::with_store(policy, MemoryStore::new())
    }
}

impl<St> Limiter<St> {
    /// A limiter that counts in `store`.
    #[must_use]
    pub fn with_store(policy: Policy, store: St) -> Self {
        let active = ArcSwap::from_pointee(Active::new(policy));
        Self { shared: Arc::new(Shared { active, store }) }
    }

    /// The active policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.active().policy.clone()
    }

    /// Makes another policy the active one, for every clone of the limiter and every service made
    /// from it.
    ///
    /// A request is decided by the one policy or by the other, never by a mixture. Nothing that was
    /// spent is forgotten: a bucket that would have been full again in 30 s still is, but never
    /// more than drained by the measure of its new quota.
    pub fn set_policy(&self, policy: Policy) {
        let before = self.change(|active| active.policy = policy.clone());
        if let Some(observers) = &self.active().observers {
            observers.check_policy(&policy);
            let from = before.policy.clone();
            observers.on_event(&Event::PolicyChanged { from, to: policy });
        }
    }

    /// On which principals limits are enforced, by whatever policy. On all unless it was set.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        self.active().enforcement
    }

    /// Enforces limits on all principals, on a share of them, or on none, from the next request on.
    ///
    /// Where a layer, a policy or an endpoint has
    /// [an enforcement of its own](crate::policy::PolicyBuilder::enforce), the least of them
    /// counts. In shadow mode no request is refused because of a limit, nor because the store
    /// could not be asked. Enforcement is about limits only: what happens to unidentified requests
    /// is [`on_unidentified`](crate::BolnaRateLimitLayer::on_unidentified) alone.
    pub fn set_enforcement(&self, enforcement: Enforcement) {
        let before = self.change(|active| active.enforcement = enforcement).enforcement;
        if before == enforcement {
            return;
        }
        if let Some(observers) = &self.active().observers {
            observers.on_event(&Event::EnforcementChanged { from: before, to: enforcement });
        }
    }

    /// The policy that is evaluated beside the active one, if there is one.
    #[must_use]
    pub fn candidate(&self) -> Option<Policy> {
        self.active().candidate.as_ref().map(|candidate| candidate.policy().clone())
    }

    /// Evaluates a policy beside the active one, on the same requests, or none any more: what would
    /// it refuse if it were enforced? It refuses no request, and charges no bucket that is
    /// enforced.
    ///
    /// It has buckets of its own in the same store, so a request costs two checks, and if the store
    /// can't answer at once the request waits for both. The buckets begin full, or, if another
    /// candidate was evaluated before, as that one has left them: in the first
    /// [`refill_time`](crate::Quota::refill_time) it refuses less than it will. They count towards
    /// a cap of the store, such as [`MemoryStore::max_buckets`], and a [`reset`](Self::reset) does
    /// not fill them. What it says is in each
    /// [`Observation`](crate::observe::Observation) and summed up by
    /// [`candidate_report`](Self::candidate_report).
    ///
    /// Not evaluated are:
    ///
    /// * requests of accounts that have a policy of their own;
    /// * requests to paths that the active policy or the candidate exempts;
    /// * requests that are refused because of a [`block`](Self::block), which holds under any
    ///   policy. (If the store does not answer at once, these are charged to the candidate's
    ///   buckets all the same.)
    ///
    /// # Errors
    /// When the process would have more names of endpoints than
    /// [`Endpoint::MAX`](crate::Endpoint::MAX). Nothing changes then.
    pub fn set_candidate(&self, candidate: impl Into<Option<Policy>>) -> Result<(), PolicyError> {
        let to = candidate.into();
        let candidate = to.clone().map(Candidate::new).transpose()?.map(Arc::new);
        self.change(|active| active.candidate.clone_from(&candidate));
        if let Some(observers) = &self.active().observers {
            if let Some(policy) = &to {
                observers.check_policy(policy);
            }
            observers.on_event(&Event::CandidateChanged { to });
        }
        Ok(())
    }

    /// How the candidate has decided since it was set, beside the active policy: by endpoint, in
    /// the candidate's order. Empty if there is none.
    #[must_use]
    pub fn candidate_report(&self) -> Vec<CandidateReport> {
        self.active().candidate.as_ref().map(|candidate| candidate.report()).unwrap_or_default()
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &St {
        &self.shared.store
    }

    #[inline]
    fn active(&self) -> Guard<Arc<Active>> {
        self.shared.active.load()
    }

    /// Changes what is active, and returns it as it was before.
    fn change(&self, change: impl Fn(&mut Active)) -> Arc<Active> {
        self.shared.active.rcu(|active| active.with(&change))
    }
}

impl<St: Store> Limiter<St> {
    /// Reports every request from now on to `observer`, and what happens to the limiter and its
    /// store. There can be several observers.
    ///
    /// The limiter and its store, which may be shared, keep the observer for as long as they live.
    /// So an observer must not own either of them, nor a clone of the limiter or a layer, or none
    /// of them is ever freed: give it a [`Weak`](std::sync::Weak) of what it needs.
    pub fn observe(&self, observer: impl Observer) {
        let observer: Arc<dyn Observer> = Arc::new(observer);
        let add = |active: &mut Active| {
            active.observers.get_or_insert_default().add(Arc::clone(&observer));
        };
        let before = self.change(add);
        self.store().subscribe(StoreListener::new({
            let observer = Arc::clone(&observer);
            move |event| observer.on_event(&Event::Store(event.clone()))
        }));
        let mut alone = Observers::default();
        alone.add(observer);
        alone.check_policy(&before.policy);
    }

    /// Calls `listener` when something happens to the limiter: limits are changed, the store is
    /// lost, a setting seems wrong. For a line in the log:
    ///
    /// ```
    /// # let limiter = bolna_rate_limit::Limiter::default();
    /// limiter.on_event(|event| eprintln!("rate limiter: {event}"));
    /// ```
    pub fn on_event(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.observe(Listener(listener));
    }

    /// The numbers of the limiter and its store now, for metrics.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::new(self.enforcement(), self.store().report())
    }

    /// Charges the account's principal for one request to `path`, if its bucket has the unit.
    /// `None` if the path is exempt.
    ///
    /// The account's own policy counts, or else the active one. `path` is a request's path without
    /// its query, as it came over the wire: not decoded. An account without a principal is
    /// refused.
    ///
    /// ```
    /// use bolna_rate_limit::{Account, Limiter};
    ///
    /// # async fn place_call(limiter: Limiter) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(check) = limiter.check(&Account::user("u-17"), "/call") {
    ///     let ruling = check.wait().await?;
    ///     println!("admitted: {}", ruling.is_admitted());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "the request has been charged: the ruling says whether it may go on"]
    pub fn check(&self, account: &Account, path: &str) -> Option<Answer<LimiterCheck<St::Check>>> {
        match self.decide(Some(account), path, &Terms::default(), &Nothing) {
            Decided::Exempt => None,
            Decided::Now(Outcome { ruling, error, .. }) => {
                Some(Answer::Now(error.map_or(Ok(ruling), |error| Err(*error))))
            }
            Decided::Later(deciding) => Some(Answer::Later(LimiterCheck::new(deciding))),
        }
    }
}

impl<C: Clock> Limiter<MemoryStore<C>> {
    /// [`check`](Self::check) where the answer is always there at once and never an error.
    #[must_use = "the request has been charged: the ruling says whether it may go on"]
    pub fn check_now(&self, account: &Account, path: &str) -> Option<Ruling> {
        match self.decide(Some(account), path, &Terms::default(), &Nothing) {
            Decided::Exempt => None,
            Decided::Now(outcome) => Some(outcome.ruling),
            Decided::Later(deciding) => deciding.never(),
        }
    }
}

impl<St> Drop for Shared<St> {
    fn drop(&mut self) {
        if let Some(observers) = &self.active.load().observers {
            observers.check_end();
        }
    }
}

impl<St> Clone for Limiter<St> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

impl<St: fmt::Debug> fmt::Debug for Limiter<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("policy", &self.policy())
            .field("store", self.store())
            .finish()
    }
}
