//! Where buckets live.
//!
//! [`MemoryStore`] counts in this process. A store is anything that implements [`Store`]; stores
//! compose as Tower layers do, a wrapper around a store being a store. One beyond a network is
//! wrapped in a [`Breaker`], which does not ask it while it fails; that in a [`LocalFallback`],
//! which decides meanwhile; and that in a [`DenialCache`], which refuses without asking.
//!
//! A store tells about itself: numbers when it is [asked](Store::report), and what changes to
//! whoever [subscribes](Store::subscribe).

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

use crate::decision::Decision;
use crate::endpoint::Endpoint;
use crate::principal::Principal;
use crate::quota::Quota;

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

/// Holds a bucket for every principal and endpoint, and decides.
///
/// A bucket belongs to the pair of [`principal`](Bucket::principal) and
/// [`endpoint`](Bucket::endpoint). The [`quota`](Bucket::quota) is that of the moment and may
/// differ from one request to the next, when limits are changed or a caller changes plan: what was
/// spent stays spent, in time.
pub trait Store: Send + Sync + 'static {
    /// The check that a store makes when it can't answer at once. [`Immediate`] for a store that
    /// always can.
    type Check: Future<Output = Result<Decision, StoreError>> + Send + 'static;

    /// Charges one unit, if the bucket has it.
    fn check(&self, bucket: Bucket<'_>) -> Answer<Self::Check>;

    /// What there is to say of the store now, in numbers. By default nothing.
    ///
    /// A store around a store adds its own to what that one says. It takes no lock that requests
    /// wait for, and is made to be asked now and then, for metrics.
    fn report(&self) -> StoreReport {
        StoreReport::default()
    }

    /// Tells `listener` of every [`StoreEvent`] from now on, and of what stands: if the store is
    /// lost, or the cap is reached, when somebody subscribes, he is told so at once. By default
    /// it does nothing, as there is nothing to tell.
    ///
    /// There can be several, and each is told of everything, in its order. A listener runs in the
    /// request or the task that finds out, so it should do no more than to log or to count. It
    /// may ask the store, and its panics harm nobody.
    ///
    /// The store keeps the listener for as long as it lives. So **a listener must not own the
    /// store**, nor a limiter or a layer around it, or neither will ever be dropped: give it a
    /// [`Weak`](std::sync::Weak). Whatever else it owns is dropped with the store (of a
    /// `RedisStore` when its task has ended, right after).
    fn subscribe(&self, listener: StoreListener) {
        drop(listener);
    }

    /// What [`check`](Self::check) would decide now, without charging anything.
    ///
    /// # Errors
    /// When the store can't be asked.
    fn peek(&self, bucket: Bucket<'_>)
    -> impl Future<Output = Result<Decision, StoreError>> + Send;

    /// Fills the bucket up, and lifts a [block](Self::block).
    ///
    /// # Errors
    /// When the store can't be asked.
    fn reset(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Gives `units` back, by the quota in `bucket`, until the bucket is full: a drained one then
    /// admits exactly so many.
    ///
    /// A bucket that owes more than a full refill, since the quota was lowered or the clock went
    /// back, counts as drained. A [block](Self::block) stays.
    ///
    /// # Errors
    /// When the store can't be asked. Units may have been given back all the same.
    fn grant(
        &self,
        bucket: Bucket<'_>,
        units: u32,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Refuses every request for the bucket from now on and for `period`, whatever the quota. Zero
    /// lifts the block, and the longest is [`Quota::MAX_REFILL_TIME`], as which a longer one
    /// counts. A later call replaces an earlier one.
    ///
    /// Meanwhile the bucket goes on refilling: after the block it is as if nobody had asked.
    ///
    /// # Errors
    /// When the store can't be asked. The bucket may be blocked all the same.
    fn block(
        &self,
        principal: &Principal,
        endpoint: Endpoint,
        period: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A store can be shared, by two limiters with policies of their own, say.
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

    fn grant(
        &self,
        bucket: Bucket<'_>,
        units: u32,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        (**self).grant(bucket, units)
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

/// A bucket, and what it is measured by now.
#[derive(Clone, Copy, Debug)]
pub struct Bucket<'a> {
    /// Who pays.
    pub principal: &'a Principal,
    /// For which class of paths.
    pub endpoint: Endpoint,
    /// How much and how fast.
    pub quota: Quota,
}

/// What a store says: now, or later.
///
/// An answer that is there at once costs the request no boxing, no clone and no trip through the
/// executor.
pub enum Answer<F: Future> {
    /// Here it is.
    Now(F::Output),
    /// It will be the future's output.
    Later(F),
}

impl<F: Future> Answer<F> {
    /// The answer if it is there at once.
    #[must_use]
    pub fn now(self) -> Option<F::Output> {
        match self {
            Self::Now(output) => Some(output),
            Self::Later(_) => None,
        }
    }

    /// The answer, as soon as it is there.
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

/// The [`Store::Check`] of a store that always answers at once: there is no value of this type.
#[derive(Clone, Copy, Debug)]
pub enum Immediate {}

impl Future for Immediate {
    type Output = Result<Decision, StoreError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match *self {}
    }
}

/// How long a block of that period lasts.
fn block_nanos(period: Duration) -> u64 {
    nanos(period.min(Quota::MAX_REFILL_TIME))
}

/// A time in the nanoseconds that the wrappers count in: at most 146 years, so that two of them
/// have a sum.
fn nanos(time: Duration) -> u64 {
    const LATEST: u64 = 1 << 62;
    u64::try_from(time.as_nanos()).map_or(LATEST, |time| time.min(LATEST))
}
