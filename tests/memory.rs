//! The memory that a million buckets take, as counted by the allocator and by the operating system.
//! Alone in its process.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::time::Duration;

use allocation_counter::measure;
use bolna_rate_limit::store::{Charge, Entry, MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Endpoint, Principal, Quota};
use memory_stats::memory_stats;

const BUCKETS: u32 = 1_000_000;
const MOST_PER_BUCKET: usize = 64;

fn resident() -> usize {
    memory_stats().expect("the operating system tells").physical_mem
}

#[test]
fn a_bucket_takes_at_most_64_bytes_and_gives_them_back() {
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(clock.clone());
    let quota = Quota::per_minute(500).build().unwrap();
    let charge = |number: u32| {
        let id = format!("{number:08x}-e320-4d95-a3a5-242cfe45621d");
        let principal = Principal::organization(id).unwrap();
        let entry = Entry::new(Endpoint::CALL, quota);
        let check = store.check(Charge::of_one(&principal, &entry));
        assert!(check.now().unwrap().unwrap().first().is_allowed());
    };

    let before = resident();
    let filled = measure(|| (0..BUCKETS).for_each(charge));
    let grown = resident() - before;
    assert_eq!(store.len(), BUCKETS as usize);
    let allocated = usize::try_from(filled.bytes_current).unwrap();
    println!(
        "{} bytes a bucket allocated, {} resident",
        allocated / store.len(),
        grown / store.len()
    );
    assert!(allocated <= MOST_PER_BUCKET * store.len(), "{allocated} bytes are allocated");
    assert!(grown <= MOST_PER_BUCKET * store.len(), "{grown} bytes are resident");

    // All buckets are full again. A hundred callers go on, and their requests, twenty a second,
    // drop the buckets of the others.
    let swept = measure(|| {
        for request in 0..65 * 20 {
            clock.advance(Duration::from_millis(50));
            charge(request % 100);
        }
    });
    assert!(store.len() <= 100, "{} buckets are left", store.len());
    let left = filled.bytes_current + swept.bytes_current;
    assert!(left < 1 << 20, "{left} bytes are left");

    // `shrink` drops them at once.
    let again = measure(|| (0..BUCKETS).for_each(charge));
    clock.advance(Duration::from_secs(60));
    let shrunk = measure(|| store.shrink());
    assert!(store.is_empty());
    let left = left + again.bytes_current + shrunk.bytes_current;
    assert!(left < 1 << 20, "{left} bytes are left");
}
