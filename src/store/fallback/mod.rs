//! A store that counts in this process while the store that it wraps is lost.

mod dues;
mod ledger;
mod local;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

pub(super) use ledger::{Ledger, Owed};
pub(super) use local::Local;

use super::{
    Answer, Capabilities, Charge, Checked, Command, Conclude, Concluding, MemoryStore, Reply,
    Store, StoreError, StoreListener, StoreReport,
};
use crate::values::clock::{Clock, MonotonicClock};
use crate::values::{OwnedCharge, Principal};

/// Decides in this process when the store fails, from the state of the buckets that the store last
/// reported.
///
/// Every decision of the store's [`check`](Store::check) is copied to the [`local`](Self::local)
/// store. So a caller who had spent the quota does not get a full bucket when the store is lost.
/// When a check or a [`peek`](Command::Peek) of the store fails, with an error of any kind, the
/// local store answers instead. It fails only if the cost is more than this process's share of the
/// burst, or if there is no room to remember what it admits ([`max_owed`](Self::max_owed)). A
/// failed [`reset`](Command::Reset), [`refund`](Command::Refund), [`settle`](Command::Settle) or
/// [`block`](Command::Block) takes effect in the local store and returns the error.
///
/// # How much is admitted
/// [`expected_replicas`](Self::expected_replicas) is the number of replicas: processes that share
/// the store. While the store is lost, each of N replicas has 1/N of the quota. A unit comes back N
/// times as slowly, and the burst is divided by N, rounded down but at least 1. A
/// [`Decision`](crate::Decision) has the quota that was used for it: a third of 500 requests a
/// minute is 500 per 180 seconds, with a burst of 166.
///
/// So while the store is lost, the replicas together admit at most what one store would have
/// admitted, starting from a bucket as full as each replica last saw it. A burst of less than N
/// counts as N, since each replica has at least one unit.
///
/// When the store is back, it has to be charged for what the replicas admitted meanwhile: a
/// `RedisStore` does so by itself, and for other stores see [`max_owed`](Self::max_owed) and
/// [`charge_back`](Self::charge_back). That may overdraw the store's bucket, by at most one burst.
/// Then, however often all replicas lose the store together, they admit at most one burst more than
/// the limit allows. A replica charges
///
/// * all that it has admitted, after a loss that was shorter than a full refill;
/// * less, after a longer loss, by its share of the time in which the store's bucket may have been
///   full;
/// * but at least what a bucket of its own, which started full, would still owe.
///
/// Without charging back, each loss admits in addition the units that are in the store's bucket
/// when the store is back: at most one burst.
///
/// The state of a bucket is copied when the answer arrives, as if the store had decided at that
/// time: the time that an answer takes is never to the caller's advantage. A block, and the end of
/// a block, are copied in the same way.
///
/// # Refunds
/// A [`refund`](Command::Refund) gives the local bucket of this process its part of the units.
/// Units count by their time: 3 units of 120 ms are 360 ms, which is one unit of a third of the
/// quota. The local buckets of other replicas do not learn of the refund and refill at their own
/// pace. So together the replicas may admit less than was refunded, and never more.
///
/// If this process owes the store for the bucket, the refund first reduces what it owes, and the
/// store is told of the rest only.
/// Without [`max_owed`](Self::max_owed) it is not known what this process has admitted alone, so
/// the refund of such a unit gives back one that the store was charged for another request.
///
/// # Settlements
/// A [`settlement`](Command::Settle) charges the local bucket too, so that a caller whose requests
/// cost more than estimated is limited also while the store is lost. While the store works, the
/// local bucket is charged the same time. If the store has failed, the units are charged at the
/// rate of this process's share. If the settlement was [submitted](Store::submit) and
/// [`max_owed`](Self::max_owed) is set, this process also owes it to the store.
///
/// # Memory
/// The local store tracks the bucket of every caller that is not full, as it would without another
/// store: see [`MemoryStore`] for the memory that this takes and how to cap it. The events of a cap
/// speak of these local buckets only.
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
        let local = Local::new(local, NonZeroU32::MIN, None);
        Self { store, local }
    }

    /// Falls back from `store` to `local` as one of this many replicas, and notes in `ledger` what
    /// it admits meanwhile. `store` charges that when it is back. Without a ledger, failures are
    /// passed on.
    #[cfg(feature = "redis")]
    pub(super) fn charging_back(
        store: St,
        local: MemoryStore<C>,
        replicas: NonZeroU32,
        ledger: Option<Arc<Ledger>>,
    ) -> Self {
        let is_off = ledger.is_none();
        let local = Local::new(local, replicas, ledger);
        let local = Local { is_off, in_micros: true, ..local };
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
        let most = self.local.ledger.as_ref().map_or(0, |ledger| ledger.most());
        Self { local: Local { replicas, ..self.local }, ..self }.max_owed(most)
    }

    /// Remembers what is admitted locally, for at most this many buckets, so that
    /// [`charge_back`](Self::charge_back) can charge the store for it. Defaults to 0, which
    /// remembers nothing.
    ///
    /// When this many are remembered, the checks of further buckets fail with the store's error, so
    /// that nothing is forgotten.
    #[must_use]
    pub fn max_owed(self, buckets: usize) -> Self {
        let ledger = (buckets > 0).then(|| Arc::new(Ledger::new(self.local.replicas, buckets)));
        Self { local: Local { ledger, ..self.local }, ..self }
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

impl<St: Store, C: Clock> LocalFallback<St, C> {
    /// Charges the store what this process has admitted without it, by
    /// [`Command::Settle`]: see [how much that is](Self#how-much-is-admitted). Call it when the
    /// store is back, and now and then, if [`max_owed`](Self::max_owed) is set.
    ///
    /// # Errors
    /// If the store fails. What was not charged is still owed.
    pub async fn charge_back(&self) -> Result<(), StoreError> {
        let Some(ledger) = &self.local.ledger else { return Ok(()) };
        while let Some(principal) = ledger.some(1, |_| true).pop() {
            let mut unpaid =
                Unpaid { local: &self.local, owed: ledger.remove(&principal), principal };
            while let Some((bucket, dues)) = unpaid.owed.first_mut() {
                let entry = *dues.entry();
                let amount = ledger.amount(dues, self.local.store.now());
                let mut units = amount.div_ceil(entry.rate().interval());
                // At most two bursts, each a settlement of its own.
                while units > 0 {
                    let cost = u32::try_from(units).unwrap_or(u32::MAX).min(entry.quota().burst());
                    let settled = entry.with_cost(cost).map_err(StoreError::of_request)?;
                    let user = bucket.borrow(&unpaid.principal).user();
                    let settled = [settled];
                    let charge = Charge::of(&unpaid.principal, user, &settled);
                    self.store.command(Command::Settle(charge)).await?;
                    // If the next settlement fails, this one is not made again.
                    ledger.pay(dues, settled[0].time());
                    units -= u64::from(cost);
                }
                unpaid.owed.remove(0);
            }
        }
        Ok(())
    }
}

/// Dues that are being charged. When this is dropped, those that are left are owed again.
struct Unpaid<'a, C: Clock> {
    local: &'a Local<C>,
    principal: Principal,
    owed: Owed,
}

impl<C: Clock> Drop for Unpaid<'_, C> {
    fn drop(&mut self) {
        if let Some(ledger) = &self.local.ledger {
            let owed = std::mem::take(&mut self.owed);
            ledger.put_back(&self.principal, owed, self.local.store.now());
        }
    }
}

impl<St: Store, C: Clock> Store for LocalFallback<St, C> {
    type Check = Concluding<St::Check, FallbackCall<C>>;

    fn check(&self, charge: Charge<'_>) -> Answer<Self::Check> {
        // The local store can do more, but must not do for a moment what the other never does.
        if let Err(error) = self.capabilities().permit(&charge) {
            return Answer::Now(Err(error));
        }
        let changes = self.local.changes();
        match self.store.check(charge) {
            Answer::Now(answer) => Answer::Now(self.local.conclude(&charge, answer, changes)),
            later @ Answer::Later(_) => {
                let (local, charge) = (self.local.clone(), OwnedCharge::of(&charge));
                later.conclude_with(FallbackCall { local, charge, changes })
            }
        }
    }

    /// * A peek is answered by the local store if the other one fails.
    /// * A refund, a settlement, a reset and a block are carried out in both stores, in the local
    ///   one even if the other one fails. A block for which the local store has no room, because of
    ///   its cap, holds in the other store only.
    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        self.capabilities().permit_command(&command)?;
        if self.local.is_off {
            return self.store.command(command).await;
        }
        let reply = match command {
            Command::Refund(charge) => match self.local.not_owed(&charge) {
                Some(left) if left.is_empty() => Ok(Reply::Done),
                Some(left) => {
                    let left = charge.with_entries(&left);
                    let reply = self.store.command(Command::Refund(left)).await;
                    if reply.is_err() {
                        // Nothing was given back, so the whole refund can be tried again.
                        self.local.owe_again(&charge, &left);
                    }
                    reply
                }
                None => self.store.command(command).await,
            },
            command => self.store.command(command).await,
        };
        match command {
            Command::Peek(charge) => match reply {
                Err(error) => {
                    let shares = self.local.shares(&charge, &error)?;
                    self.local.tally.failures.looked_up(&error);
                    let peek = Command::Peek(charge.with_entries(&shares));
                    self.local.store.command(peek).await
                }
                reply => reply,
            },
            Command::Refund(charge) => {
                self.local.give_back(&charge);
                reply
            }
            Command::Settle(charge) => {
                self.local.settle(&charge, reply.as_ref().is_err_and(StoreError::is_of_store));
                reply
            }
            Command::Reset(_) | Command::Block { .. } => {
                self.local.follow(command);
                reply
            }
        }
    }

    /// * A refund first reduces what this process owes, and gives the local bucket its part. Only
    ///   the rest is submitted to the other store.
    /// * A settlement is submitted to the other store, and charges the local bucket too. If the
    ///   other store fails and this process remembers [what it owes](LocalFallback::max_owed), it
    ///   owes the settlement from then on, and the result is `Ok`.
    /// * Any other command is submitted to the other store. A reset and a block take effect in the
    ///   local store even if that fails.
    fn submit(&self, command: Command<'_>) -> Result<(), StoreError> {
        self.capabilities().permit_command(&command)?;
        if self.local.is_off {
            return self.store.submit(command);
        }
        match command {
            Command::Refund(charge) => {
                self.local.refund(&charge, |left| self.store.submit(Command::Refund(left)))
            }
            Command::Settle(charge) => {
                let submitted = self.store.submit(command);
                let is_lost = submitted.as_ref().is_err_and(StoreError::is_of_store);
                self.local.settle(&charge, is_lost);
                if is_lost && self.local.owe_settled(&charge) { Ok(()) } else { submitted }
            }
            Command::Peek(_) => self.store.submit(command),
            Command::Reset(_) | Command::Block { .. } => {
                let submitted = self.store.submit(command);
                self.local.follow(command);
                submitted
            }
        }
    }

    /// Those of the other store, and as many replicas as are
    /// [expected](Self::expected_replicas), if that is more.
    fn capabilities(&self) -> Capabilities {
        let capabilities = self.store.capabilities();
        let replicas = capabilities.replicas.max(self.local.replicas);
        Capabilities { replicas, ..capabilities }
    }

    fn report(&self) -> StoreReport {
        let mut report = self.store.report();
        report += self.local.store.report();
        let mut own = StoreReport::default();
        (own.fallbacks, own.failures) = self.local.tally.failures.report();
        own.owed = self.local.ledger.as_ref().map_or(0, |ledger| ledger.len());
        report += own;
        report
    }

    /// Subscribes to the events of both stores.
    fn subscribe(&self, listener: StoreListener) {
        self.store.subscribe(listener.clone());
        self.local.store.subscribe(listener);
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

/// How a [`LocalFallback`] concludes a check: it copies the decision to the local store, or lets
/// that decide if the other store failed. Part of its [`Store::Check`].
///
/// The [example of `LocalFallback`](LocalFallback) makes such a store.
pub struct FallbackCall<C = MonotonicClock> {
    local: Local<C>,
    charge: OwnedCharge,
    changes: u64,
}

impl<C: Clock> Conclude for FallbackCall<C> {
    fn conclude(self, answer: Checked) -> Checked {
        self.local.conclude(&self.charge.borrow(), answer, self.changes)
    }
}

impl<C> fmt::Debug for FallbackCall<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackCall").finish_non_exhaustive()
    }
}
