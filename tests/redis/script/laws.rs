//! What holds for any quota and any requests.

use std::cell::RefCell;
use std::time::Duration;

use bolna_rate_limit::clock::ManualClock;
use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::{Limiter, Policy, Principal, Quota};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Bench, Take};

/// A token bucket that counts microseconds of refill, while the script stores a time.
struct Model {
    token: u64,
    capacity: u64,
    fill: u64,
}

impl Model {
    fn take(&mut self, after: u64, wanted: u32) -> i64 {
        self.fill = self.capacity.min(self.fill + after);
        let granted = (0..wanted).take_while(|_| {
            let has = self.fill >= self.token;
            self.fill -= if has { self.token } else { 0 };
            has
        });
        i64::try_from(granted.count()).unwrap()
    }
}

/// A pause: thousandths of the interval, and a few microseconds more or less, to hit the edges.
pub(super) fn any_pause() -> impl Strategy<Value = (u32, i64)> {
    prop_oneof![
        4 => Just((0, 0)),
        2 => ((0..4_u32).prop_map(|units| units * 1000), -1..=1_i64),
        3 => (0..3000_u32, Just(0)),
        1 => (Just(100_000), Just(0)),
    ]
}

pub(super) fn pause(interval: u64, (thousandths, off_by): (u32, i64)) -> u64 {
    (interval * u64::from(thousandths) / 1000).saturating_add_signed(off_by)
}

pub(super) fn any_interval() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1), Just(120_000), 1..=1000_u64, 1..=60_000_000_u64, 1..=86_400_000_000_u64]
}

pub(super) fn any_burst() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 1..=20_u32, 1 => Just(500)]
}

pub(super) fn for_any<S: Strategy>(cases: u32, inputs: &S, test: impl Fn(S::Value)) {
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    runner.run(inputs, |input| (test(input), Ok(())).1).unwrap();
}

#[test]
fn grants_are_those_of_a_token_bucket() {
    let bench = RefCell::new(Bench::new());
    let steps = prop::collection::vec((any_pause(), 0..=20_u32), 1..60);
    for_any(200, &(any_interval(), any_burst(), steps), |(interval, burst, steps)| {
        let mut bench = bench.borrow_mut();
        let key = bench.fresh();
        let mut take = Take::one(interval, burst, bench.start);
        let pauses: Vec<_> = steps.iter().map(|(step, _)| pause(interval, *step)).collect();
        let replies = bench.take_all(pauses.iter().zip(&steps).map(|(pause, (_, wanted))| {
            take = take.at(take.now + pause).units(*wanted);
            (key.clone(), take)
        }));
        let mut model = Model { token: interval, capacity: take.tolerance, fill: take.tolerance };
        for (number, ((pause, (_, wanted)), reply)) in
            pauses.iter().zip(&steps).zip(&replies).enumerate()
        {
            let granted = model.take(*pause, *wanted);
            assert_eq!(
                (reply.granted, reply.used),
                (granted, model.capacity - model.fill),
                "request {number}"
            );
        }
    });
}

#[test]
fn a_batch_is_granted_what_as_many_single_requests_are() {
    let bench = RefCell::new(Bench::new());
    let steps = prop::collection::vec((any_pause(), 1..=20_u32), 1..30);
    for_any(100, &(any_interval(), any_burst(), steps), |(interval, burst, steps)| {
        let mut bench = bench.borrow_mut();
        let (batched, single) = (bench.fresh(), bench.fresh());
        let mut take = Take::one(interval, burst, bench.start);
        for (step, wanted) in steps {
            take = take.at(take.now + pause(interval, step));
            let batch = bench.take(&batched, take.units(wanted));
            let singles = bench.take_all((0..wanted).map(|_| (single.clone(), take)));
            assert_eq!(batch.granted, singles.iter().map(|reply| reply.granted).sum::<i64>());
            assert_eq!(batch.used, singles.last().unwrap().used);
            assert_eq!(bench.stored(&batched), bench.stored(&single));
        }
    });
}

/// Times are whole microseconds, and the interval is rounded up to whole microseconds.
#[test]
fn decisions_are_those_of_the_store_in_this_process() {
    let bench = RefCell::new(Bench::new());
    let limit = prop_oneof![1..=50_u32, Just(500), 1..=u32::MAX];
    let period =
        prop_oneof![Just(60_000_000_000), 1..=1_000_000_000_u64, 1..=86_400_000_000_000_u64];
    let pauses = prop::collection::vec(any_pause(), 1..60);
    for_any(200, &(limit, period, any_burst(), pauses), |(limit, period, burst, pauses)| {
        let mut bench = bench.borrow_mut();
        let key = bench.fresh();
        let asked = Quota::per(limit, Duration::from_nanos(period)).burst(burst).build().unwrap();
        let interval = u64::try_from(asked.emission_interval().as_nanos().div_ceil(1000)).unwrap();
        let whole = Quota::per(1, Duration::from_micros(interval)).burst(burst);
        let clock = ManualClock::default();
        let policy = Policy::builder().default_quota(whole).build().unwrap();
        let limiter = Limiter::with_store(policy, MemoryStore::with_clock(clock.clone()));
        let principal = Principal::user("u").unwrap();
        let first = Take::one(interval, burst, bench.start);
        let mut now = 0;
        let times: Vec<_> = pauses
            .into_iter()
            .map(|step| {
                now += pause(interval, step);
                now
            })
            .collect();
        let replies =
            bench.take_all(times.iter().map(|now| (key.clone(), first.at(first.now + now))));
        for (now, reply) in times.into_iter().zip(replies) {
            clock.set(Duration::from_micros(now));
            let decision =
                *limiter.check_now(&principal.clone().into(), "/").unwrap().decision().unwrap();
            let wait = (reply.granted == 0).then(|| first.next_unit(reply));
            assert_eq!(decision.is_allowed(), reply.granted == 1);
            assert_eq!(u64::from(decision.remaining()), first.remaining(reply));
            assert_eq!(decision.retry_after().map(micros), wait);
            assert_eq!(micros(decision.next_unit()), first.next_unit(reply));
            assert_eq!(micros(decision.reset()), reply.used);
        }
    });
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}
