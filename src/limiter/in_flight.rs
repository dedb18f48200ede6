//! The places that are taken in limits of requests in flight.
//!
//! They are counted here and not in the store, because a count on a server would stay too high if
//! this process died. So such a limit works with every store, and needs no call.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::store::{Bucket, Charge, ChargeOutcome, Decisions, Entry};
use crate::values::{Decision, Kind, Limit, LimitName, Scope};

const SHARDS: usize = 64;

/// The time by which a [`Decision`] counts one request in flight, in nanoseconds.
const EACH: u64 = 1_000_000_000;

/// Counts the requests in flight.
pub(super) struct InFlight {
    /// By the billed principal, so that the buckets of one request have one lock.
    shards: Box<[Mutex<Counts>]>,
    /// The buckets of limits for everyone.
    everyone: Mutex<Counts>,
    /// The number of processes that share a limit.
    replicas: NonZeroU32,
}

/// The number of places that are taken in each bucket that has any.
type Counts = HashMap<Key, u64, foldhash::fast::RandomState>;

/// A bucket: the limit, and the principal and the user by their fingerprints.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    name: LimitName,
    scope: Scope,
    principal: (Kind, [u64; 2]),
    user: Option<(Kind, [u64; 2])>,
}

/// What the limits of requests in flight say about one request.
pub(super) struct Look {
    /// One for each entry of requests in flight, in their order.
    found: SmallVec<[Found; 1]>,
}

struct Found {
    /// The entry, measured by this process's share of the quota.
    entry: Entry,
    /// The number of places that other requests have taken.
    others: u64,
}

/// The places of one charge, until its rates are decided.
pub(super) struct Reserved {
    pub(super) look: Look,
    places: Places,
}

/// The places that a request takes. When this is dropped, they are free again.
pub(super) struct Places {
    in_flight: Arc<InFlight>,
    /// The buckets, the number of places in each, and whether its entry is binding.
    taken: SmallVec<[(Key, u32, bool); 1]>,
}

impl InFlight {
    pub(super) fn new(replicas: NonZeroU32) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, everyone: Mutex::default(), replicas }
    }

    /// Takes the places of a request, by the law of charges: all or nothing. They are taken before
    /// the store is asked, so that there are never more requests in flight than allowed. If the
    /// store refuses the request, they are free again at once.
    pub(super) fn reserve(self: &Arc<Self>, charge: &Charge<'_>) -> Reserved {
        let mut taken = SmallVec::new();
        let mut counts = self.lock(charge);
        let look = counts.look(self, charge);
        let outcome = look.outcome();
        for entry in concurrent(charge.entries()) {
            if outcome.charges(entry.is_binding()) {
                let key = Key::of(&charge.bucket(entry));
                *counts.of(&key).entry(key).or_default() += u64::from(entry.cost());
                taken.push((key, entry.cost(), entry.is_binding()));
            }
        }
        drop(counts);
        Reserved { look, places: Places { in_flight: Arc::clone(self), taken } }
    }

    /// What the limits say now. No place is taken.
    pub(super) fn look(&self, charge: &Charge<'_>) -> Look {
        self.lock(charge).look(self, charge)
    }

    /// How many places are taken in all limits.
    pub(super) fn len(&self) -> u64 {
        let all = self.shards.iter().chain([&self.everyone]);
        all.map(|counts| lock(counts).values().sum::<u64>()).sum()
    }

    /// Locks the counts of a charge: those of the principal and then those of everyone, always in
    /// this order, or two requests could deadlock.
    fn lock(&self, charge: &Charge<'_>) -> Locked<'_> {
        let in_flight = || concurrent(charge.entries());
        let is_everyones = |entry: &Entry| entry.scope() == Scope::Everyone;
        let shard = self.shard(charge.principal().id().fingerprint());
        Locked {
            principal: in_flight().any(|entry| !is_everyones(entry)).then(|| lock(shard)),
            everyone: in_flight().any(is_everyones).then(|| lock(&self.everyone)),
        }
    }

    fn shard(&self, [first, _]: [u64; 2]) -> &Mutex<Counts> {
        #[expect(clippy::cast_possible_truncation, reason = "there are few shards")]
        let index = first as usize % SHARDS;
        &self.shards[index]
    }

    /// The entry, measured by this process's share of the quota: at least the cost of one request.
    fn share(&self, entry: &Entry) -> Entry {
        let quota = entry.quota().concurrent_share(self.replicas, entry.cost_units());
        let limit = Limit::new(entry.name(), quota).with_scope(entry.scope());
        let share = Entry::of(limit).with_cost(entry.cost()).unwrap_or(*entry);
        if entry.is_binding() { share } else { share.shadow() }
    }

    fn free(&self, key: &Key, places: u32) {
        let counts = match key.scope {
            Scope::Everyone => &self.everyone,
            _ => self.shard(key.principal.1),
        };
        let mut counts = lock(counts);
        if let Some(count) = counts.get_mut(key) {
            *count = count.saturating_sub(places.into());
            if *count == 0 {
                counts.remove(key);
            }
        }
    }
}

/// The counts that one charge needs.
struct Locked<'a> {
    principal: Option<MutexGuard<'a, Counts>>,
    everyone: Option<MutexGuard<'a, Counts>>,
}

impl Locked<'_> {
    fn look(&mut self, in_flight: &InFlight, charge: &Charge<'_>) -> Look {
        let found = concurrent(charge.entries()).map(|entry| {
            let key = Key::of(&charge.bucket(entry));
            let others = self.of(&key).get(&key).copied().unwrap_or_default();
            Found { entry: in_flight.share(entry), others }
        });
        Look { found: found.collect() }
    }

    fn of(&mut self, key: &Key) -> &mut Counts {
        let counts = match key.scope {
            Scope::Everyone => &mut self.everyone,
            _ => &mut self.principal,
        };
        counts.as_mut().expect("the counts of each entry are locked")
    }
}

/// The entries of requests in flight.
fn concurrent(entries: &[Entry]) -> impl DoubleEndedIterator<Item = &Entry> {
    entries.iter().filter(|entry| entry.is_concurrent())
}

// Nothing panics while it holds the lock, so the counts are right even if it is poisoned.
fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Key {
    pub(super) fn of(bucket: &Bucket<'_>) -> Self {
        Self {
            name: bucket.name(),
            scope: bucket.scope(),
            principal: (bucket.principal().kind(), bucket.principal().id().fingerprint()),
            user: bucket.user().map(|user| (user.kind(), user.id().fingerprint())),
        }
    }
}

impl Look {
    /// What becomes of the request as far as these limits go. If it is refused, no rate is charged.
    pub(super) fn outcome(&self) -> ChargeOutcome {
        let hold = |binding| self.of(binding).all(Found::has_room);
        ChargeOutcome::of(hold(true), hold(false), self.of(false).next().is_some())
    }

    /// Whether a shadow entry has no room. No shadow entry is charged then.
    pub(super) fn shadow_lacks(&self) -> bool {
        !self.of(false).all(Found::has_room)
    }

    /// The decisions of these limits, if the store is not asked about rates: because one of these
    /// limits refuses the request, or because no rate is to be charged. `charged` is whether the
    /// places were taken, or only looked at.
    pub(super) fn alone(&self, charged: bool) -> Decisions {
        let outcome = self.outcome();
        let decide =
            |found: &Found| found.decide(charged && outcome.charges(found.entry.is_binding()));
        Decisions::new(outcome, self.found.iter().map(decide))
    }

    /// The decisions of the rates of the same charge, whose entries are `asked`, and then those of
    /// these limits. `charged` is whether the buckets were charged, or only looked at.
    pub(super) fn merged(&self, asked: &[Entry], rates: &Decisions, charged: bool) -> Decisions {
        let hold = |binding| {
            let mut rates = asked.iter().zip(rates.as_slice());
            rates.all(|(entry, rate)| entry.is_binding() != binding || rate.is_allowed())
                && self.of(binding).all(Found::has_room)
        };
        let mut shadow = asked.iter().filter(|entry| !entry.is_binding());
        let has_shadow = shadow.next().is_some() || self.of(false).next().is_some();
        let outcome = ChargeOutcome::of(hold(true), hold(false), has_shadow);
        let own = self
            .found
            .iter()
            .map(|found| found.decide(charged && outcome.charges(found.entry.is_binding())));
        Decisions::new(outcome, rates.as_slice().iter().copied().chain(own))
    }

    fn of(&self, binding: bool) -> impl Iterator<Item = &Found> {
        self.found.iter().filter(move |found| found.entry.is_binding() == binding)
    }
}

impl Found {
    fn has_room(&self) -> bool {
        self.others + u64::from(self.entry.cost()) <= u64::from(self.entry.quota().burst())
    }

    /// The decision. If the places are taken, they count as in flight.
    fn decide(&self, taken: bool) -> Decision {
        let own = if taken { u64::from(self.entry.cost()) } else { 0 };
        self.entry.decide(self.has_room(), (self.others + own).saturating_mul(EACH))
    }
}

impl Reserved {
    /// Adds the decisions of the limits of requests in flight to those of the rates of the same
    /// charge, whose entries are `asked`. Places that the outcome of the whole charge does not
    /// leave to the request are free again.
    pub(super) fn merge(&mut self, asked: &[Entry], rates: &Decisions) -> Decisions {
        let decisions = self.look.merged(asked, rates, true);
        let Places { in_flight, taken } = &mut self.places;
        taken.retain(|(key, places, binding)| {
            let stays = decisions.outcome().charges(*binding);
            if !stays {
                in_flight.free(key, *places);
            }
            stays
        });
        decisions
    }

    pub(super) fn into_places(self) -> Places {
        self.places
    }
}

impl Places {
    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for (key, places, _) in self.taken.drain(..) {
            self.in_flight.free(&key, places);
        }
    }
}
