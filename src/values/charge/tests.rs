//! The law of charges against a model that was written apart from it.

use std::num::NonZeroU32;

use proptest::prelude::*;
use proptest::sample::Index;

use super::{BucketState, Charge, ChargeError, ChargeOutcome, Entry};
use crate::values::{Endpoint, Principal, Quota};

const ENDPOINTS: [Endpoint; 4] =
    [Endpoint::EXECUTIONS, Endpoint::AGENT, Endpoint::CALL, Endpoint::DEFAULT];

/// A bucket that counts up: how many nanoseconds of refilling it holds. Negative if it was
/// overdrawn.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    holds: i128,
    /// The most that it can hold, by the quota that it was last measured by.
    most: i128,
    /// How far below zero it may be.
    overdrawn: i128,
    blocked: i128,
}

impl Bucket {
    const FULL: Self = Self { holds: 0, most: 0, overdrawn: 0, blocked: 0 };

    /// Measures the bucket by another quota: it is full at the same time as before, but it is at
    /// most drained, or overdrawn by at most one burst. If it seems to hold less, by no more than
    /// the slack, that is left alone.
    fn measure(&mut self, most: i128, slack: i128) {
        let missing = self.most - self.holds;
        self.most = most;
        self.overdrawn = self.overdrawn.min(most);
        self.holds = most - missing;
        if self.holds < -self.overdrawn - slack {
            self.holds = -self.overdrawn;
        }
    }

    fn wait(&mut self, nanos: i128) {
        self.holds = (self.holds + nanos).min(self.most);
        self.overdrawn = (self.overdrawn - nanos).max(0);
        self.blocked = (self.blocked - nanos).max(0);
    }

    fn has(&self, nanos: i128) -> bool {
        self.blocked == 0 && self.holds >= nanos
    }
}

#[derive(Clone, Debug)]
enum Step {
    Charge(Vec<Part>),
    Refund(Vec<Part>),
    Settle(Vec<Part>),
    Reset(Index),
    Block(Index, u32),
    Wait(u32),
}

/// What one step does to one bucket.
#[derive(Clone, Debug)]
struct Part {
    cost: u32,
    binding: bool,
    quota: (u32, u32),
}

fn part(unit: u32) -> impl Strategy<Value = Part> {
    (1..6_u32, prop::bool::weighted(0.7), (1..200_u32, 1..6_u32)).prop_map(
        move |(cost, binding, (interval, burst))| Part {
            cost: cost.min(burst),
            binding,
            quota: (interval * unit, burst),
        },
    )
}

/// All times are multiples of the unit, in nanoseconds.
fn step(unit: u32) -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let parts = || prop::collection::vec(part(unit), 1..=ENDPOINTS.len());
    prop_oneof![
        8 => parts().prop_map(Step::Charge),
        1 => parts().prop_map(Step::Refund),
        1 => parts().prop_map(Step::Settle),
        1 => index().prop_map(Step::Reset),
        1 => (index(), 0..500_u32).prop_map(move |(which, time)| Step::Block(which, time * unit)),
        6 => (0..300_u32).prop_map(move |time| Step::Wait(time * unit)),
    ]
}

/// With times far below a second, and of about a second.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![Just(1), Just(5_000_000)]
        .prop_flat_map(|unit| prop::collection::vec(step(unit), 1..60))
}

fn entries(parts: &[Part]) -> Vec<Entry> {
    let entry = |(part, endpoint): (&Part, Endpoint)| {
        let (interval, burst) = part.quota;
        let burst = NonZeroU32::new(burst).expect("at least 1");
        let period = std::time::Duration::from_nanos(interval.into());
        let quota = Quota::per(1, period).burst(burst.get()).build().expect("the quota is valid");
        let entry = Entry::new(endpoint, quota).with_cost(part.cost).expect("at most the burst");
        if part.binding { entry } else { entry.shadow() }
    };
    parts.iter().zip(ENDPOINTS).map(entry).collect()
}

fn refill(part: &Part) -> i128 {
    i128::from(part.quota.0) * i128::from(part.quota.1)
}

fn time(part: &Part) -> i128 {
    i128::from(part.quota.0) * i128::from(part.cost)
}

/// Charges all of them or none.
fn charge(buckets: &mut [Bucket], parts: &[Part]) -> ChargeOutcome {
    let hold = |buckets: &[Bucket], binding| {
        let mut all = parts.iter().zip(buckets).filter(|(part, _)| part.binding == binding);
        all.all(|(part, bucket)| bucket.has(time(part)))
    };
    let any_shadow = parts.iter().any(|part| !part.binding);
    if !hold(buckets, true) {
        return ChargeOutcome::Refused;
    }
    let shadow_too = any_shadow && hold(buckets, false);
    for (part, bucket) in parts.iter().zip(buckets) {
        if part.binding || shadow_too {
            bucket.holds -= time(part);
        }
    }
    if shadow_too { ChargeOutcome::AdmittedWithShadow } else { ChargeOutcome::Admitted }
}

fn assert_same(bucket: &Bucket, state: &BucketState) -> Result<(), TestCaseError> {
    prop_assert_eq!(i128::from(state.debt), bucket.most - bucket.holds);
    prop_assert_eq!(i128::from(state.blocked), bucket.blocked);
    prop_assert!(state.overdraft == 0 || i128::from(state.overdraft) == bucket.overdrawn);
    Ok(())
}

proptest! {
    #[test]
    fn a_charge_is_decided_as_by_buckets_that_count_up(
        steps in steps(), is_estimate: bool,
    ) {
        let principal = Principal::user("u").expect("not empty");
        let full = BucketState { is_estimate, ..BucketState::default() };
        let slack = if is_estimate { 1_000_000_000 } else { 0 };
        let mut states = [full; ENDPOINTS.len()];
        let mut buckets = [Bucket::FULL; ENDPOINTS.len()];
        for step in steps {
            match step {
                Step::Charge(parts) => {
                    let entries = entries(&parts);
                    let charge_of = Charge::new(&principal, &entries).expect("four buckets");
                    let n = parts.len();
                    for (part, bucket) in parts.iter().zip(&mut buckets) {
                        bucket.measure(refill(part), slack);
                    }
                    let before = buckets;
                    let peeked = charge_of.peek(&mut states[..n].to_vec());
                    let decisions = charge_of.apply(&mut states[..n]);
                    let outcome = charge(&mut buckets[..n], &parts);
                    prop_assert_eq!(decisions.outcome(), outcome);
                    prop_assert_eq!(peeked.outcome(), outcome);
                    for (index, decision) in decisions.as_slice().iter().enumerate() {
                        let (part, bucket) = (&parts[index], &buckets[index]);
                        assert_same(bucket, &states[index])?;
                        let allows = before[index].has(time(part));
                        prop_assert_eq!(decision.is_allowed(), allows);
                        prop_assert_eq!(peeked.as_slice()[index].is_allowed(), allows);
                        let left = bucket.holds.max(0) / i128::from(part.quota.0);
                        let left = if bucket.blocked > 0 { 0 } else { left };
                        prop_assert_eq!(i128::from(decision.remaining()), left);
                        // The wait suffices, and none that is shorter does.
                        if let Some(wait) = decision.retry_after() {
                            let wait = i128::try_from(wait.as_nanos()).expect("small");
                            let mut later = *bucket;
                            later.wait(wait - 1);
                            prop_assert!(!later.has(time(part)));
                            later.wait(1);
                            prop_assert!(later.has(time(part)));
                        }
                    }
                }
                Step::Refund(parts) => {
                    let entries = entries(&parts);
                    let charge = Charge::new(&principal, &entries).expect("four buckets");
                    charge.refund(&mut states[..parts.len()]);
                    for (part, bucket) in parts.iter().zip(&mut buckets) {
                        bucket.measure(refill(part), slack);
                        bucket.holds = (bucket.holds + time(part)).min(bucket.most);
                        bucket.overdrawn = (bucket.overdrawn - time(part)).max(0);
                    }
                }
                Step::Settle(parts) => {
                    let entries = entries(&parts);
                    let charge = Charge::new(&principal, &entries).expect("four buckets");
                    charge.settle(&mut states[..parts.len()]);
                    for (part, bucket) in parts.iter().zip(&mut buckets) {
                        bucket.measure(refill(part), slack);
                        let least = bucket.holds.min(-bucket.most);
                        bucket.holds = (bucket.holds - time(part)).max(least);
                        bucket.overdrawn = bucket.overdrawn.max(-bucket.holds);
                    }
                }
                Step::Reset(which) => {
                    let index = which.index(ENDPOINTS.len());
                    states[index] = full;
                    buckets[index] = Bucket::FULL;
                }
                Step::Block(which, period) => {
                    let index = which.index(ENDPOINTS.len());
                    states[index].blocked = period.into();
                    buckets[index].blocked = period.into();
                }
                Step::Wait(nanos) => {
                    for (state, bucket) in states.iter_mut().zip(&mut buckets) {
                        let nanos_u64 = u64::from(nanos);
                        state.debt = state.debt.saturating_sub(nanos_u64);
                        state.overdraft = state.overdraft.saturating_sub(nanos_u64);
                        state.blocked = state.blocked.saturating_sub(nanos_u64);
                        bucket.wait(nanos.into());
                    }
                }
            }
        }
    }
}

#[test]
fn a_charge_that_can_not_be_is_an_error() {
    let principal = Principal::user("u").expect("not empty");
    let quota = Quota::per_minute(500).burst(50).build().expect("the quota is valid");
    let entry = Entry::new(Endpoint::CALL, quota);
    let many: Vec<_> = (0..17)
        .map(|number| Endpoint::new(&format!("charge-{number}")).expect("a valid name"))
        .map(|endpoint| Entry::new(endpoint, quota))
        .collect();
    let error = |entries: &[Entry]| {
        Charge::new(&principal, entries).map(|_| ()).expect_err("no such charge")
    };

    assert_eq!(error(&[]), ChargeError::Entries { count: 0 });
    let in_flight = Entry::new(Endpoint::AGENT, Quota::concurrent(5).build().expect("valid"));
    let concurrent = ChargeError::Concurrent { limit: Endpoint::AGENT.into() };
    assert_eq!(error(&[in_flight]), concurrent);
    assert_eq!(error(&[entry, in_flight]), concurrent);
    assert!(concurrent.to_string().starts_with("limit agent is of requests in flight, which"));
    assert_eq!(error(&many), ChargeError::Entries { count: 17 });
    assert!(Charge::new(&principal, &many[..16]).is_ok());
    assert_eq!(
        error(&[entry, many[0], entry.shadow()]),
        ChargeError::SameBucket { limit: Endpoint::CALL.into() }
    );
    for cost in [0, 51] {
        let error = entry.with_cost(cost).expect_err("no such cost");
        assert_eq!(error, ChargeError::Cost { limit: Endpoint::CALL.into(), cost, burst: 50 });
    }
    assert_eq!(entry.with_cost(50).map(|entry| entry.cost()), Ok(50));
    assert_eq!(
        entry.with_cost(51).expect_err("no such cost").to_string(),
        "a cost of 51 for limit call: it must be from 1 to the burst, 50, since the bucket \
         never holds more units",
    );
}
