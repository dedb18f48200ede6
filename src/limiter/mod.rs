//! The engine without Tower.

mod candidate;
mod check;
mod in_force;
mod pending;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use crate::account::Account;
use crate::clock::Clock;
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::enforcement::Enforcement;
use crate::insight::{Event, Insight, Listener, Observe};
use crate::policy::{Class, Policy, PolicyError};
use crate::principal::Principal;
use crate::store::{Answer, Bucket, MemoryStore, Store, StoreError, StoreListener};

use candidate::Candidate;

pub use candidate::CandidateReport;
pub use check::LimiterCheck;
pub(crate) use in_force::InForce;
pub(crate) use pending::{Answers, Pending};
pub(crate) use watch::{Watched, tell};

/// A policy and a store: decides, without HTTP and without Tower.
///
/// Clones share everything, so a limiter can be handed to a layer and kept for asking and changing
/// limits.
///
/// ```
/// use bolna_rate_limit::{BolnaRateLimitLayer, Limiter, Policy, Principal, Quota};
///
/// let limiter = Limiter::new(Policy::default());
/// let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
///
/// let caller = Principal::organization("org-4").expect("not empty");
/// let decision = limiter.check_now(&caller, "/call").expect("/call is not exempt");
/// assert_eq!((decision.is_allowed(), decision.remaining()), (true, 499));
///
/// // Under load, without losing what was spent:
/// limiter.set_policy(Policy::bolna().quota("call", Quota::per_minute(2000)).build()?);
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
pub struct Limiter<St = MemoryStore> {
    shared: Arc<Shared<St>>,
}

struct Shared<St> {
    in_force: ArcSwap<InForce>,
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
        let in_force = ArcSwap::from_pointee(InForce::new(policy.into_table()));
        Self { shared: Arc::new(Shared { in_force, store }) }
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy::from_table(Arc::clone(&self.in_force().policy))
    }

    /// Puts another policy in force, for every clone of the limiter and every service made from it.
    ///
    /// A request is judged by the one policy or by the other, never by a mixture. Nothing that was
    /// spent is forgotten: a bucket that would have been full again in 30 s still is, but never
    /// more than drained by the measure of its new quota.
    pub fn set_policy(&self, policy: Policy) {
        let before = self.change(|in_force| in_force.policy = Arc::clone(policy.table()));
        if let Some(insight) = &self.in_force().insight {
            insight.check_policy(policy.table());
            let from = Policy::from_table(Arc::clone(&before.policy));
            insight.happened(&Event::PolicyChanged { from, to: policy });
        }
    }

    /// On whom limits are enforced, by whatever policy. On everybody unless it was set.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        self.in_force().enforcement
    }

    /// Enforces limits on all, on a share of the principals, or on nobody, from the next request
    /// on.
    ///
    /// Where a policy says [for itself or for an endpoint](crate::PolicyBuilder::enforce) on whom
    /// it is enforced, the lesser of both counts. In shadow mode nobody at all is refused,
    /// those whom nobody can be billed for and those about whom the store could not be asked
    /// included; with a share, strangers are not refused either, since they are in no share.
    pub fn set_enforcement(&self, enforcement: Enforcement) {
        let before = self.change(|in_force| in_force.enforcement = enforcement).enforcement;
        if let Some(insight) = self.in_force().insight.as_ref().filter(|_| before != enforcement) {
            insight.happened(&Event::EnforcementChanged { from: before, to: enforcement });
        }
    }

    /// Whether an account's requests to an endpoint are refused when they are over the limit, or go
    /// on all the same, as in shadow mode.
    ///
    /// For those who [`check`](Self::check) without Tower: a [`Decision`] is what the limit says,
    /// whether it is enforced or not, and acting on it is up to them. The account's policy
    /// counts, its own or else the one in force: `false` if it has no such endpoint. For an
    /// account that is nobody's, it is whether requests of nobody are refused: only if the limit is
    /// enforced on everybody.
    ///
    /// ```
    /// use bolna_rate_limit::{Account, Enforcement, Limiter, Principal};
    ///
    /// let limiter = Limiter::default();
    /// limiter.set_enforcement(Enforcement::SHADOW);
    /// let caller = Principal::organization("org-4").expect("the id is not empty");
    /// let decision = limiter.check_now(&caller, "/call").expect("/call is not exempt");
    /// let refused = !decision.is_allowed() && limiter.enforces(&Account::from(&caller), decision.endpoint());
    /// assert!(!refused);
    /// ```
    #[must_use]
    pub fn enforces(&self, account: &Account, endpoint: Endpoint) -> bool {
        let in_force = self.in_force();
        let policy = account.policy().map_or(&in_force.policy, Policy::table);
        let Some(class) = policy.class_of_endpoint(endpoint) else { return false };
        let enforcement = in_force.enforcement.and(class.enforcement);
        account
            .principal()
            .map_or(enforcement == Enforcement::FULL, |principal| enforcement.applies_to(principal))
    }

    /// The policy that is evaluated beside the one in force, if there is one.
    #[must_use]
    pub fn candidate(&self) -> Option<Policy> {
        self.in_force().candidate.as_ref().map(|candidate| candidate.policy())
    }

    /// Evaluates a policy beside the one in force, on the same requests, or none any more: what
    /// would it refuse, were it enforced? Nobody is refused by it, and nothing that it counts
    /// is charged to a bucket that is enforced.
    ///
    /// It has buckets of its own in the same store, so a request costs two checks, and a deferred
    /// answer is waited for until both are there. They begin full, or, when another candidate
    /// was evaluated before, as that has left them: in the first
    /// [`refill_time`](crate::Quota::refill_time) it refuses less than it will. They count towards
    /// a cap of the store, such as [`MemoryStore::max_buckets`], and a [`reset`](Self::reset)
    /// does not fill them. What it says is in each [`Observation`](crate::insight::Observation)
    /// and summed up by [`candidate_report`](Self::candidate_report).
    ///
    /// Requests of accounts that have a policy of their own are not evaluated, nor those to paths
    /// that the policy in force or the candidate exempts, nor those that are refused because of
    /// a [`block`](Self::block), which holds whatever the policy. (If the store answers later,
    /// these are charged to the candidate's buckets all the same.)
    ///
    /// # Errors
    /// When the names of its endpoints would be more than a process can have, [`Endpoint::MOST`]:
    /// nothing changes then.
    pub fn set_candidate(&self, candidate: impl Into<Option<Policy>>) -> Result<(), PolicyError> {
        let to = candidate.into();
        let candidate = match &to {
            Some(policy) => Some(Arc::new(Candidate::new(Arc::clone(policy.table()))?)),
            None => None,
        };
        self.change(|in_force| in_force.candidate.clone_from(&candidate));
        if let Some(insight) = &self.in_force().insight {
            if let Some(policy) = &to {
                insight.check_policy(policy.table());
            }
            insight.happened(&Event::CandidateChanged { to });
        }
        Ok(())
    }

    /// How the candidate has judged since it was set, beside the policy in force: by endpoint, in
    /// the candidate's order. Empty if there is none.
    #[must_use]
    pub fn candidate_report(&self) -> Vec<CandidateReport> {
        self.in_force().candidate.as_ref().map(|candidate| candidate.report()).unwrap_or_default()
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &St {
        &self.shared.store
    }

    #[inline]
    pub(crate) fn in_force(&self) -> Guard<Arc<InForce>> {
        self.shared.in_force.load()
    }

    /// Changes what is in force, and returns it as it was before.
    fn change(&self, change: impl Fn(&mut InForce)) -> Arc<InForce> {
        self.shared.in_force.rcu(|in_force| in_force.with(&change))
    }
}

impl<St: Store> Limiter<St> {
    /// Tells `observer` of every request from now on, and of what happens to the limiter and its
    /// store. There can be several.
    ///
    /// An observer lives as long as the limiter and its store, which may be shared. It must not own
    /// either of them, nor a clone of the limiter or a layer, or none of them is ever freed:
    /// give it a [`Weak`](std::sync::Weak) of what it needs.
    pub fn observe(&self, observer: impl Observe) {
        let observer: Arc<dyn Observe> = Arc::new(observer);
        let add = |in_force: &mut InForce| {
            in_force.insight.get_or_insert_default().add(Arc::clone(&observer))
        };
        let before = self.change(add);
        self.store().subscribe(StoreListener::new({
            let observer = Arc::clone(&observer);
            move |event| observer.happened(&Event::Store(event.clone()))
        }));
        let mut alone = Insight::default();
        alone.add(observer);
        alone.check_policy(&before.policy);
    }

    /// Calls `listener` when something happens to the limiter: limits are changed, the store is
    /// lost, a setting looks wrong. For a line in the log:
    ///
    /// ```
    /// # let limiter = bolna_rate_limit::Limiter::default();
    /// limiter.on_event(|event| eprintln!("rate limiter: {event}"));
    /// ```
    pub fn on_event(&self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.observe(Listener(listener));
    }

    /// Charges `principal` for one request to `path`, if its bucket has the unit. `None` if the
    /// path is exempt.
    ///
    /// `path` is a request's path without its query, as it came over the wire: not decoded.
    #[must_use = "the request has been charged: the decision says whether it may go on"]
    pub fn check(
        &self,
        principal: &Principal,
        path: &str,
    ) -> Option<Answer<LimiterCheck<St::Check>>> {
        let in_force = self.in_force();
        let index = in_force.policy.class_index_of(path)?;
        let class = in_force.policy.class(index);
        let answer = self.store().check(bucket(principal, class));
        let candidate =
            in_force.ask_candidate(self.store(), &in_force.policy, &answer, principal, path);
        match Pending::both(answer, candidate) {
            Ok(Answers { enforced, candidate }) => {
                in_force.conclude_now(class, principal, &enforced, candidate);
                Some(Answer::Now(enforced))
            }
            Err(Pending::One { check }) if in_force.is_plain() => {
                Some(Answer::Later(LimiterCheck::plain(check)))
            }
            Err(pending) => Some(Answer::Later(LimiterCheck::watched(
                pending,
                Guard::into_inner(in_force),
                index,
                principal,
            ))),
        }
    }

    /// How much of an endpoint's quota an account has left, without charging anything: what a check
    /// would decide now. `None` if the account's policy, its own or else the one in force, has
    /// no such endpoint.
    ///
    /// # Errors
    /// When the store can't be asked, or the account is nobody's.
    pub async fn peek(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
    ) -> Result<Option<Decision>, StoreError> {
        let account = account.into();
        match self.policy_of(&account).quota_of(endpoint) {
            Some(quota) => {
                let bucket = Bucket { principal: principal_of(&account)?, endpoint, quota };
                self.store().peek(bucket).await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// How much of each endpoint's quota an account has left, without charging anything: in the
    /// order of its policy, which is its own or else the one in force.
    ///
    /// A platform can show it to its customers, who are told to monitor their usage.
    ///
    /// ```
    /// use bolna_rate_limit::{Account, Limiter};
    ///
    /// # async fn dashboard(limiter: Limiter) -> Result<(), Box<dyn std::error::Error>> {
    /// for usage in limiter.usage(Account::user("u-17").in_organization("org-4")).await? {
    ///     println!("{}: {} of {} left", usage.endpoint(), usage.remaining(), usage.quota().burst());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the store can't be asked, or the account is nobody's.
    pub async fn usage(&self, account: impl Into<Account>) -> Result<Vec<Decision>, StoreError> {
        let account = account.into();
        let principal = principal_of(&account)?;
        let mut usage = Vec::new();
        for (endpoint, quota) in self.policy_of(&account).endpoints() {
            usage.push(self.store().peek(Bucket { principal, endpoint, quota }).await?);
        }
        Ok(usage)
    }

    /// Gives an account a full bucket for an endpoint, of whatever policy, and lifts a
    /// [`block`](Self::block).
    ///
    /// # Errors
    /// When the store can't be asked, or the account is nobody's.
    pub async fn reset(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
    ) -> Result<(), StoreError> {
        let account = account.into();
        self.store().reset(principal_of(&account)?, endpoint).await
    }

    /// Gives an account units of an endpoint's quota back, at most until its bucket is full: for
    /// requests that were charged and should not have been.
    ///
    /// ```
    /// use bolna_rate_limit::{Endpoint, Limiter, Principal};
    ///
    /// # async fn refund(limiter: Limiter) -> Result<(), Box<dyn std::error::Error>> {
    /// let caller = Principal::organization("org-4").expect("the id is not empty");
    /// limiter.grant(&caller, Endpoint::CALL, 100).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the store can't be asked, the account is nobody's, or its policy, its own or else the
    /// one in force, has no such endpoint.
    pub async fn grant(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
        units: u32,
    ) -> Result<(), StoreError> {
        let account = account.into();
        let quota = self.policy_of(&account).quota_of(endpoint);
        let quota = quota.ok_or_else(|| {
            StoreError::of_request(format!("the policy has no endpoint {endpoint}"))
        })?;
        self.store()
            .grant(Bucket { principal: principal_of(&account)?, endpoint, quota }, units)
            .await
    }

    /// Refuses all requests of an account to an endpoint, of whatever policy, from now on for that
    /// period, at most 100 years. Its bucket goes on refilling. A later block replaces this
    /// one; one for no time, or a [`reset`](Self::reset), lifts it.
    ///
    /// Where a limit is [not enforced](Self::enforces) on the account, a block is not either. For
    /// all endpoints, block each:
    ///
    /// ```
    /// use std::time::Duration;
    /// use bolna_rate_limit::{Limiter, Principal};
    ///
    /// # async fn block(limiter: Limiter) -> Result<(), Box<dyn std::error::Error>> {
    /// let abuser = Principal::organization("org-4").expect("the id is not empty");
    /// for (endpoint, _) in limiter.policy().endpoints() {
    ///     limiter.block(&abuser, endpoint, Duration::from_secs(3600)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the store can't be asked, or the account is nobody's.
    pub async fn block(
        &self,
        account: impl Into<Account>,
        endpoint: Endpoint,
        period: Duration,
    ) -> Result<(), StoreError> {
        let account = account.into();
        self.store().block(principal_of(&account)?, endpoint, period).await
    }

    fn policy_of(&self, account: &Account) -> Policy {
        account.policy().cloned().unwrap_or_else(|| self.policy())
    }
}

fn principal_of(account: &Account) -> Result<&Principal, StoreError> {
    account
        .principal()
        .ok_or_else(|| StoreError::of_request("the account is nobody's: its ids are empty"))
}

fn bucket<'a>(principal: &'a Principal, class: &Class) -> Bucket<'a> {
    Bucket { principal, endpoint: class.endpoint, quota: class.quota }
}

impl<C: Clock> Limiter<MemoryStore<C>> {
    /// [`check`](Self::check) where the answer is always there at once and never an error.
    #[must_use = "the request has been charged: the decision says whether it may go on"]
    pub fn check_now(&self, principal: &Principal, path: &str) -> Option<Decision> {
        let in_force = self.in_force();
        let class = in_force.policy.class_of(path)?;
        let decision = self.store().charge(bucket(principal, class));
        if !in_force.is_plain() {
            let answer = Answer::Now(Ok(decision));
            let candidate =
                in_force.ask_candidate(self.store(), &in_force.policy, &answer, principal, path);
            let candidate = candidate.and_then(Answer::now).and_then(Result::ok);
            in_force.conclude_now(class, principal, &Ok(decision), candidate);
        }
        Some(decision)
    }
}

impl<St> Drop for Shared<St> {
    fn drop(&mut self) {
        if let Some(insight) = &self.in_force.load().insight {
            insight.check_end();
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
