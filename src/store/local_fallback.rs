//! A store that counts in this process while the store that it wraps is lost.

use std::fmt;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::failures::Failures;
use super::{Answer, Bucket, MemoryStore, Store, StoreError, StoreListener, StoreReport, nanos};
use crate::values::clock::{Clock, MonotonicClock};
use crate::values::{Decision, Endpoint, Principal, Quota};

/// Decides in this process when the store fails, from the state of the buckets that the store last
/// reported.
///
/// Every decision of the store's [`check`](Store::check) is copied to the [`local`](Self::local)
/// store. So a caller who had spent the quota does not get a full bucket when the store is lost.
/// When a check or a [`peek`](Store::peek) of the store fails, with an error of any kind, the local
/// store answers instead, and there is no error. A failed [`reset`](Store::reset),
/// [`refund`](Store::refund) or [`block`](Store::block) takes effect in the local store and returns
/// the error.
///
/// # How much is admitted
/// [`expected_replicas`](Self::expected_replicas) is the number of replicas: processes that share
/// the store. While the store is lost, each of N replicas has 1/N of the quota. A unit comes back N
/// times as slowly, and the burst is divided by N, rounded down but at least 1. A [`Decision`] has
/// the quota that was used for it: a third of 500 requests a minute is 500 per 180 seconds, with a
/// burst of 166.
///
/// So while the store is lost, the replicas together admit at most what one store would have
/// admitted, starting from a bucket as full as each replica last saw it. A burst of less than N
/// counts as N, since each replica has at least one unit.
///
/// When the store is back, it has not been charged for what the replicas admitted meanwhile. So the
/// units in its bucket at that time can be admitted on top of what one store would have admitted.
/// These are at most the burst. If the bucket was drained when the store was lost, they are at most
/// one unit for every [`emission_interval`](Quota::emission_interval) since then.
///
/// The state of a bucket is copied when the answer arrives, as if the store had decided at that
/// time: the time that an answer takes is never to the caller's advantage. A block, and the end of
/// a block, are copied in the same way.
///
/// # Grants
/// A [`refund`](Store::refund) refunds to the local bucket of this process its part of the units.
/// Units count by their time: 3 units of 120 ms are 360 ms, which is one unit of a third of the
/// quota. The local buckets of other replicas do not learn of the grant and refill at their own
/// pace. So together the replicas may admit less than was granted, and never more.
///
/// # Memory
/// The local store tracks the bucket of every caller that is not full, as it would without another
/// store: see [`MemoryStore`] for the memory that this takes and how to cap it.
///
/// ```
/// use bolna_rate_limit::store::{Breaker, LocalFallback, MemoryStore};
///
/// # let store = MemoryStore::new();
/// let store = LocalFallback::new(Breaker::new(store)).expected_replicas(3);
/// ```
pub struct LocalFallback<St, C = MonotonicClock> {
    store: St,
    local: Local<C>,
}

impl<St> LocalFallback<St> {
    /// Falls back from `store` to an empty [`MemoryStore`] with the operating system's monotonic
    /// clock. [`expected_replicas`](Self::expected_replicas) is 1.
    #[must_use]
    pub fn new(store: St) -> Self {
        Self::with_local(store, MemoryStore::new())
    }
}

impl<St, C> LocalFallback<St, C> {
    /// Falls back from `store` to `local`, which may have a clock or a cap of its own.
    #[must_use]
    pub fn with_local(store: St, local: MemoryStore<C>) -> Self {
        let local =
            Local { store: Arc::new(local), tally: Arc::default(), replicas: NonZeroU32::MIN };
        Self { store, local }
    }

    /// The number of processes that share the store, including this one. Defaults to 1; 0 is
    /// treated as 1.
    ///
    /// With N replicas and the default, the fleet admits **N times the limit** while the store is
    /// lost. If the number of replicas varies, set the largest: with too large a number the fleet
    /// admits less than the limit, never more.
    #[must_use]
    pub fn expected_replicas(self, replicas: u32) -> Self {
        let replicas = NonZeroU32::new(replicas).unwrap_or(NonZeroU32::MIN);
        Self { local: Local { replicas, ..self.local }, ..self }
    }

    /// The store that is called first.
    #[must_use]
    pub const fn store(&self) -> &St {
        &self.store
    }

    /// The store that decides when the other one fails.
    #[must_use]
    pub fn local(&self) -> &MemoryStore<C> {
        &self.local.store
    }
}

impl<St: Store, C: Clock> Store for LocalFallback<St, C> {
    type Check = LocalFallbackCheck<St::Check, C>;

    fn check(&self, bucket: Bucket<'_>) -> Answer<Self::Check> {
        let changes = self.local.changes();
        match self.store.check(bucket) {
            Answer::Now(answer) => Answer::Now(Ok(self.local.conclude(bucket, answer, changes))),
            Answer::Later(check) => {
                let Bucket { principal, endpoint, quota, interval } = bucket;
                let (local, principal) = (self.local.clone(), principal.clone());
                Answer::Later(LocalFallbackCheck {
                    check,
                    local,
                    principal,
                    endpoint,
                    quota,
                    interval,
                    changes,
                })
            }
        }
    }

    fn report(&self) -> StoreReport {
        let mut report = self.store.report();
        report += self.local.store.report();
        let mut own = StoreReport::default();
        (own.fallbacks, own.failures) = self.local.tally.failures.report();
        report += own;
        report
    }

    /// Subscribes to the events of both stores.
    fn subscribe(&self, listener: StoreListener) {
        self.store.subscribe(listener.clone());
        self.local.store.subscribe(listener);
    }

    async fn peek(&self, bucket: Bucket<'_>) -> Result<Decision, StoreError> {
        match self.store.peek(bucket).await {
            Ok(decision) => Ok(decision),
            Err(error) => {
                self.local.tally.failures.looked_up(&error);
                self.local.store.peek(self.local.share(bucket)).await
            }
        }
    }

    /// Fills the bucket up in both stores: in the local one even if the other one fails.
    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        let answer = self.store.reset(principal, endpoint).await;
        self.local.change();
        self.local.store.reset(principal, endpoint).await?;
        answer
    }

    /// Refunds the units in the store, and this process's part of them in the local store, even if
    /// the other one fails.
    async fn refund(&self, bucket: Bucket<'_>, units: u32) -> Result<(), StoreError> {
        let answer = self.store.refund(bucket, units).await;
        self.local.change();
        let time = bucket.rate().time_of(units);
        self.local.store.advance(self.local.share(bucket), time);
        answer
    }

    /// Blocks the bucket in both stores: in the local one even if the other one fails.
    async fn block(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        period: Duration,
    ) -> Result<(), StoreError> {
        let answer = self.store.block(principal, endpoint, period).await;
        self.local.change();
        self.local.store.block(principal, endpoint, period).await?;
        answer
    }
}

impl<St: fmt::Debug, C> fmt::Debug for LocalFallback<St, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalFallback")
            .field("store", &self.store)
            .field("local", &self.local.store)
            .field("expected_replicas", &self.local.replicas)
            .finish()
    }
}

pin_project! {
    /// The check of a [`LocalFallback`]. The decision of its store is copied to the local store; if
    /// the store fails, the local store decides.
    #[must_use = "futures do nothing unless polled"]
    pub struct LocalFallbackCheck<F, C = MonotonicClock> {
        #[pin]
        check: F,
        local: Local<C>,
        principal: Principal,
        endpoint: Endpoint,
        quota: Quota,
        interval: u64,
        changes: u64,
    }
}

impl<F, C> Future for LocalFallbackCheck<F, C>
where
    F: Future<Output = Result<Decision, StoreError>>,
    C: Clock,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.check.poll(cx));
        let bucket = Bucket {
            principal: this.principal,
            endpoint: *this.endpoint,
            quota: *this.quota,
            interval: *this.interval,
        };
        Poll::Ready(Ok(this.local.conclude(bucket, answer, *this.changes)))
    }
}

impl<F, C> fmt::Debug for LocalFallbackCheck<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalFallbackCheck").finish_non_exhaustive()
    }
}

struct Local<C> {
    store: Arc<MemoryStore<C>>,
    tally: Arc<Tally>,
    replicas: NonZeroU32,
}

#[derive(Default)]
struct Tally {
    /// How many times a bucket was changed by hand, or was found to be newly blocked. The answer to
    /// a call that was made before such a change is not copied after it.
    changes: AtomicU64,
    failures: Failures,
}

impl<C> Local<C> {
    fn changes(&self) -> u64 {
        self.tally.changes.load(Ordering::Acquire)
    }

    fn change(&self) {
        self.tally.changes.fetch_add(1, Ordering::AcqRel);
    }

    fn share<'a>(&self, bucket: Bucket<'a>) -> Bucket<'a> {
        Bucket {
            quota: bucket.quota.shared_by(self.replicas),
            interval: bucket.rate().shared_by(self.replicas).interval(),
            ..bucket
        }
    }
}

impl<C: Clock> Local<C> {
    /// Copies the decision of the store, or decides locally if the store failed. `changes` is the
    /// number of changes when the store was called.
    fn conclude(
        &self,
        bucket: Bucket<'_>,
        answer: Result<Decision, StoreError>,
        changes: u64,
    ) -> Decision {
        let share = self.share(bucket);
        let note = |decision: &Decision| {
            if changes == self.changes() {
                self.note_block(share, decision, changes);
                self.note_debt(share, decision);
            }
        };
        answer.inspect(note).unwrap_or_else(|error| {
            self.tally.failures.decided(&error);
            self.store.charge(share)
        })
    }

    /// Blocks the local bucket, or lifts its block, as in the store.
    fn note_block(&self, share: Bucket<'_>, decision: &Decision, changes: u64) {
        let blocked_for = decision.retry_after().filter(|_| decision.is_blocked()).map(nanos);
        // Compared again under the lock of the blocks: a later change by hand waits for the lock,
        // and so has the last word.
        let current = || changes == self.changes();
        if self.store.follow(share.principal, share.endpoint, blocked_for, current) {
            self.change();
        }
    }

    /// Leaves in the local bucket the time that the store's bucket has left to spend. The same time
    /// is fewer of the share's slower units, so each replica gets its part. A drained bucket stays
    /// drained, and a full one full.
    fn note_debt(&self, share: Bucket<'_>, decision: &Decision) {
        // The decision of a blocked bucket does not say when the bucket is full.
        let debt = if decision.is_blocked() { 0 } else { nanos(decision.reset()) };
        if debt > 0 {
            let room = decision.rate().refill().saturating_sub(debt);
            self.store.owe(share, share.rate().refill().saturating_sub(room));
        }
    }
}

impl<C> Clone for Local<C> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            tally: Arc::clone(&self.tally),
            replicas: self.replicas,
        }
    }
}
