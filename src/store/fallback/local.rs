//! The local store of a fallback: it copies the other store's decisions, and decides when that
//! fails.

use std::error::Error;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ledger::Ledger;
use crate::store::failures::Failures;
use crate::store::{Charge, Checked, Command, Entry, MemoryStore, Store, StoreError, nanos};
use crate::values::clock::Clock;
use crate::values::{ChargeError, Decision, Limit, Rate};

pub(in crate::store) struct Local<C> {
    pub(super) store: Arc<MemoryStore<C>>,
    pub(super) tally: Arc<Tally>,
    pub(super) replicas: NonZeroU32,
    /// What was admitted here and has to be charged to the store when it is back.
    pub(super) ledger: Option<Arc<Ledger>>,
    /// Whether the store counts in whole microseconds.
    pub(super) in_micros: bool,
    /// Whether the fallback is off, so that failures of the store are passed on.
    pub(super) is_off: bool,
}

#[derive(Default)]
pub(super) struct Tally {
    /// How many times a command has changed a bucket, or a bucket was found to be newly blocked.
    /// The answer to a call that was made before such a change is not copied after it.
    changes: AtomicU64,
    pub(super) failures: Failures,
}

impl<C> Local<C> {
    pub(in crate::store) fn new(
        store: MemoryStore<C>,
        replicas: NonZeroU32,
        ledger: Option<Arc<Ledger>>,
    ) -> Self {
        let (store, tally) = (Arc::new(store), Arc::default());
        Self { store, tally, replicas, ledger, in_micros: false, is_off: false }
    }

    pub(in crate::store) fn changes(&self) -> u64 {
        self.tally.changes.load(Ordering::Acquire)
    }

    pub(super) fn change(&self) {
        self.tally.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// The bucket of an entry, measured by this process's share of the quota. The cost is one unit.
    pub(super) fn share(&self, entry: &Entry) -> Entry {
        let quota = entry.quota().shared_by(self.replicas);
        let limit = Limit::new(entry.name(), quota).with_scope(entry.scope());
        Entry::counted_by(limit, self.rate(entry).shared_by(self.replicas))
    }

    /// The rate by which the store counts.
    pub(super) fn rate(&self, entry: &Entry) -> Rate {
        if self.in_micros { entry.rate().in_whole_micros() } else { entry.rate() }
    }

    /// The entries of a charge, measured by this process's share of each quota.
    ///
    /// # Errors
    /// If a cost is more than the share of the burst. Waiting would never suffice then.
    pub(super) fn shares(
        &self,
        charge: &Charge<'_>,
        failure: &StoreError,
    ) -> Result<Vec<Entry>, StoreError> {
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
    pub(super) fn not_owed(&self, charge: &Charge<'_>) -> Option<Vec<Entry>> {
        let ledger = self.ledger.as_ref().filter(|ledger| !ledger.is_empty())?;
        let left = charge.entries().iter().filter_map(|entry| {
            let rate = self.rate(entry);
            let time = rate.time_of(entry.cost());
            let left = ledger.reduce(charge.bucket(entry), time) / rate.interval();
            // No cost: all of it was owed.
            entry.with_cost(u32::try_from(left).unwrap_or(u32::MAX)).ok()
        });
        Some(left.collect())
    }

    /// Notes again what a refund took off the dues: its entries less those that are `left`.
    pub(super) fn owe_again(&self, charge: &Charge<'_>, left: &Charge<'_>) {
        let Some(ledger) = &self.ledger else { return };
        for entry in charge.entries() {
            let same = |other: &&Entry| charge.bucket(other) == charge.bucket(entry);
            let rest = left.entries().iter().find(same).map_or(0, Entry::cost);
            if let Ok(owed) = entry.with_cost(entry.cost().saturating_sub(rest)) {
                let owed = owed.counted_in(self.rate(&owed));
                ledger.note(charge.bucket(entry), &owed, self.store.now());
            }
        }
    }

    pub(super) fn give_back(&self, charge: &Charge<'_>) {
        self.change();
        for entry in charge.entries() {
            let share = [self.share(entry)];
            self.store.give_back(&charge.with_entries(&share), entry.time());
        }
    }

    /// Gives units back: takes them off what is owed, calls `submit` with those that are not, and
    /// gives the local buckets their part.
    pub(in crate::store) fn refund(
        &self,
        charge: &Charge<'_>,
        submit: impl FnOnce(Charge<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let submitted = match self.not_owed(charge) {
            Some(left) if left.is_empty() => Ok(()),
            Some(left) => submit(charge.with_entries(&left)),
            None => submit(*charge),
        };
        self.give_back(charge);
        submitted
    }

    /// Carries out in the local store a reset or a block that was handed to the other one.
    pub(super) fn follow(&self, command: Command<'_>) {
        self.change();
        if let (Command::Reset(bucket), Some(ledger)) = (command, &self.ledger) {
            ledger.forget(bucket);
        }
        // It fails only if there is no room for a block.
        let _ = self.store.submit(command);
    }

    /// Charges the local buckets what the request cost beyond its charge: as much time as the store
    /// charges its own. If the store `is_lost`, the replica has only its share of the quota, in
    /// which the same units take longer to come back.
    pub(super) fn settle(&self, charge: &Charge<'_>, is_lost: bool) {
        for entry in charge.entries() {
            let share = [self.share(entry)];
            let replicas = if is_lost { u64::from(self.replicas.get()) } else { 1 };
            let time = self.rate(entry).time_of(entry.cost()).saturating_mul(replicas);
            self.store.settle(&charge.with_entries(&share), time);
        }
    }

    /// Notes that the store has to be charged for what the request cost beyond its charge. Returns
    /// whether it was noted: whether there is a ledger with room.
    pub(super) fn owe_settled(&self, charge: &Charge<'_>) -> bool {
        let Some(ledger) = self.ledger.as_ref().filter(|ledger| ledger.has_room(charge)) else {
            return false;
        };
        for entry in charge.entries() {
            let counted = entry.counted_in(self.rate(entry));
            ledger.note(charge.bucket(entry), &counted, self.store.now());
        }
        true
    }

    /// Copies the decisions of the store, or decides locally if the store failed. `changes` is the
    /// number of changes when the store was called.
    pub(in crate::store) fn conclude(
        &self,
        charge: &Charge<'_>,
        answer: Checked,
        changes: u64,
    ) -> Checked {
        if self.is_off {
            return answer;
        }
        match answer {
            Ok(decisions) => {
                for (entry, decision) in charge.entries().iter().zip(decisions.as_slice()) {
                    if changes == self.changes() {
                        let share = [self.share(entry)];
                        let one = charge.with_entries(&share);
                        self.note_block(&one, decision, changes);
                        self.note_state(&one, decision);
                    }
                }
                Ok(decisions)
            }
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
        if !ledger.has_room(charge) {
            return Err(error);
        }
        self.tally.failures.decided(&error);
        let decisions = self.store.charge(charge.with_entries(shares));
        let outcome = decisions.outcome();
        for entry in charge.entries() {
            if outcome.charges(entry.is_binding()) {
                let counted = entry.counted_in(self.rate(entry));
                ledger.note(charge.bucket(entry), &counted, self.store.now());
            }
        }
        Ok(decisions)
    }

    /// Blocks the local bucket of a charge of one bucket, or lifts its block, as in the store.
    fn note_block(&self, one: &Charge<'_>, decision: &Decision, changes: u64) {
        let blocked_for = decision.retry_after().filter(|_| decision.is_blocked()).map(nanos);
        // Compared again under the lock of the bucket: a later change by hand waits for the lock,
        // and so has the last word.
        let current = || changes == self.changes();
        if self.store.follow(&one.bucket(&one.entries()[0]), blocked_for, current) {
            self.change();
        }
    }

    /// Sets what the local bucket of a charge of one bucket has left: the same time as the store's
    /// bucket. A unit of the replica's share takes longer to come back, so in that time there are
    /// fewer of them: the replica's part. A drained bucket stays drained, and a full one full.
    fn note_state(&self, one: &Charge<'_>, decision: &Decision) {
        let share = &one.entries()[0];
        // The decision of a blocked bucket does not say when the bucket is full.
        let debt = if decision.is_blocked() { 0 } else { nanos(decision.reset()) };
        if debt > 0 {
            let (refill, own) = (decision.rate().refill(), share.rate().refill());
            let debt = if debt <= refill {
                own.saturating_sub(refill - debt)
            } else {
                own + (debt - refill)
            };
            self.store.owe(one, debt);
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
            in_micros: self.in_micros,
            is_off: self.is_off,
        }
    }
}
