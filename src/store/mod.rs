//! Stores, which hold the buckets.
//!
//! A store is a type that implements [`Store`]. [`MemoryStore`] holds its buckets in this process,
//! and `RedisStore` (feature `redis`) on a server that several replicas share. [`AnyStore`] is any
//! of them, chosen at run time. The example `own_store` shows how to write one.
//!
//! Stores compose as Tower layers do: a wrapper around a store is a store. Wrap a store that does
//! not answer at once, such as one beyond a network, in
//!
//! 1. a [`Breaker`], which does not call the store while it fails,
//! 2. around that a [`LocalFallback`], which decides in this process meanwhile, and
//! 3. around that a [`DenialCache`], which refuses known refusals without calling the store.
//!
//! `RedisStore` has all of this built in, and charges its server for what was decided without it.
//! It keeps corrections that are [submitted](Store::submit) while the server is lost.
//! With [`LocalFallback::max_owed`], a store of your own can be charged in the same way.
//!
//! A store gives numbers about itself in its [report](Store::report), and sends events to the
//! listeners that [subscribe](Store::subscribe) to it. A limiter passes both on: see
//! [`Limiter::report`](crate::Limiter::report) and [`Limiter::on_event`](crate::Limiter::on_event).

mod answer;
mod any;
mod breaker;
mod by_principal;
mod capabilities;
mod command;
mod denial_cache;
mod error;
mod event;
mod failures;
mod fallback;
mod listeners;
mod memory;
#[cfg(feature = "redis")]
mod remote;
mod report;
mod strikes;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub use answer::{Answer, AnswerFuture, Checked, Conclude, Concluding, Immediate};
pub use any::AnyStore;
pub use breaker::{Breaker, BreakerCall};
pub use capabilities::Capabilities;
pub use command::{Command, Reply};
pub use denial_cache::{DenialCache, DenialCacheCall};
pub use error::StoreError;
pub use event::{StoreEvent, StoreListener};
pub use fallback::{FallbackCall, LocalFallback};
pub use memory::{MemoryStore, Snapshot, SnapshotError};
#[cfg(feature = "redis")]
pub use remote::{
    Credentials, RedisCheck, RedisStore, RedisStoreBuilder, RedisStoreError, RedisStoreErrorKind,
};
pub use report::StoreReport;

pub(crate) use event::OneLine;

pub use crate::values::{
    Bucket, BucketState, Charge, ChargeError, ChargeOutcome, Decisions, Entry,
};

/// Holds the [buckets](Bucket), and decides whether requests are allowed.
///
/// A store decides a [`Charge`]: the buckets that a request is charged to, all or nothing. The
/// quota is given with every charge and may change from one charge to the next, when limits are
/// changed or a caller changes plan. A store keeps the time at which the bucket is full again, not
/// a number of units. So a change of quota leaves that time as it is, or brings it forward to one
/// full refill (and the overdraft) from now.
///
/// # A store of your own
/// A store keeps a few points in time for each bucket, and lets [`Charge::apply`] decide: see
/// [`BucketState`]. [`Charge::peek`], [`refund`](Charge::refund) and [`settle`](Charge::settle) do
/// the same for the commands of these names. A reset removes the bucket, and a block sets
/// [`blocked_for`](BucketState::blocked_for). Such a store can do everything that
/// [`Capabilities`] lists. The example `own_store` is such a store, with an embedded database, in
/// some 130 lines.
///
/// If its commands have to be waited for, a store implements [`submit`](Self::submit) too, so that
/// refunds and settlements after the response are not lost.
///
/// The [example in the guide](crate::guide::own_store) implements the trait for a table in
/// memory, and tests it.
pub trait Store: Send + Sync + 'static {
    /// The future of a check that the store can't answer at once. [`Immediate`] for a store that
    /// always answers at once.
    type Check: Future<Output = Checked> + Send + 'static;

    /// Decides a charge, and charges its buckets accordingly.
    ///
    /// The answer is an error if the store fails, or if the charge is beyond the store's
    /// [capabilities](Self::capabilities): see [`Capabilities::permit`]. The call must not block
    /// the thread. If the future of a later answer is dropped, the buckets may be charged or not.
    fn check(&self, charge: Charge<'_>) -> Answer<Self::Check>;

    /// Carries out a command.
    ///
    /// # Errors
    /// If the store fails, does not know the command, or the command is beyond its
    /// [capabilities](Self::capabilities) or its cap. After a failure of the store the command may
    /// have been carried out all the same.
    fn command(
        &self,
        command: Command<'_>,
    ) -> impl Future<Output = Result<Reply, StoreError>> + Send;

    /// Hands over a command without waiting for the reply. It is for *corrections* after the
    /// response, [refunds](Command::Refund) and [settlements](Command::Settle), also where nothing
    /// can be awaited, such as in a destructor. The method must not block or panic.
    ///
    /// If the result is `Ok`, the store has carried the command out, or keeps it to do so. If it is
    /// an error, the command is lost; parts of it may have been carried out.
    ///
    /// A correction is carried out **at most once**. If the store can't know whether it was carried
    /// out, such as when a connection breaks, it is not sent again: a refund that is given twice
    /// would admit more than the limit. If the store loses a correction that it has taken, its
    /// report [counts](StoreReport::lost_corrections) it. There is one exception: a settlement that
    /// a [`LocalFallback`] owes because its store has failed is charged back like all that it owes,
    /// and may be charged twice if the store fails again at that moment.
    ///
    /// By default, [`command`](Self::command) is called and polled once. If it is ready, the result
    /// is that of the command. If not, it is dropped. So a store whose commands take longer must
    /// implement this method, for example with a bounded queue that a task works off.
    ///
    /// # Errors
    /// As those of [`command`](Self::command). By default also an error of the
    /// [kind](StoreError::kind) `unsupported` if the command is not ready when it is polled, and an
    /// error if it panics.
    fn submit(&self, command: Command<'_>) -> Result<(), StoreError> {
        let once = || {
            let reply = pin!(self.command(command));
            match reply.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(reply) => reply.map(drop),
                Poll::Pending => Err(StoreError::not_at_once(&command)),
            }
        };
        // In a destructor, a second panic would abort the process.
        let panicked = |_| Err(StoreError::new(format!("the command {} panicked", command.name())));
        catch_unwind(AssertUnwindSafe(once)).unwrap_or_else(panicked)
    }

    /// What the store can do. By default it can charge one bucket of one unit.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// The state of the store, in numbers, for metrics. By default all of them are 0.
    ///
    /// A store around another store adds its own numbers to the report of that store. It holds no
    /// lock for longer than a request does. It is meant to be called now and then, not for every
    /// request, so a store may also tidy up: a [`MemoryStore`] drops buckets that are full again.
    fn report(&self) -> StoreReport {
        StoreReport::default()
    }

    /// Calls `listener` with every [`StoreEvent`] from now on. If the store is lost or its cap is
    /// reached at the time of the call, the listener gets that event at once. By default this does
    /// nothing, for a store that has no events.
    ///
    /// A limiter subscribes for its observers: see
    /// [`Limiter::on_event`](crate::Limiter::on_event).
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
}

/// A store can be shared, for example by two limiters that have policies of their own.
impl<St: Store> Store for Arc<St> {
    type Check = St::Check;

    #[inline]
    fn check(&self, charge: Charge<'_>) -> Answer<St::Check> {
        (**self).check(charge)
    }

    fn command(
        &self,
        command: Command<'_>,
    ) -> impl Future<Output = Result<Reply, StoreError>> + Send {
        (**self).command(command)
    }

    fn submit(&self, command: Command<'_>) -> Result<(), StoreError> {
        (**self).submit(command)
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn report(&self) -> StoreReport {
        (**self).report()
    }

    fn subscribe(&self, listener: StoreListener) {
        (**self).subscribe(listener);
    }
}

/// A time in nanoseconds, in which the wrappers count. It is at most 146 years, so that the sum of
/// two times does not overflow.
#[inline]
fn nanos(time: Duration) -> u64 {
    const LATEST: u64 = 1 << 62;
    u64::try_from(time.as_nanos()).map_or(LATEST, |time| time.min(LATEST))
}
