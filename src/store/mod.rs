//! Stores, which hold the buckets.
//!
//! A store is a type that implements [`Store`]. [`MemoryStore`] holds its buckets in this process.
//! Stores compose as Tower layers do: a wrapper around a store is a store. Wrap a store beyond a
//! network in
//!
//! 1. a [`Breaker`], which does not call the store while it fails,
//! 2. around that a [`LocalFallback`], which decides in this process meanwhile, and
//! 3. around that a [`DenialCache`], which refuses known refusals without calling the store.
//!
//! A store gives numbers about itself in its [report](Store::report), and sends events to the
//! listeners that [subscribe](Store::subscribe) to it.

mod breaker;
mod denial_cache;
mod error;
mod event;
mod failures;
mod listeners;
mod local_fallback;
mod memory;
#[cfg(feature = "redis")]
mod redis;
mod report;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::values::{Decision, Endpoint, Principal, Quota, Rate};

#[cfg(feature = "redis")]
pub use self::redis::{
    RedisCheck, RedisEvent, RedisStore, RedisStoreBuilder, RedisStoreError, RedisStoreErrorKind,
};
pub use breaker::{Breaker, BreakerCheck, BreakerEvent};
pub use denial_cache::{DenialCache, DenialCacheCheck};
pub use error::StoreError;
pub use event::{StoreEvent, StoreListener};
pub use local_fallback::{LocalFallback, LocalFallbackCheck};
pub use memory::{CapEvent, MemoryStore};
pub use report::StoreReport;

/// Holds a bucket for every principal and endpoint, and decides whether requests are allowed.
///
/// A bucket belongs to a pair of [`principal`](Bucket::principal) and
/// [`endpoint`](Bucket::endpoint). The [`quota`](Bucket::quota) is given with every call. It may
/// change from one call to the next, when limits are changed or a caller changes plan. A store
/// keeps the time at which the bucket is full again, not a number of units. So after a change of
/// quota that time is the same as before, but at most one full refill from now.
pub trait Store: Send + Sync + 'static {
    /// The future of a check that the store can't answer at once. [`Immediate`] for a store that
    /// always answers at once.
    type Check: Future<Output = Result<Decision, StoreError>> + Send + 'static;

    /// Charges one unit to the bucket, if it has one.
    fn check(&self, bucket: Bucket<'_>) -> Answer<Self::Check>;

    /// The state of the store, in numbers, for metrics. By default all of them are 0.
    ///
    /// A store around another store adds its own numbers to the report of that store. This takes no
    /// lock that requests wait for. It is meant to be called now and then, not for every request.
    fn report(&self) -> StoreReport {
        StoreReport::default()
    }

    /// Calls `listener` with every [`StoreEvent`] from now on. If the store is lost or its cap is
    /// reached at the time of the call, the listener gets that event at once. By default this does
    /// nothing, for a store that has no events.
    ///
    /// A store can have several listeners. Each of them gets all events, in their order. A listener
    /// runs in the request or the task that notices the change, so it should only log or count. It
    /// may call the store. If it panics, the panic is caught.
    ///
    /// The store owns the listener until the store is dropped. So **a listener must not own the
    /// store**, nor a limiter or a layer around it, or neither will ever be dropped: give it a
    /// [`Weak`](std::sync::Weak). All else that the listener owns is dropped with the store (with a
    /// `RedisStore` right afterwards, when the store's task has ended).
    fn subscribe(&self, listener: StoreListener) {
        drop(listener);
    }

    /// What [`check`](Self::check) would decide now. Nothing is charged.
    ///
    /// # Errors
    /// If the store fails.
    fn peek(&self, bucket: Bucket<'_>)
    -> impl Future<Output = Result<Decision, StoreError>> + Send;

    /// Fills the bucket up and lifts its [block](Self::block), if there is one.
    ///
    /// # Errors
    /// If the store fails. The bucket may have been reset all the same.
    fn reset(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Refunds `units` to the bucket, by the quota in `bucket`, until the bucket is full. A drained
    /// bucket then admits exactly that many requests.
    ///
    /// A bucket counts as drained if it needs longer than a full refill to be full, because the
    /// quota was changed or the clock went back. A [block](Self::block) stays.
    ///
    /// # Errors
    /// If the store fails. Units may have been refunded all the same.
    fn refund(
        &self,
        bucket: Bucket<'_>,
        units: u32,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Blocks the bucket: refuses every request for it from now on and for `period`, whatever the
    /// quota. A zero `period` lifts the block. Periods longer than [`Quota::MAX_REFILL_TIME`] are
    /// clamped to it. A later call replaces an earlier one.
    ///
    /// The bucket goes on refilling meanwhile. Requests that are refused because of the block are
    /// not charged.
    ///
    /// # Errors
    /// If the store fails. The bucket may be blocked all the same.
    fn block(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        period: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A store can be shared, for example by two limiters that have policies of their own.
impl<St: Store> Store for Arc<St> {
    type Check = St::Check;

    #[inline]
    fn check(&self, bucket: Bucket<'_>) -> Answer<St::Check> {
        (**self).check(bucket)
    }

    fn report(&self) -> StoreReport {
        (**self).report()
    }

    fn subscribe(&self, listener: StoreListener) {
        (**self).subscribe(listener);
    }

    fn peek(
        &self,
        bucket: Bucket<'_>,
    ) -> impl Future<Output = Result<Decision, StoreError>> + Send {
        (**self).peek(bucket)
    }

    fn reset(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        (**self).reset(principal, endpoint)
    }

    fn refund(
        &self,
        bucket: Bucket<'_>,
        units: u32,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        (**self).refund(bucket, units)
    }

    fn block(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        period: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        (**self).block(principal, endpoint, period)
    }
}

/// A bucket, and the quota that applies to it now.
#[derive(Clone, Copy, Debug)]
pub struct Bucket<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) endpoint: Endpoint,
    pub(crate) quota: Quota,
    /// What the quota is counted by, in nanoseconds for each unit.
    pub(crate) interval: u64,
}

impl<'a> Bucket<'a> {
    /// The bucket of that principal for that endpoint, to be measured by that quota.
    #[must_use]
    pub const fn new(principal: &'a Principal, endpoint: Endpoint, quota: Quota) -> Self {
        Self::with_rate(principal, endpoint, quota, quota.rate())
    }

    /// The same with a rate that is known. It may be another than the quota's own.
    #[inline]
    pub(crate) const fn with_rate(
        principal: &'a Principal,
        endpoint: Endpoint,
        quota: Quota,
        rate: Rate,
    ) -> Self {
        Self { principal, endpoint, quota, interval: rate.interval() }
    }

    /// Who is billed.
    #[must_use]
    pub const fn principal(&self) -> &'a Principal {
        self.principal
    }

    /// For which paths.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// How much, and how fast.
    #[must_use]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// What the quota is counted by.
    #[inline]
    pub(crate) const fn rate(&self) -> Rate {
        Rate::of(self.quota, self.interval)
    }

    /// The decision about a request for it, from a store that has counted by its rate.
    #[inline]
    pub(crate) const fn decide(&self, allowed: bool, debt: u64) -> Decision {
        Decision::from_nanos(self.endpoint, self.quota, self.rate(), allowed, debt)
    }

    /// The decision while it is blocked.
    pub(crate) const fn blocked(&self, wait: u64) -> Decision {
        Decision::blocked_by(self.endpoint, self.quota, self.rate(), wait)
    }
}

/// The answer of a store: now, or later.
///
/// An answer that is given at once costs the request no box, no clone and no trip through the
/// executor.
#[expect(
    clippy::exhaustive_enums,
    reason = "stores around stores match both, and there is no third"
)]
pub enum Answer<F: Future> {
    /// The answer itself.
    Now(F::Output),
    /// The answer will be the output of this future.
    Later(F),
}

impl<F: Future> Answer<F> {
    /// The answer, if it was given at once.
    #[must_use]
    pub fn now(self) -> Option<F::Output> {
        match self {
            Self::Now(output) => Some(output),
            Self::Later(_) => None,
        }
    }

    /// Waits for the answer, if it was not given at once, and returns it.
    pub async fn wait(self) -> F::Output {
        match self {
            Self::Now(output) => output,
            Self::Later(future) => future.await,
        }
    }
}

impl<F: Future> fmt::Debug for Answer<F>
where
    F::Output: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(output) => f.debug_tuple("Now").field(output).finish(),
            Self::Later(_) => f.debug_tuple("Later").finish_non_exhaustive(),
        }
    }
}

/// The [`Store::Check`] of a store that always answers at once. This type has no value.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "that it has no value is the point")]
pub enum Immediate {}

impl Future for Immediate {
    type Output = Result<Decision, StoreError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match *self {}
    }
}

/// How many nanoseconds a block of that period lasts.
fn block_nanos(period: Duration) -> u64 {
    nanos(period.min(Quota::MAX_REFILL_TIME))
}

/// A time in nanoseconds, in which the wrappers count. It is at most 146 years, so that the sum of
/// two times does not overflow.
fn nanos(time: Duration) -> u64 {
    const LATEST: u64 = 1 << 62;
    u64::try_from(time.as_nanos()).map_or(LATEST, |time| time.min(LATEST))
}
