//! The law by which a charge is decided, once for every store.
//!
//! It is pure: it takes the state of each bucket and returns the state after the charge. A store
//! that decides in another way, such as by an atomic cell or a script on a server, is tested
//! against it.

use std::time::Duration;

use super::decisions::{ChargeOutcome, Decisions};
use super::{Charge, Entry};
use crate::values::Rate;

/// The state of a bucket at the time of a charge, for stores: how long until it is full, how large
/// its overdraft is, and for how much longer it is blocked.
///
/// A store keeps points in time, which change only when the bucket does. For each charge it
///
/// 1. turns them into states, that is into the times that are left,
/// 2. lets [`Charge::apply`] decide and change the states, and
/// 3. turns the states into points in time again and keeps those.
///
/// A bucket that the store does not know is full, which is the [`default`](Self::default) state. So
/// a store may forget a bucket whose state has become the default: full, not overdrawn and not
/// blocked.
///
/// ```
/// use std::time::Duration;
/// use bolna_rate_limit::store::{BucketState, Charge, Entry};
/// use bolna_rate_limit::{Endpoint, Principal, Quota};
///
/// let caller = Principal::organization("org-4").expect("the id is not empty");
/// let entry = Entry::new(Endpoint::CALL, Quota::per_minute(500).build()?);
/// // A drained bucket: with this quota it is full again after a minute.
/// let mut states = [BucketState::default().full_after(Duration::from_secs(60))];
/// let decisions = Charge::of_one(&caller, &entry).apply(&mut states);
/// assert_eq!(decisions.first().retry_after(), Some(Duration::from_millis(120)));
///
/// states[0] = states[0].full_after(Duration::from_secs(30));
/// let decisions = Charge::of_one(&caller, &entry).apply(&mut states);
/// assert_eq!(decisions.first().remaining(), 249);
/// assert_eq!(states[0].until_full(), Duration::from_millis(30_120));
/// # Ok::<(), bolna_rate_limit::values::QuotaError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketState {
    /// In nanoseconds, as the other times.
    pub(crate) debt: u64,
    pub(crate) overdraft: u64,
    pub(crate) blocked: u64,
    /// Whether callers share the bucket for want of room. It is neither corrected to the quota of
    /// one of them nor filled up for one.
    pub(crate) shared: bool,
    /// Whether the time of the charge is an estimate. Then a debt that is up to a second too long
    /// is not corrected.
    pub(crate) is_estimate: bool,
}

/// How far an estimate of the time may be off, in nanoseconds.
const SLACK: u64 = 1_000_000_000;

impl BucketState {
    /// Sets the time until the bucket is full if no more units are charged to it. A time of more
    /// than 146 years is clamped to that.
    #[must_use]
    pub fn full_after(self, debt: Duration) -> Self {
        Self { debt: nanos(debt), ..self }
    }

    /// Sets the overdraft: the time until the last unit that was [used before it was
    /// charged](crate::store::Command::Settle) is repaid. It falls as time passes. Only by this
    /// much may the time until full be longer than a full refill; any more is corrected. Clamped to
    /// 146 years.
    #[must_use]
    pub fn overdrawn(self, overdraft: Duration) -> Self {
        Self { overdraft: nanos(overdraft), ..self }
    }

    /// Sets for how much longer the bucket is blocked; zero if it is not. Clamped to 146 years.
    #[must_use]
    pub fn blocked_for(self, left: Duration) -> Self {
        Self { blocked: nanos(left), ..self }
    }

    /// The time until the bucket is full if no more units are charged to it.
    #[must_use]
    pub const fn until_full(&self) -> Duration {
        Duration::from_nanos(self.debt)
    }

    /// What is left of the overdraft.
    #[must_use]
    pub const fn overdraft(&self) -> Duration {
        Duration::from_nanos(self.overdraft)
    }

    /// For how much longer the bucket is blocked; zero if it is not.
    #[must_use]
    pub const fn blocked(&self) -> Duration {
        Duration::from_nanos(self.blocked)
    }
}

/// At most 146 years, so that sums of a few times do not overflow.
fn nanos(time: Duration) -> u64 {
    const LONGEST: u64 = 1 << 62;
    u64::try_from(time.as_nanos()).map_or(LONGEST, |time| time.min(LONGEST))
}

impl Charge<'_> {
    /// For stores: decides the charge, and charges the buckets.
    ///
    /// A time until full of more than a full refill plus the overdraft is impossible: the clock
    /// went back, or the quota was slower before. It is reduced to that sum first.
    ///
    /// # Panics
    /// If there is not one state for each entry, in the order of the entries.
    pub fn apply(&self, states: &mut [BucketState]) -> Decisions {
        let outcome = self.outcome(states);
        let charged = |entry: &Entry| outcome.charges(entry.is_binding());
        let decisions = self.entries.iter().zip(states).map(|(entry, state)| {
            let holds = state.holds(entry);
            if charged(entry) {
                state.debt += entry.time();
            }
            state.decide(entry, holds)
        });
        Decisions::new(outcome, decisions)
    }

    /// For stores: what [`apply`](Self::apply) would decide. It corrects the states as `apply`
    /// does, and charges nothing.
    ///
    /// # Panics
    /// If there is not one state for each entry, in the order of the entries.
    pub fn peek(&self, states: &mut [BucketState]) -> Decisions {
        let outcome = self.outcome(states);
        let decisions = self
            .entries
            .iter()
            .zip(states)
            .map(|(entry, state)| state.decide(entry, state.holds(entry)));
        Decisions::new(outcome, decisions)
    }

    /// The outcome. Corrects the states first.
    fn outcome(&self, states: &mut [BucketState]) -> ChargeOutcome {
        self.assert_one_each(states);
        let (mut binding_hold, mut shadow_hold, mut has_shadow) = (true, true, false);
        for (entry, state) in self.entries.iter().zip(states) {
            state.correct(entry.rate());
            if entry.is_binding() {
                binding_hold &= state.holds(entry);
            } else {
                has_shadow = true;
                shadow_hold &= state.holds(entry);
            }
        }
        ChargeOutcome::of(binding_hold, shadow_hold, has_shadow)
    }

    /// For stores: gives each bucket its cost back, at most until the bucket is full. An overdraft
    /// is repaid first.
    ///
    /// # Panics
    /// If there is not one state for each entry, in the order of the entries.
    pub fn refund(&self, states: &mut [BucketState]) {
        self.assert_one_each(states);
        for (entry, state) in self.entries.iter().zip(states) {
            state.correct(entry.rate());
            state.give_back(entry.time());
        }
    }

    /// For stores: charges each bucket its cost, even if the bucket does not hold it, because the
    /// units were used already. The overdraft is at most one burst.
    ///
    /// # Panics
    /// If there is not one state for each entry, in the order of the entries.
    pub fn settle(&self, states: &mut [BucketState]) {
        self.assert_one_each(states);
        for (entry, state) in self.entries.iter().zip(states) {
            state.settle(entry.rate(), entry.time());
        }
    }
}

impl Charge<'_> {
    fn assert_one_each(&self, states: &[BucketState]) {
        let (states, entries) = (states.len(), self.entries.len());
        assert!(states == entries, "{states} states of buckets for a charge of {entries} entries");
    }
}

impl BucketState {
    /// Corrects an impossible debt. A debt of more than a full refill and the overdraft comes from
    /// a clock that went back or from a quota that was slower. It counts as a drained bucket's.
    pub(crate) fn correct(&mut self, rate: Rate) {
        if self.shared {
            return;
        }
        self.overdraft = self.overdraft.min(rate.refill());
        let most = rate.refill() + self.overdraft;
        let slack = if self.is_estimate { SLACK } else { 0 };
        if self.debt > most + slack {
            self.debt = most;
        }
    }

    /// Makes the bucket full `time` nanoseconds earlier, but not before now.
    pub(crate) fn give_back(&mut self, time: u64) {
        if self.shared {
            return;
        }
        self.debt = self.debt.saturating_sub(time);
        self.overdraft = self.overdraft.saturating_sub(time);
    }

    /// Charges the bucket `time` nanoseconds, even if it does not hold them. It owes two refills
    /// at most.
    pub(crate) fn settle(&mut self, rate: Rate, time: u64) {
        self.correct(rate);
        let refill = rate.refill();
        if self.shared {
            self.debt = (self.debt + time).min(refill).max(self.debt);
            return;
        }
        self.debt = (self.debt + time).min(2 * refill).max(self.debt);
        self.overdraft = self.overdraft.max(self.debt.saturating_sub(refill));
    }

    /// Whether the bucket, once [corrected](Self::correct), holds the cost and is not blocked.
    pub(crate) const fn holds(&self, entry: &Entry) -> bool {
        self.blocked == 0 && self.debt <= entry.tolerance()
    }

    pub(crate) const fn decide(&self, entry: &Entry, holds: bool) -> crate::values::Decision {
        if self.blocked > 0 {
            let own = self.debt.saturating_sub(entry.tolerance());
            entry.decide_blocked(if own > self.blocked { own } else { self.blocked })
        } else {
            entry.decide(holds, self.debt)
        }
    }
}
