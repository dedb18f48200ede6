//! The engine without Tower.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::clock::Clock;
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::policy::{Policy, Table};
use crate::principal::Principal;
use crate::store::{Answer, Bucket, MemoryStore, Store, StoreError};

/// A policy and a store: decides, without HTTP and without Tower.
///
/// Clones share everything, so a limiter can be handed to a layer and kept for asking and changing limits.
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
    policy: ArcSwap<Table>,
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
        Self { shared: Arc::new(Shared { policy: ArcSwap::new(policy.into_table()), store }) }
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy::from_table(self.shared.policy.load_full())
    }

    /// Puts another policy in force, for every clone of the limiter and every service made from it.
    ///
    /// A request is judged by the one policy or by the other, never by a mixture. Nothing that was spent is forgotten: a
    /// bucket that would have been full again in 30 s still is, but never more than drained by the measure of its new
    /// quota.
    pub fn set_policy(&self, policy: Policy) {
        self.shared.policy.store(policy.into_table());
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &St {
        &self.shared.store
    }

    pub(crate) fn load_policy(&self) -> Guard<Arc<Table>> {
        self.shared.policy.load()
    }
}

impl<St: Store> Limiter<St> {
    /// Charges `principal` for one request to `path`, if its bucket has the unit. `None` if the path is exempt.
    ///
    /// `path` is a request's path without its query, as it came over the wire: not decoded.
    #[must_use = "the request has been charged: the decision says whether it may go on"]
    pub fn check(&self, principal: &Principal, path: &str) -> Option<Answer<St::Check>> {
        let policy = self.load_policy();
        let class = policy.class_of(path)?;
        Some(self.store().check(Bucket { principal, endpoint: class.endpoint, quota: class.quota }))
    }

    /// How much of an endpoint's quota `principal` has left, without charging anything: what
    /// [`check`](Self::check) would decide now. `None` if the policy in force has no such endpoint.
    ///
    /// It measures by the limiter's own policy. For a principal on a plan of its own, ask the [`store`](Self::store) with
    /// the plan's quota.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub async fn peek(&self, principal: &Principal, endpoint: Endpoint) -> Result<Option<Decision>, StoreError> {
        match self.policy().quota_of(endpoint) {
            Some(quota) => self.store().peek(Bucket { principal, endpoint, quota }).await.map(Some),
            None => Ok(None),
        }
    }

    /// Gives `principal` a full bucket for an endpoint, of whatever policy.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        self.store().reset(principal, endpoint).await
    }
}

impl<C: Clock> Limiter<MemoryStore<C>> {
    /// [`check`](Self::check) where the answer is always there at once and never an error.
    #[must_use = "the request has been charged: the decision says whether it may go on"]
    pub fn check_now(&self, principal: &Principal, path: &str) -> Option<Decision> {
        let policy = self.load_policy();
        let class = policy.class_of(path)?;
        Some(self.store().charge(Bucket { principal, endpoint: class.endpoint, quota: class.quota }))
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
        f.debug_struct("Limiter").field("policy", &self.policy()).field("store", self.store()).finish()
    }
}
