//! Counting in this process while the store is lost.

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
use crate::clock::{Clock, MonotonicClock};
use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::principal::Principal;
use crate::quota::Quota;

/// Counts in this process when the store can't be asked, and goes on from what the store last said.
///
/// Every decision of the store's [`check`](Store::check) is noted in the [`local`](Self::local)
/// store, so that the bucket of a caller who had spent his quota is not full when the store is
/// lost. When the store answers with an error, of whatever kind, the local store decides instead,
/// and there is no error any more.
///
/// # How much is admitted
/// [`expected_replicas`](Self::expected_replicas) is the number of processes that share the store.
/// While it is lost, each of them has that part of the quota: a unit comes back so many times
/// slower, and the burst is divided, rounded down but at least 1. A [`Decision`] says what it was
/// measured by: a third of 500 requests a minute is 500 per 180 seconds, with a burst of 166.
///
/// So while the store is lost, the replicas together admit at most what one store would have, from
/// a bucket as full as each has last seen it. When the burst is less than the number of replicas,
/// it counts as that many: each of them has one unit at the least.
///
/// When the store is back, it has not been charged for what was admitted meanwhile. So over what
/// one store would have, as much is admitted as the bucket holds then: at most its burst, and if it
/// was drained when the store was lost at most one unit for every
/// [`emission_interval`](Quota::emission_interval) since.
///
/// A debt is noted when the answer arrives, as if the store had decided just then: the time that an
/// answer takes is never to the caller's advantage. So is that a bucket is blocked, and that it is
/// no more.
///
/// # Grants
/// A [`grant`](Store::grant) of so many units gives the local share of this process that part of
/// them which it has of the quota, in time: 3 units of 120 ms are 360 ms, which is one unit of a
/// third, of 360 ms. The shares of other processes owe until then what they have noted: together
/// the replicas may admit less than was granted, and never more.
///
/// # Memory
/// The local store tracks every caller who owes, as it would without another store: see
/// [`MemoryStore`] for how much that is and how to cap it.
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
    /// Falls back from `store` to an empty [`MemoryStore`] on the operating system's monotonic
    /// clock.
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

    /// How many processes share the store, this one included: 1 by default, as which 0 counts too.
    ///
    /// With N replicas and the default, the fleet admits **N times the limit** while the store is
    /// lost. When the number varies, take the largest: with too large a number the fleet admits
    /// less than the limit, and never more.
    #[must_use]
    pub fn expected_replicas(self, replicas: u32) -> Self {
        let replicas = NonZeroU32::new(replicas).unwrap_or(NonZeroU32::MIN);
        Self { local: Local { replicas, ..self.local }, ..self }
    }

    /// The store that is asked first.
    #[must_use]
    pub const fn store(&self) -> &St {
        &self.store
    }

    /// The store that decides when the other one can't.
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
                let Bucket { principal, endpoint, quota } = bucket;
                let (local, principal) = (self.local.clone(), principal.clone());
                Answer::Later(LocalFallbackCheck {
                    check,
                    local,
                    principal,
                    endpoint,
                    quota,
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

    /// Tells of what both stores tell.
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

    /// Fills the bucket up in both stores: in the local one even if the other can't be asked.
    async fn reset(&self, principal: &Principal, endpoint: Endpoint) -> Result<(), StoreError> {
        let answer = self.store.reset(principal, endpoint).await;
        self.local.change();
        self.local.store.reset(principal, endpoint).await?;
        answer
    }

    /// Gives the units back in the store and this process's part of them in the local one, even if
    /// the other can't be asked.
    async fn grant(&self, bucket: Bucket<'_>, units: u32) -> Result<(), StoreError> {
        let answer = self.store.grant(bucket, units).await;
        self.local.change();
        let time = bucket.quota.interval_nanos().saturating_mul(units.into());
        self.local.store.advance(self.local.share(bucket), time);
        answer
    }

    /// Blocks the bucket in both stores: in the local one even if the other can't be asked.
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
    /// The check of a [`LocalFallback`]'s store, which is noted or replaced by a local one.
    #[must_use = "futures do nothing unless polled"]
    pub struct LocalFallbackCheck<F, C = MonotonicClock> {
        #[pin]
        check: F,
        local: Local<C>,
        principal: Principal,
        endpoint: Endpoint,
        quota: Quota,
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
        let bucket =
            Bucket { principal: this.principal, endpoint: *this.endpoint, quota: *this.quota };
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
    /// How often a bucket was changed by hand, or found to be blocked: what was asked before is
    /// not noted afterwards.
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
        Bucket { quota: bucket.quota.shared_by(self.replicas), ..bucket }
    }
}

impl<C: Clock> Local<C> {
    /// `changes` is how many there were when the store was asked.
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

    /// The bucket is blocked here as it is in the store.
    fn note_block(&self, share: Bucket<'_>, decision: &Decision, changes: u64) {
        let blocked_for = decision.retry_after().filter(|_| decision.is_blocked()).map(nanos);
        // Compared again while nobody else can change a block: a change by hand comes afterwards
        // then, and has the last word.
        let current = || changes == self.changes();
        if self.store.follow(share.principal, share.endpoint, blocked_for, current) {
            self.change();
        }
    }

    /// Leaves the share as much room as the store has left, in time: that is so many units, of
    /// which each replica has its part. A drained bucket stays drained, and a full one full.
    fn note_debt(&self, share: Bucket<'_>, decision: &Decision) {
        // What a blocked bucket owes is not told.
        let debt = if decision.is_blocked() { 0 } else { nanos(decision.reset()) };
        if debt > 0 {
            let room = decision.quota().refill_nanos().saturating_sub(debt);
            self.store.owe(share, share.quota.refill_nanos().saturating_sub(room));
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
