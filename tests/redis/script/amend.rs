//! Refunds and blocks by hand: what the script writes, how exactly and for how long.

use std::cell::RefCell;
use std::time::Duration;

use bolna_rate_limit::clock::ManualClock;
use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::{Endpoint, Principal, Quota};
use proptest::prelude::*;
use tokio_test::block_on;

use super::laws::{any_burst, any_interval, any_pause, for_any, micros, pause};
use super::{Amend, Bench, DAY, Reply, Take};
use crate::bucket::{Bucket, OneBucket};

const INTERVAL: u64 = 1_000_000;
const BURST: u32 = 10;
const TOLERANCE: u64 = 10_000_000;
const HOUR: u64 = 3_600_000_000;

/// A bucket that was drained at the start.
fn drained(bench: &mut Bench) -> (String, Take) {
    let (key, take) = (bench.fresh(), Take::one(INTERVAL, BURST, bench.start));
    assert_eq!(bench.take(&key, take.units(99)).granted, 10);
    (key, take)
}

fn expiry(bench: &mut Bench, key: &str) -> u64 {
    bench.ask(&["PEXPIRETIME", key])
}

#[test]
fn a_grant_is_exact_and_never_past_full() {
    let mut bench = Bench::new();
    let now = bench.start;
    let (key, take) = drained(&mut bench);
    assert_eq!(bench.amend(&key, Amend::refund(3 * INTERVAL, TOLERANCE, now)), 1);
    assert_eq!(bench.stored(&key).unwrap(), (now + TOLERANCE - 3 * INTERVAL).to_string());
    assert_eq!(expiry(&mut bench, &key), (now + TOLERANCE - 3 * INTERVAL) / 1000 + 1);
    assert_eq!(bench.take(&key, take.units(99)), Reply { granted: 3, used: TOLERANCE, now });
    // Exact to the microsecond, and a full bucket needs no key.
    let later = now + 1;
    bench.amend(&key, Amend::refund(TOLERANCE - 2, TOLERANCE, later));
    assert_eq!(bench.stored(&key).unwrap(), (later + 1).to_string());
    bench.amend(&key, Amend::refund(1, TOLERANCE, later));
    assert_eq!(bench.stored(&key), None);
    bench.amend(&key, Amend::refund(TOLERANCE, TOLERANCE, later));
    assert_eq!(bench.stored(&key), None);
    assert_eq!(bench.take(&key, take.units(99).at(later)).granted, 10);
}

#[test]
fn a_grant_counts_from_a_drained_bucket_at_most() {
    let mut bench = Bench::new();
    let now = bench.start;
    let take = Take::one(INTERVAL, BURST, now);
    let (beyond, long) = ((now + TOLERANCE + 1).to_string(), "9".repeat(400));
    for value in [&*beyond, "9007199254740993", &long, "", "nonsense", "-7", "7!", "!7", "7!7!7"] {
        let key = bench.fresh();
        bench.ask::<()>(&["SET", &key, value]);
        assert_eq!(bench.amend(&key, Amend::refund(3 * INTERVAL, TOLERANCE, now)), 1);
        assert_eq!(
            bench.take(&key, take.units(99)),
            Reply { granted: 3, used: TOLERANCE, now },
            "{value:?}"
        );
    }
}

#[test]
fn a_blocked_bucket_grants_nothing_and_writes_nothing() {
    let mut bench = Bench::new();
    let now = bench.start;
    let (key, take) = drained(&mut bench);
    assert_eq!(bench.amend(&key, Amend::block(HOUR, now)), 1);
    let value = format!("{}!{}", now + TOLERANCE, now + HOUR);
    assert_eq!(bench.stored(&key).unwrap(), value);
    assert_eq!(expiry(&mut bench, &key), (now + HOUR) / 1000 + 1);
    // A write would set another expiry.
    bench.ask::<()>(&["PEXPIREAT", &key, "4000000000000"]);
    for units in [0, 1, 99] {
        let reply = bench.take(&key, take.units(units).at(now + 1));
        assert_eq!(reply, Reply { granted: -2, used: HOUR - 1, now: now + 1 });
        assert_eq!(bench.take(&key, take.units(units).at(now + HOUR - 1)).used, 1);
    }
    assert_eq!(bench.take(&key, take.at(now + 2).by(now + 1)).granted, -1);
    assert_eq!((bench.stored(&key).unwrap(), expiry(&mut bench, &key)), (value, 4_000_000_000_000));
    // The bucket has refilled in the meantime.
    let after = now + HOUR;
    assert_eq!(
        bench.take(&key, take.units(99).at(after)),
        Reply { granted: 10, used: TOLERANCE, now: after }
    );
    assert_eq!(bench.stored(&key).unwrap(), (after + TOLERANCE).to_string());
}

#[test]
fn the_wait_is_the_buckets_own_if_that_is_longer() {
    let mut bench = Bench::new();
    let now = bench.start;
    let (key, take) = drained(&mut bench);
    bench.amend(&key, Amend::block(1, now));
    assert_eq!(expiry(&mut bench, &key), (now + TOLERANCE) / 1000 + 1);
    assert_eq!(bench.take(&key, take), Reply { granted: -2, used: INTERVAL, now });
    let now = now + 1;
    assert_eq!(bench.take(&key, take.at(now)), Reply { granted: 0, used: TOLERANCE - 1, now });
}

#[test]
fn a_block_is_replaced_and_lifted() {
    let mut bench = Bench::new();
    let now = bench.start;
    let (key, take) = drained(&mut bench);
    let tat = now + TOLERANCE;
    for period in [HOUR, 7, DAY] {
        bench.amend(&key, Amend::block(period, now));
        assert_eq!(bench.stored(&key).unwrap(), format!("{tat}!{}", now + period));
    }
    bench.amend(&key, Amend::refund(3 * INTERVAL, TOLERANCE, now));
    assert_eq!(bench.stored(&key).unwrap(), format!("{}!{}", tat - 3 * INTERVAL, now + DAY));
    bench.amend(&key, Amend::refund(TOLERANCE, TOLERANCE, now));
    assert_eq!(bench.stored(&key).unwrap(), format!("{now}!{}", now + DAY));
    bench.amend(&key, Amend::block(0, now));
    assert_eq!(bench.stored(&key), None);
    bench.take(&key, take.units(4));
    bench.amend(&key, Amend::block(0, now));
    bench.amend(&key, Amend::block(HOUR, now));
    bench.amend(&key, Amend::block(0, now));
    assert_eq!(bench.stored(&key).unwrap(), (now + 4 * INTERVAL).to_string());
    assert_eq!(expiry(&mut bench, &key), (now + 4 * INTERVAL) / 1000 + 1);
    // A block that is over is removed by the next change.
    bench.amend(&key, Amend::block(7, now));
    bench.amend(&key, Amend::refund(INTERVAL, TOLERANCE, now + 7));
    assert_eq!(bench.stored(&key).unwrap(), (now + 3 * INTERVAL).to_string());
}

#[test]
fn nothing_is_changed_past_the_deadline() {
    let mut bench = Bench::new();
    let now = bench.start;
    let (key, _) = drained(&mut bench);
    for amend in [Amend::refund(INTERVAL, TOLERANCE, now), Amend::block(HOUR, now)] {
        let before = bench.stored(&key);
        assert_eq!(bench.amend(&key, Amend { deadline: now - 1, ..amend }), 0);
        assert_eq!(bench.stored(&key), before);
        assert_eq!(bench.amend(&key, Amend { deadline: now, ..amend }), 1);
        assert_ne!(bench.stored(&key), before);
    }
}

#[test]
fn what_only_looks_like_a_block_is_a_drained_bucket() {
    let mut bench = Bench::new();
    let now = bench.start;
    let take = Take::one(INTERVAL, BURST, now);
    let long = format!("7!{}", "9".repeat(400));
    for value in [
        "7!",
        "!7",
        "!",
        "7!7!7",
        "-7!7",
        "7!-7",
        "7! 7",
        "7!nan",
        "7!0x10",
        "7!9007199254740992",
        &long,
    ] {
        let key = bench.fresh();
        bench.ask::<()>(&["SET", &key, value]);
        assert_eq!(bench.take(&key, take), Reply { granted: 0, used: TOLERANCE, now }, "{value:?}");
        assert_eq!(bench.stored(&key).unwrap(), (now + TOLERANCE).to_string(), "{value:?}");
    }
    // With the times of another clock, the bucket is blocked, and afterwards just drained.
    let (key, till) = (bench.fresh(), now + HOUR);
    bench.ask::<()>(&["SET", &key, &format!("{}!{till}", "9".repeat(400))]);
    assert_eq!(bench.take(&key, take), Reply { granted: -2, used: HOUR, now });
    assert_eq!(bench.take(&key, take.at(till)), Reply { granted: 0, used: TOLERANCE, now: till });
    assert_eq!(bench.take(&key, take.at(till + INTERVAL)).granted, 1);
}

#[test]
fn what_is_not_a_time_can_be_blocked_and_is_drained_afterwards() {
    let mut bench = Bench::new();
    let now = bench.start;
    let take = Take::one(INTERVAL, BURST, now);
    for value in ["nonsense", "inf", "7!", &"9".repeat(400)] {
        let key = bench.fresh();
        bench.ask::<()>(&["SET", &key, value]);
        bench.amend(&key, Amend::block(HOUR, now));
        assert_eq!(bench.take(&key, take), Reply { granted: -2, used: HOUR, now }, "{value:?}");
        let after = now + HOUR;
        assert_eq!(
            bench.take(&key, take.at(after)),
            Reply { granted: 0, used: TOLERANCE, now: after },
            "{value:?}"
        );
        bench.amend(&key, Amend::block(HOUR, after));
        bench.amend(&key, Amend::block(0, after));
        assert_eq!(
            bench.take(&key, take.at(after)),
            Reply { granted: 0, used: TOLERANCE, now: after },
            "{value:?}"
        );
    }
}

#[test]
fn a_key_of_another_kind_is_left_alone() {
    let mut bench = Bench::new();
    let key = bench.fresh();
    bench.ask::<()>(&["RPUSH", &key, "another's"]);
    for amend in [Amend::refund(1, TOLERANCE, bench.start), Amend::block(HOUR, bench.start)] {
        let error = bench.try_amend(&key, amend).unwrap_err();
        assert!(error.to_string().contains("WRONGTYPE"), "{error}");
    }
    assert_eq!(bench.ask::<Vec<String>>(&["LRANGE", &key, "0", "-1"]), ["another's"]);
}

#[test]
fn times_are_exact_for_a_hundred_years() {
    let mut bench = Bench::new();
    let century = 36_525 * DAY;
    let now = bench.start + 1;
    let (key, take) = (bench.fresh(), Take::one(century / 7 - 1, 7, now));
    assert_eq!(bench.take(&key, take.units(99)).granted, 7);
    bench.amend(&key, Amend::refund(take.interval * 2 - 1, take.tolerance, now));
    bench.amend(&key, Amend::block(century, now));
    let tat = now + take.tolerance - take.interval * 2 + 1;
    assert_eq!(bench.stored(&key).unwrap(), format!("{tat}!{}", now + century));
    assert_eq!(bench.take(&key, take), Reply { granted: -2, used: century, now });
    let last = now + century - 1;
    assert_eq!(bench.take(&key, take.at(last)), Reply { granted: -2, used: 1, now: last });
    assert_eq!(bench.take(&key, take.at(last + 1).units(99)).granted, 7);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take,
    Look,
    Grant(u32),
    /// In thousandths of an interval.
    Block(u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Take),
        2 => Just(Step::Look),
        2 => (0..30_u32).prop_map(Step::Grant),
        1 => (0..5000_u32).prop_map(Step::Block),
        1 => Just(Step::Block(0)),
    ]
}

#[test]
fn it_decides_and_tells_as_the_store_in_this_process_does() {
    let bench = RefCell::new(Bench::new());
    let steps = prop::collection::vec((any_pause(), any_step()), 1..60);
    for_any(200, &(any_interval(), any_burst(), steps), |(interval, burst, steps)| {
        let mut bench = bench.borrow_mut();
        let key = bench.fresh();
        let quota = Quota::per(1, Duration::from_micros(interval)).burst(burst).build().unwrap();
        let clock = ManualClock::default();
        let store = MemoryStore::with_clock(clock.clone());
        let principal = Principal::user("u").unwrap();
        let bucket = Bucket::new(&principal, Endpoint::CALL, quota);
        let take = Take::one(interval, burst, bench.start);
        let mut now = bench.start;
        for (step_pause, step) in steps {
            now += pause(interval, step_pause);
            clock.set(Duration::from_micros(now));
            let (decision, reply) = match step {
                Step::Take => (block_on(store.check_one(bucket)), bench.take(&key, take.at(now))),
                Step::Look => {
                    (block_on(store.peek(bucket)), bench.take(&key, take.units(0).at(now)))
                }
                Step::Grant(units) => {
                    let time = (interval * u64::from(units)).min(take.tolerance);
                    assert_eq!(bench.amend(&key, Amend::refund(time, take.tolerance, now)), 1);
                    // More than the burst has no further effect.
                    if units > 0 {
                        block_on(store.refund(bucket, units.min(burst))).unwrap();
                    }
                    continue;
                }
                Step::Block(thousandths) => {
                    let period = interval * u64::from(thousandths) / 1000;
                    assert_eq!(bench.amend(&key, Amend::block(period, now)), 1);
                    block_on(store.block(
                        &principal,
                        Endpoint::CALL,
                        Duration::from_micros(period),
                    ))
                    .unwrap();
                    continue;
                }
            };
            let decision = decision.unwrap();
            assert_eq!(decision.is_blocked(), reply.granted == -2, "{step:?}");
            if decision.is_blocked() {
                assert_eq!(decision.retry_after().map(micros), Some(reply.used));
            } else {
                assert_eq!(micros(decision.reset()), reply.used);
                assert_eq!(u64::from(decision.remaining()), take.remaining(reply));
                let could =
                    u64::from(matches!(step, Step::Look)) * u64::from(decision.is_allowed());
                assert_eq!(decision.is_allowed(), reply.granted == 1 || could == 1);
            }
        }
    });
}
