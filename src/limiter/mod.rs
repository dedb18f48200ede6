//! The limiter: a policy, a store, and everything that is decided without HTTP.
//!
//! A [`Limiter`] decides about requests with [`check`](Limiter::check) or, if its store is in this
//! process, with [`check_now`](Limiter::check_now). Work that is not an HTTP request is checked by
//! the name of an endpoint: [`check_endpoint`](Limiter::check_endpoint). The
//! [layer](crate::BolnaRateLimitLayer) is built on it. Keep a clone of the layer's limiter to
//!
//! * change limits while requests run: [`set_policy`](Limiter::set_policy),
//!   [`set_enforcement`](Limiter::set_enforcement);
//! * try limits before they are enforced: [`set_candidate`](Limiter::set_candidate);
//! * look after single callers: [`peek`](Limiter::peek), [`usage`](Limiter::usage),
//!   [`reset`](Limiter::reset), [`refund`](Limiter::refund), [`block`](Limiter::block);
//! * correct single requests after they were admitted, and keep them in flight:
//!   [`admit`](Limiter::admit), [`Admission`];
//! * watch it: [`observe`](Limiter::observe), [`on_event`](Limiter::on_event),
//!   [`report`](Limiter::report).
//!
//! ```
//! use bolna_rate_limit::{Account, BolnaRateLimitLayer, Endpoint, Limiter};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let layer = BolnaRateLimitLayer::new();
//! let limiter: Limiter = layer.limiter().clone();
//!
//! let caller = Account::user("u-17").in_organization("org-4");
//! for decision in limiter.usage(&caller).await? {
//!     println!("{}: {} left", decision.name(), decision.remaining());
//! }
//! limiter.reset(&caller, Endpoint::CALL).await?;
//! # Ok(())
//! # }
//! ```

mod active;
mod admission;
mod admit;
mod bill;
mod candidate;
mod corrections;
mod decide;
mod deciding;
mod in_flight;
mod pending;
mod resets;
mod support;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::observe::{Event, Listener, Observer, Observers, Report};
use crate::policy::{Account, Policy, PolicyError};
use crate::store::{Answer, MemoryStore, Store, StoreListener};
use crate::values::clock::Clock;
use crate::values::{Costs, Endpoint, Enforcement, LimitName, Ruling};

use active::Active;
use candidate::Candidate;
use corrections::Corrections;
use in_flight::InFlight;
use resets::Resets;

pub use admission::Admission;
pub use admit::{Admitted, LimiterAdmit};
pub use candidate::CandidateReport;
pub use deciding::LimiterCheck;

pub(crate) use decide::{Asked, Conclusion, Decided, Rest, Terms};
pub(crate) use deciding::Deciding;

/// Decides about requests by a policy, and counts them in a store. It knows neither HTTP nor Tower.
///
/// Clones share everything. So several layers can use one limiter, and a clone can be kept to look
/// at buckets and to change limits. The settings of a limiter apply to all its clones and layers;
/// the settings of a [layer](crate::BolnaRateLimitLayer) apply to that layer only.
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
/// // While requests run; the bucket keeps its state:
/// limiter.set_policy(Policy::bolna().quota("call", Quota::per_minute(2000)).build()?)?;
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
pub struct Limiter<St = MemoryStore> {
    shared: Arc<LimiterState<St>>,
}

struct LimiterState<St> {
    active: ArcSwap<Active>,
    store: St,
    in_flight: Arc<InFlight>,
    corrections: Corrections,
    resets: Resets,
}

impl Limiter {
    /// A limiter with that policy, which counts in this process.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self::of(policy, MemoryStore::new(), NonZeroU32::MIN)
    }
}

impl<C: Clock> Limiter<MemoryStore<C>> {
    /// A limiter with that policy, which counts in this process by that clock: for tests, with a
    /// [`ManualClock`](crate::values::clock::ManualClock).
    ///
    /// A limiter with another clock is another type than `Limiter`. So a function that is to take
    /// both is generic over the store, as `fn app<St: Store>(limiter: Limiter<St>)`, or takes a
    /// [`Limiter<AnyStore>`](crate::guide::testing#one-type-for-every-store).
    ///
    /// ```
    /// use std::time::Duration;
    /// use bolna_rate_limit::values::clock::ManualClock;
    /// use bolna_rate_limit::{Account, Limiter, Policy};
    ///
    /// let clock = ManualClock::new();
    /// let limiter = Limiter::with_clock(Policy::default(), clock.clone());
    /// let caller = Account::user("u-17");
    /// let admitted = || limiter.check_now(&caller, "/call").is_some_and(|it| it.is_admitted());
    ///
    /// assert_eq!((0..600).filter(|_| admitted()).count(), 500);
    /// clock.advance(Duration::from_millis(120));
    /// assert!(admitted());
    /// ```
    #[must_use]
    pub fn with_clock(policy: Policy, clock: C) -> Self {
        Self::of(policy, MemoryStore::with_clock(clock), NonZeroU32::MIN)
    }
}

impl<St> Limiter<St> {
    fn of(policy: Policy, store: St, replicas: NonZeroU32) -> Self {
        let active = ArcSwap::from_pointee(Active::new(policy));
        let in_flight = Arc::new(InFlight::new(replicas));
        let corrections = Corrections::default();
        let resets = Resets::default();
        Self { shared: Arc::new(LimiterState { active, store, in_flight, corrections, resets }) }
    }

    /// The active policy.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.active().policy.clone()
    }

    /// On which principals this limiter enforces limits, whatever the policy. All of them by
    /// default.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        self.active().enforcement
    }

    /// Sets on which principals limits are enforced from the next request on: on all of them, on a
    /// share, or on none.
    ///
    /// A layer, a policy and a limit can have an
    /// [enforcement of their own](crate::policy::PolicyBuilder::enforce). The least of all these
    /// settings applies. In shadow mode no request is refused because of a limit, nor because the
    /// store failed.
    ///
    /// Enforcement is about limits only. What happens to unidentified requests is decided by
    /// [`on_unidentified`](crate::BolnaRateLimitLayer::on_unidentified) alone.
    pub fn set_enforcement(&self, enforcement: Enforcement) {
        let before = self.change(|active| active.enforcement = enforcement).enforcement;
        if before == enforcement {
            return;
        }
        if let Some(observers) = &self.active().observers {
            observers.on_event(&Event::EnforcementChanged { from: before, to: enforcement });
        }
    }

    /// The candidate policy, which is evaluated beside the active one, if there is one.
    #[must_use]
    pub fn candidate(&self) -> Option<Policy> {
        self.active().candidate.as_ref().map(|candidate| candidate.policy().clone())
    }

    /// How the candidate has decided since it was set, compared with the active policy: one report
    /// for each endpoint of the candidate, in its order. Empty without a candidate.
    #[must_use]
    pub fn candidate_report(&self) -> Vec<CandidateReport> {
        self.active().candidate.as_ref().map(|candidate| candidate.report()).unwrap_or_default()
    }

    /// Sets whether each [advice](crate::observe::Advice) about this limiter is printed on standard
    /// error, in one line.
    ///
    /// In debug builds it is from the start, so that a mistake in the set-up is seen at the first
    /// try. That ends when an observer is added that
    /// [shows advice](crate::observe::Observer::shows_advice), such as a closure of
    /// [`on_event`](Self::on_event) or `Log`, so that no advice is shown twice.
    ///
    /// In release builds, those without debug assertions, advice is not printed unless this is
    /// called with `true`. With `true`, advice about the active policy is printed at once. An
    /// observer that shows advice and is added later switches printing off again.
    ///
    /// ```
    /// use bolna_rate_limit::BolnaRateLimitLayer;
    ///
    /// let layer = BolnaRateLimitLayer::new();
    /// // In a test that sends wrong credentials, for example:
    /// layer.limiter().print_advice(false);
    /// ```
    pub fn print_advice(&self, print: bool) {
        let set = |active: &mut Active| {
            active.observers = Observers::printing(active.observers.take(), print);
        };
        self.change(set);
        let active = self.active();
        if let Some(observers) = &active.observers {
            observers.print_oddities(&active.policy);
        }
    }

    /// The store in which the limiter counts.
    #[must_use]
    pub fn store(&self) -> &St {
        &self.shared.store
    }

    /// Reports to observers if the active policy does not have a limit whose costs a layer sets.
    pub(crate) fn check_cost_of(&self, limit: LimitName) {
        let active = self.active();
        if let Some(observers) = &active.observers {
            if active.policy.cost_of(limit).is_none() {
                observers.found_unknown_limit(limit);
            }
        }
    }

    #[inline]
    fn active(&self) -> Guard<Arc<Active>> {
        self.shared.active.load()
    }

    /// Changes what is active, and returns what was active before.
    fn change(&self, change: impl Fn(&mut Active)) -> Arc<Active> {
        self.shared.active.rcu(|active| active.with(&change))
    }
}

impl<St: Store> Limiter<St> {
    /// A limiter with that policy, which counts in `store`. Limits are enforced on all principals
    /// until [`set_enforcement`](Self::set_enforcement) changes that.
    ///
    /// # Errors
    /// If the store [can't do](crate::store::Capabilities) what a limit of the policy asks for: for
    /// example, a Redis Cluster can't count everyone together. What the policies of single accounts
    /// ask for is checked at each request: one that is beyond the store fails as if the store had
    /// failed.
    pub fn with_store(policy: Policy, store: St) -> Result<Self, PolicyError> {
        let capabilities = store.capabilities();
        capabilities.permit_policy(&policy)?;
        Ok(Self::of(policy, store, capabilities.replicas))
    }

    /// Makes another policy the active one, for all clones of the limiter and all services made
    /// from them.
    ///
    /// Each request is decided by one of the two policies, never by a mixture of both. Buckets keep
    /// their state: a bucket that would have been full again in 30 s still will be, or sooner if a
    /// full refill by its new quota takes less time.
    ///
    /// # Errors
    /// If the store can't do what a limit of the policy asks for, as in
    /// [`with_store`](Self::with_store). Nothing changes then.
    pub fn set_policy(&self, policy: Policy) -> Result<(), PolicyError> {
        self.store().capabilities().permit_policy(&policy)?;
        let before = self.change(|active| active.policy = policy.clone());
        if let Some(observers) = &self.active().observers {
            let from = before.policy.clone();
            observers.check_active_policy(&from, &policy);
            observers.on_event(&Event::PolicyChanged { from, to: policy });
        }
        Ok(())
    }

    /// Evaluates a candidate policy beside the active one, on the same requests, to show what it
    /// would refuse if it were the active one. `None` ends this. A candidate refuses no request,
    /// and does not change the buckets of the active policy.
    ///
    /// What the candidate would have decided is in each
    /// [`Observation`](crate::observe::Observation), and
    /// [`candidate_report`](Self::candidate_report) sums it up.
    ///
    /// ```
    /// use bolna_rate_limit::{Account, Limiter, Policy, Quota};
    ///
    /// let limiter = Limiter::default();
    /// let stricter = Policy::bolna().quota("call", Quota::per_minute(1)).build()?;
    /// limiter.set_candidate(stricter)?;
    /// for _ in 0..3 {
    ///     let ruling = limiter.check_now(&Account::user("u-17"), "/call");
    ///     assert!(ruling.is_some_and(|ruling| ruling.is_admitted()));
    /// }
    /// let refused: u64 = limiter.candidate_report().iter().map(|it| it.newly_limited).sum();
    /// assert_eq!(refused, 2);
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    ///
    /// The candidate has buckets of its own in the same store, and a request has the same costs.
    /// All its limits count, whatever their enforcement. If servers read a path in several ways,
    /// the candidate charges it to all endpoints that it has for these readings, and counts it
    /// under that of the path as it is written.
    ///
    /// * A request costs two checks. If the store does not answer at once, the request waits for
    ///   both of them.
    /// * The buckets start full, or as a previous candidate has left them. So during the first
    ///   [`refill_time`](crate::Quota::refill_time) the candidate refuses less than it would later.
    /// * They count towards a cap of the store, such as [`MemoryStore::max_buckets`].
    /// * [`reset`](Self::reset) does not fill them.
    ///
    /// The candidate is not evaluated for
    ///
    /// * unidentified requests, those that cost more than a limit can ever allow, and those whose
    ///   endpoints, in the active policy or in the candidate, have more limits than one charge can
    ///   have entries;
    /// * requests of accounts that have a policy of their own;
    /// * requests to paths that the active policy or the candidate exempts;
    /// * requests that are [blocked](Self::block), since a block holds under any policy. (If the
    ///   store does not answer at once, they are charged to the candidate's buckets all the same.)
    ///
    /// # Errors
    /// If the process would have more names of endpoints and limits than
    /// [`Endpoint::MAX`](crate::Endpoint::MAX), or if the store can't do what a limit of the
    /// candidate asks for. Nothing changes then.
    pub fn set_candidate(&self, candidate: impl Into<Option<Policy>>) -> Result<(), PolicyError> {
        let to = candidate.into();
        to.as_ref().map_or(Ok(()), |to| self.store().capabilities().permit_policy(to))?;
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

    /// Adds an observer. From now on the limiter reports to it every request that it decides about,
    /// and every [event](Event) of the limiter and its store. A limiter can have several observers.
    ///
    /// The limiter and its store own the observer until they are dropped, and the store may be
    /// shared. So an observer must not own the store, a clone of the limiter or a layer, or none of
    /// them is ever dropped: give it a [`Weak`](std::sync::Weak).
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

    /// Calls `listener` with every [event](Event) of the limiter and its store from now on: limits
    /// were changed, the store was lost, a setting seems wrong. For example, to print a line for
    /// each:
    ///
    /// ```
    /// # let limiter = bolna_rate_limit::Limiter::default();
    /// limiter.on_event(|event| eprintln!("rate limiter: {event}"));
    /// ```
    pub fn on_event(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.observe(Listener(listener));
    }

    /// The current numbers of the limiter and its store, for metrics.
    ///
    /// Call it now and then, for example each time that metrics are read. A store that counts in
    /// this process then also [frees memory](crate::store::MemoryStore#memory). After a pause this
    /// can take some milliseconds: 12 ms for a million buckets.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = Report::new(self.enforcement(), self.store().report());
        report.in_flight = self.shared.in_flight.len();
        self.shared.corrections.report(&mut report);
        report
    }

    /// Decides about one request of that account to `path`, and charges all of its limits if each
    /// of them allows it. `None` if the path is exempt.
    ///
    /// A path that servers read in several ways is charged to the limits of
    /// [several endpoints](Policy::endpoints_of), each limit once, all or nothing. The
    /// [ruling](Ruling) is named by the first of them. If they have more limits than
    /// [one charge](crate::store::Charge::MAX_ENTRIES) can have entries, or than the store
    /// [can charge at once](crate::store::Capabilities), the request is
    /// [refused](crate::values::Outcome::TooAmbiguous), and nothing is charged.
    ///
    /// The account's own policy applies, or else the active one. An account without a principal is
    /// refused. `path` is the request's path as it came over the wire, that is not decoded, without
    /// the query.
    ///
    /// A limit of [requests in flight](crate::policy::PolicyBuilder::concurrent) refuses the
    /// request if it would be one too many, but the request does not count as in flight afterwards:
    /// for that use [`admit`](Self::admit).
    ///
    /// # Errors
    /// The answer is an error if the store fails and the limit is enforced on the principal. Where
    /// it is not enforced, the request is admitted, and the ruling says that the store failed.
    ///
    /// ```
    /// use bolna_rate_limit::{Account, Limiter};
    ///
    /// # async fn place_call(limiter: Limiter) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(check) = limiter.check(&Account::user("u-17"), "/call") {
    ///     let ruling = check.await?;
    ///     println!("admitted: {}", ruling.is_admitted());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "the request has been charged: the ruling says whether it is admitted"]
    pub fn check(&self, account: &Account, path: &str) -> Option<Answer<LimiterCheck<St::Check>>> {
        self.answer(&Asked::of(Some(account), path))
    }

    /// Decides about something that is not an HTTP request, such as a message of a WebSocket or a
    /// job, by the name of an endpoint. Charges all limits of the endpoint if each of them allows
    /// it.
    ///
    /// `costs` is either a number, to charge it like that many requests, or the [`Costs`] of each
    /// limit. Every endpoint needs a path. If no HTTP request should reach this one, give it a path
    /// that no server has, such as `/-/messages`.
    ///
    /// # Errors
    /// The answer is an error as for [`check`](Self::check), and if the policy has no such
    /// endpoint.
    ///
    /// ```
    /// use bolna_rate_limit::{Account, Endpoint, Limiter, Policy, Quota};
    ///
    /// # tokio_test::block_on(async {
    /// let policy = Policy::builder()
    ///     .endpoint("messages", Quota::per_minute(60), ["/-/messages"])
    ///     .build()?;
    /// let messages = Endpoint::new("messages")?;
    /// let limiter = Limiter::new(policy);
    ///
    /// let caller = Account::user("u-17");
    /// let ruling = limiter.check_endpoint(&caller, messages, 50).await?;
    /// assert!(ruling.is_admitted());
    /// let ruling = limiter.check_endpoint(&caller, messages, 20).await?;
    /// assert!(!ruling.is_admitted());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use = "it has been charged: the ruling says whether it is admitted"]
    pub fn check_endpoint(
        &self,
        account: &Account,
        endpoint: Endpoint,
        costs: impl Into<Costs>,
    ) -> Answer<LimiterCheck<St::Check>> {
        let costs = costs.into();
        let answer = self.answer(&Asked::by_name(account, endpoint, &costs));
        answer.unwrap_or_else(|| Answer::Now(self.without_endpoint(account, endpoint)))
    }

    fn answer(&self, asked: &Asked<'_>) -> Option<Answer<LimiterCheck<St::Check>>> {
        match self.decide(asked, &Terms::default(), &asked.target) {
            Decided::Exempt => None,
            Decided::Now(conclusion) => Some(Answer::Now(conclusion.into_result())),
            Decided::Later(deciding) => Some(Answer::Later(LimiterCheck::new(deciding))),
        }
    }
}

impl<C: Clock> Limiter<MemoryStore<C>> {
    /// The same as [`check`](Self::check), for a limiter whose store always answers at once and
    /// never fails. `None` if the path is exempt.
    #[must_use = "the request has been charged: the ruling says whether it is admitted"]
    pub fn check_now(&self, account: &Account, path: &str) -> Option<Ruling> {
        let asked = Asked::of(Some(account), path);
        match self.decide(&asked, &Terms::default(), &asked.target) {
            Decided::Exempt => None,
            Decided::Now(conclusion) => Some(conclusion.ruling),
            Decided::Later(deciding) => deciding.never(),
        }
    }

    /// The same as [`check_endpoint`](Self::check_endpoint), for a limiter whose store always
    /// answers at once and never fails. `None` if the policy has no such endpoint.
    #[must_use = "it has been charged: the ruling says whether it is admitted"]
    pub fn check_endpoint_now(
        &self,
        account: &Account,
        endpoint: Endpoint,
        costs: impl Into<Costs>,
    ) -> Option<Ruling> {
        let costs = costs.into();
        let asked = Asked::by_name(account, endpoint, &costs);
        match self.decide(&asked, &Terms::default(), &asked.target) {
            Decided::Exempt => self.without_endpoint(account, endpoint).ok(),
            Decided::Now(conclusion) => Some(conclusion.ruling),
            Decided::Later(deciding) => deciding.never(),
        }
    }
}

impl<St> Drop for LimiterState<St> {
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
