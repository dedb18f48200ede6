//! A cache of refusals, which refuses without calling the store.

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
use crate::values::clock::{Clock, MonotonicClock};
use crate::values::{Decision, Endpoint, Principal};

use denial::Asked;
use table::Denials;

/// Refuses requests whose bucket has no unit left in the store, without calling the store again.
///
/// If a bucket has no unit, the time of its next unit is known, and requests before that time can't
/// change it. So the cache remembers every answer of the store that leaves a bucket without a unit:
/// a refusal, or the admission that took the last unit. An attack on one bucket then costs the
/// store about one call for each unit that comes back, or one a second if units come back more
/// slowly, instead of one for each request.
///
/// The store would have refused what the cache refuses, with the same [`Decision`]. Times count
/// from the call of the store, not from its answer, so the time that an answer takes does not delay
/// a unit that comes back.
///
/// A refusal is remembered until the next unit comes back, but for at most the quota's
/// [`emission_interval`](crate::Quota::emission_interval) or 1 s, whichever is less. So this is the
/// longest time for which the cache does not see that another process has reset the bucket, granted
/// it units, lifted its block, or charged it by another quota. Changes that are made through this
/// cache take effect at once. If the quota in a request is not the remembered one, the store is
/// called.
///
/// An answer that the store gives at once is passed on and not remembered, since it costs little
/// already. An answer by another quota than the request's, as a
/// [`LocalFallback`](super::LocalFallback) may give, is not remembered either.
///
/// # Memory
/// At most 57,344 buckets are remembered, in 7 MB. For further buckets the store is called. Each
/// thread has copies of up to 16 refusals that it has used last. Later answers of the store drop
/// the refusals that are out of date, one shard at a time.
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
    /// An empty cache in front of `store`, with the operating system's monotonic clock.
    #[must_use]
    pub fn new(store: St) -> Self {
        Self::with_clock(store, MonotonicClock::default())
    }
}

impl<St, C> DenialCache<St, C> {
    /// An empty cache in front of `store`, with `clock`.
    #[must_use]
    pub fn with_clock(store: St, clock: C) -> Self {
        Self { store, clock, denials: Arc::default() }
    }

    /// The store behind the cache.
    #[must_use]
    pub const fn store(&self) -> &St {
        &self.store
    }

    /// The number of buckets that are remembered, including those that are out of date but not
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

    /// Calls the store: a peek does not use the cache.
    async fn peek(&self, bucket: Bucket<'_>) -> Result<Decision, StoreError> {
        self.store.peek(bucket).await
    }

    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        // Forgets the bucket even if the call fails or is dropped: the store may have reset it.
        let _forget = Forget { denials: &self.denials, principal, endpoint };
        self.store.reset(principal, endpoint).await
    }

    async fn refund(&self, bucket: Bucket<'_>, units: u32) -> Result<(), StoreError> {
        let _forget = Forget {
            denials: &self.denials,
            principal: bucket.principal,
            endpoint: bucket.endpoint,
        };
        self.store.refund(bucket, units).await
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
        // The buckets are left out: they are many, and ids do not belong in a log.
        f.debug_struct("DenialCache")
            .field("store", &self.store)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The check of a [`DenialCache`]: a check of its store, whose answer the cache remembers.
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
