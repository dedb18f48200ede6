//! Ten million callers through a store of a hundred thousand buckets. Alone in its process.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::time::Duration;

use allocation_counter::measure;
use bolna_rate_limit::store::{Charge, Entry, MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Endpoint, Principal, Quota};
use memory_stats::memory_stats;

const CALLERS: u32 = 10_000_000;
const CAP: usize = 100_000;

#[test]
fn ten_million_callers_fit_in_a_hundred_thousand_buckets() {
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(clock.clone()).max_buckets(CAP);
    let charge = |id: &str, quota| {
        let principal = Principal::organization(id).unwrap();
        let entry = Entry::new(Endpoint::CALL, quota);
        let check = store.check(Charge::of_one(&principal, &entry));
        check.now().unwrap().unwrap().first().is_allowed()
    };
    // A caller who has spent a quota that takes a day to come back.
    let daily = Quota::per(1, Duration::from_secs(86_400)).build().unwrap();
    assert!(charge("old", daily));

    let quota = Quota::per_minute(500).build().unwrap();
    let mut admitted = 0_u32;
    let mut held = 0;
    let mut level = None;
    for million in 1..=CALLERS / 1_000_000 {
        let used = measure(|| {
            for caller in 0..1_000_000 {
                // A million callers a second. At any time, 120,000 of their buckets are not full:
                // more than the cap.
                clock.advance(Duration::from_micros(1));
                admitted += u32::from(charge(
                    &format!("{million:02}{caller:06}-4d95-a3a5-242cfe45621d"),
                    quota,
                ));
            }
        });
        held += used.bytes_current;
        let resident = memory_stats().expect("the operating system tells").physical_mem;
        println!(
            "{million} million: {} buckets, {held} bytes allocated, {resident} resident",
            store.len()
        );
        assert!(store.len() <= CAP);
        assert!(held <= 64 * CAP as i64, "{held} bytes are allocated");
        // By chance, a shard has one size or the next. In sum this is a few hundred kilobytes.
        let level = *level.get_or_insert(resident);
        assert!(
            resident <= level * 12 / 10,
            "{resident} bytes are resident, after the first million {level}"
        );
    }
    assert!(!charge("old", daily), "a bucket that is not full was dropped");
    assert!(admitted < CALLERS, "some callers shared a bucket, and should have been limited");
    assert!(
        admitted > CALLERS / 10 * 8,
        "{admitted} were admitted: 100,000 buckets serve 833,333 callers a second"
    );
}
