//! A store that counts in this process while the store that it wraps is lost.

mod dues;
mod ledger;

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) use ledger::{Ledger, Owed};

use super::failures::Failures;
use super::{
    Answer, Capabilities, Charge, Checked, Command, Conclude, Concluding, Entry, MemoryStore,
    Reply, Store, StoreError, StoreListener, StoreReport, nanos,
};
use crate::values::clock::{Clock, MonotonicClock};
use crate::values::{ChargeError, Decision, OwnedCharge, Principal, Rate};

/// Decides in this process when the store fails, from the state of the buckets that the store last
/// reported.
///
/// Every decision of the store's [`check`](Store::check) is copied to the [`local`](Self::local)
/// store. So a caller who had spent the quota does not get a full bucket when the store is lost.
/// When a check or a [`peek`](Command::Peek) of the store fails, with an error of any kind, the
/// local store answers instead. It fails only if the cost is more than this process's share of the
/// burst. A failed [`reset`](Command::Reset), [`refund`](Command::Refund) or
/// [`block`](Command::Block) takes effect in the local store and returns the error.
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
/// one unit for every [`emission_interval`](crate::Quota::emission_interval) since then.
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

    /// Falls back from `store` to `local` as one of so many replicas. What it admits meanwhile it
    /// notes in `ledger`, and the store charges that when it is back. Without replicas it does not
    /// fall back.
    #[cfg(feature = "redis")]
    pub(super) fn charging_back(
        store: St,
        local: MemoryStore<C>,
        replicas: Option<NonZeroU32>,
        ledger: Option<Arc<Ledger>>,
    ) -> Self {
        let local = Local::new(local, replicas.unwrap_or(NonZeroU32::MIN), ledger);
        Self { store, local: Local { is_off: replicas.is_none(), ..local } }
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
    /// * A refund, a reset and a block are carried out in both stores, in the local one even if the
    ///   other one fails. A block for which the local store has no room, because of its cap, holds
    ///   in the other store only.
    /// * A [settlement](Command::Settle) is carried out in the other store only.
    async fn command(&self, command: Command<'_>) -> Result<Reply, StoreError> {
        self.capabilities().permit_command(&command)?;
        if self.local.is_off {
            return self.store.command(command).await;
        }
        let reply = match command {
            Command::Refund(charge) => match self.local.not_owed(&charge) {
                Some(left) if left.is_empty() => Ok(Reply::Done),
                Some(left) => self.store.command(Command::Refund(charge.with_entries(&left))).await,
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
            Command::Settle(_) => reply,
            Command::Reset { .. } | Command::Block { .. } => {
                self.local.change();
                if let (Command::Reset { principal, endpoint }, Some(ledger)) =
                    (command, &self.local.ledger)
                {
                    ledger.forget(principal, endpoint);
                }
                // It fails only if there is no room for a block.
                let _ = self.local.store.command(command).await;
                reply
            }
        }
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
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

pub(super) struct Local<C> {
    store: Arc<MemoryStore<C>>,
    tally: Arc<Tally>,
    replicas: NonZeroU32,
    /// What was admitted here and has to be charged to the store when it is back.
    ledger: Option<Arc<Ledger>>,
    /// Whether failures are passed on instead.
    is_off: bool,
}

#[derive(Default)]
struct Tally {
    /// How many times a bucket was changed by hand, or was found to be newly blocked. The answer to
    /// a call that was made before such a change is not copied after it.
    changes: AtomicU64,
    failures: Failures,
}

impl<C> Local<C> {
    pub(super) fn new(
        store: MemoryStore<C>,
        replicas: NonZeroU32,
        ledger: Option<Arc<Ledger>>,
    ) -> Self {
        let (store, tally) = (Arc::new(store), Arc::default());
        Self { store, tally, replicas, ledger, is_off: false }
    }

    pub(super) fn changes(&self) -> u64 {
        self.tally.changes.load(Ordering::Acquire)
    }

    fn change(&self) {
        self.tally.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// The bucket of an entry, measured by this process's share of the quota. The cost is one unit.
    fn share(&self, entry: &Entry) -> Entry {
        let quota = entry.quota().shared_by(self.replicas);
        Entry::counted_by(entry.endpoint(), quota, self.rate(entry).shared_by(self.replicas))
    }

    /// The rate by which the store counts: in whole microseconds if it is charged back.
    fn rate(&self, entry: &Entry) -> Rate {
        #[cfg(feature = "redis")]
        if self.ledger.is_some() {
            return entry.rate().in_whole_micros();
        }
        entry.rate()
    }

    /// The entries of a charge, measured by this process's share of each quota.
    ///
    /// # Errors
    /// If a cost is more than the share of the burst. Waiting would never suffice then.
    fn shares(&self, charge: &Charge<'_>, failure: &StoreError) -> Result<Vec<Entry>, StoreError> {
        let share = |entry: &Entry| {
            let share = self.share(entry).with_cost(entry.cost())?;
            Ok(if entry.is_binding() { share } else { share.shadow() })
        };
        charge.entries().iter().map(share).collect::<Result<_, _>>().map_err(
            |error: ChargeError| {
                StoreError::of_request(format!(
                    "the share of this replica, 1 of {}, can't hold the cost: {error}; lower the \
                     cost or raise the burst ({failure}{}{})",
                    self.replicas,
                    if failure.source().is_some() { ": " } else { "" },
                    failure.source().map(ToString::to_string).unwrap_or_default(),
                ))
                .of_kind("share")
            },
        )
    }
}

impl<C: Clock> Local<C> {
    /// The part of a refund that the store was charged for. What is still owed for these buckets is
    /// reduced by the rest. `None` if that is nothing.
    fn not_owed(&self, charge: &Charge<'_>) -> Option<Vec<Entry>> {
        let ledger = self.ledger.as_ref().filter(|ledger| !ledger.is_empty())?;
        let left = charge.entries().iter().filter_map(|entry| {
            let rate = self.rate(entry);
            let time = rate.time_of(entry.cost());
            let left = ledger.reduce(charge.principal(), entry.endpoint(), time) / rate.interval();
            // No cost: all of it was owed.
            entry.with_cost(u32::try_from(left).unwrap_or(u32::MAX)).ok()
        });
        Some(left.collect())
    }

    fn give_back(&self, charge: &Charge<'_>) {
        self.change();
        for entry in charge.entries() {
            let (share, time) = (self.share(entry), entry.time());
            self.store.give_back(charge.principal(), &share, time);
        }
    }

    /// Copies the decisions of the store, or decides locally if the store failed. `changes` is the
    /// number of changes when the store was called.
    pub(super) fn conclude(&self, charge: &Charge<'_>, answer: Checked, changes: u64) -> Checked {
        match answer {
            Ok(decisions) => {
                for (entry, decision) in charge.entries().iter().zip(decisions.as_slice()) {
                    if changes == self.changes() {
                        let (principal, share) = (charge.principal(), self.share(entry));
                        self.note_block(principal, &share, decision, changes);
                        self.note_debt(principal, &share, decision);
                    }
                }
                Ok(decisions)
            }
            Err(error) if self.is_off => Err(error),
            Err(error) => {
                if let [entry] = charge.entries() {
                    if entry.cost() == 1 && entry.is_binding() {
                        return self.decide(charge, &[self.share(entry)], error);
                    }
                }
                let shares = self.shares(charge, &error)?;
                self.decide(charge, &shares, error)
            }
        }
    }

    /// Decides locally, because the store failed.
    fn decide(&self, charge: &Charge<'_>, shares: &[Entry], error: StoreError) -> Checked {
        let Some(ledger) = &self.ledger else {
            self.tally.failures.decided(&error);
            return Ok(self.store.charge(charge.with_entries(shares)));
        };
        if !ledger.has_room(charge.principal(), charge.entries()) {
            return Err(error);
        }
        self.tally.failures.decided(&error);
        let decisions = self.store.charge(charge.with_entries(shares));
        let outcome = decisions.outcome();
        for entry in charge.entries() {
            if outcome.charges(entry.is_binding()) {
                let entry = entry.counted_in(self.rate(entry));
                ledger.note(charge.principal(), &entry, self.store.now());
            }
        }
        Ok(decisions)
    }

    /// Blocks the local bucket, or lifts its block, as in the store.
    fn note_block(&self, principal: &Principal, share: &Entry, decision: &Decision, changes: u64) {
        let blocked_for = decision.retry_after().filter(|_| decision.is_blocked()).map(nanos);
        // Compared again under the lock of the bucket: a later change by hand waits for the lock,
        // and so has the last word.
        let current = || changes == self.changes();
        if self.store.follow(principal, share.endpoint(), blocked_for, current) {
            self.change();
        }
    }

    /// Leaves in the local bucket the time that the store's bucket has left to spend. The same time
    /// is fewer of the share's slower units, so each replica gets its part. A drained bucket stays
    /// drained, and a full one full.
    fn note_debt(&self, principal: &Principal, share: &Entry, decision: &Decision) {
        // The decision of a blocked bucket does not say when the bucket is full.
        let debt = if decision.is_blocked() { 0 } else { nanos(decision.reset()) };
        if debt > 0 {
            let (refill, own) = (decision.rate().refill(), share.rate().refill());
            let debt = if debt <= refill {
                own.saturating_sub(refill - debt)
            } else {
                own + (debt - refill)
            };
            self.store.owe(principal, share, debt);
        }
    }
}

impl<C> Clone for Local<C> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            tally: Arc::clone(&self.tally),
            replicas: self.replicas,
            ledger: self.ledger.clone(),
            is_off: self.is_off,
        }
    }
}
