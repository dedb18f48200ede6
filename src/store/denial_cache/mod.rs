//! Refusing without asking, while it is known what the store would say.

mod denial;
mod recent;
mod table;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::{Answer, Bucket, Store, StoreError, StoreListener, StoreReport, nanos};
use crate::clock::{Clock, MonotonicClock};
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::principal::Principal;

use denial::Asked;
use table::Denials;

/// Refuses callers for whom the store has no unit left, without asking it again.
///
/// A bucket without a unit has none until a time that is known, whoever asks. So what the store has
/// answered, be it a refusal or the admission that took the last unit, is remembered until then: an
/// attack on one bucket costs the store one call for each unit that comes back, instead of one for
/// each request.
///
/// What is refused here the store would have refused too, and with the same [`Decision`]: time
/// counts from when the store was asked, never from when the answer came, so a unit that comes back
/// is not held back by the time that an answer takes. But nothing is remembered for longer than the
/// quota's [`emission_interval`](crate::Quota::emission_interval) or 1 s, whichever is less. So
/// when a bucket is reset elsewhere, given units or no more blocked, or measured by another quota
/// there, that is seen here within that time. What is done through this cache is seen at once, and
/// a bucket that is measured by another quota here is asked for.
///
/// Answers that the store gives at once are passed on and not remembered: they cost little already.
/// The same goes for those that were decided by another quota than was asked with, as a
/// [`LocalFallback`](super::LocalFallback) does.
///
/// # Memory
/// At most 57,344 buckets are remembered, in 7 MB; what more there are the store is asked for. Each
/// thread has copies of sixteen that it has refused last. What is out of date is dropped by the
/// answers that follow, a part at a time.
///
/// ```
/// use bolna_rate_limit::store::{Breaker, DenialCache, LocalFallback, MemoryStore};
///
/// # let store = MemoryStore::new();
/// let store = DenialCache::new(LocalFallback::new(Breaker::new(store)).expected_replicas(3));
/// ```
pub struct DenialCache<St, C = MonotonicClock> {
    store: St,
    clock: C,
    denials: Arc<Denials>,
}

impl<St> DenialCache<St> {
    /// An empty cache before `store`, on the operating system's monotonic clock.
    #[must_use]
    pub fn new(store: St) -> Self {
        Self::with_clock(store, MonotonicClock::default())
    }
}

impl<St, C> DenialCache<St, C> {
    /// An empty cache before `store`, on that clock.
    #[must_use]
    pub fn with_clock(store: St, clock: C) -> Self {
        Self { store, clock, denials: Arc::default() }
    }

    /// The store behind the cache.
    #[must_use]
    pub const fn store(&self) -> &St {
        &self.store
    }

    /// The number of buckets that are remembered, those included that are out of date and were not
    /// dropped yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.denials.len()
    }

    /// Whether no bucket is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<St: Store, C: Clock> Store for DenialCache<St, C> {
    type Check = DenialCacheCheck<St::Check>;

    #[inline]
    fn check(&self, bucket: Bucket<'_>) -> Answer<Self::Check> {
        let changes = self.denials.changes();
        let now = nanos(self.clock.now());
        if let Some(decision) = self.denials.recall(bucket, now) {
            return Answer::Now(Ok(decision));
        }
        match self.store.check(bucket) {
            Answer::Now(answer) => Answer::Now(answer),
            Answer::Later(check) => {
                let asked = Asked::new(bucket, now, changes);
                let denials = Arc::clone(&self.denials);
                Answer::Later(DenialCacheCheck { check, asked: Some(asked), denials })
            }
        }
    }

    fn report(&self) -> StoreReport {
        let mut report = self.store.report();
        report.remembered_denials += self.len();
        report
    }

    fn subscribe(&self, listener: StoreListener) {
        self.store.subscribe(listener);
    }

    /// Asks the store.
    async fn peek(&self, bucket: Bucket<'_>) -> Result<Decision, StoreError> {
        self.store.peek(bucket).await
    }

    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        // Also when it fails, or nobody waits for it any more: who knows how far it has come.
        let _forget = Forget { denials: &self.denials, principal, endpoint };
        self.store.reset(principal, endpoint).await
    }

    async fn grant(&self, bucket: Bucket<'_>, units: u32) -> Result<(), StoreError> {
        let _forget = Forget {
            denials: &self.denials,
            principal: bucket.principal,
            endpoint: bucket.endpoint,
        };
        self.store.grant(bucket, units).await
    }

    async fn block(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        period: Duration,
    ) -> Result<(), StoreError> {
        let _forget = Forget { denials: &self.denials, principal, endpoint };
        self.store.block(principal, endpoint, period).await
    }
}

impl<St: fmt::Debug, C> fmt::Debug for DenialCache<St, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the buckets: they are many, and ids do not belong in a log.
        f.debug_struct("DenialCache")
            .field("store", &self.store)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The check of a [`DenialCache`]'s store, of which the cache remembers what came of it.
    #[must_use = "futures do nothing unless polled"]
    pub struct DenialCacheCheck<F> {
        #[pin]
        check: F,
        asked: Option<Asked>,
        denials: Arc<Denials>,
    }
}

impl<F> Future for DenialCacheCheck<F>
where
    F: Future<Output = Result<Decision, StoreError>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.check.poll(cx));
        if let (Ok(decision), Some(asked)) = (&answer, this.asked.take()) {
            this.denials.learn(&asked, decision);
        }
        Poll::Ready(answer)
    }
}

impl<F> fmt::Debug for DenialCacheCheck<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DenialCacheCheck").finish_non_exhaustive()
    }
}

/// Forgets a bucket when it is dropped.
struct Forget<'a> {
    denials: &'a Denials,
    principal: &'a Principal,
    endpoint: Endpoint,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.denials.forget(self.principal, self.endpoint);
    }
}
