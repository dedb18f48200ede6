//! Snapshots and the cap.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::store::{MemoryStore, Store, StoreEvent, StoreListener};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Limiter, Policy};

use super::{Stopped, admitted, member, snapshot, wall};
use crate::support::stopped_limiter;

fn capped(max_buckets: usize) -> (MemoryStore<ManualClock>, ManualClock) {
    let clock = ManualClock::new();
    (MemoryStore::with_clock(clock.clone()).max_buckets(max_buckets), clock)
}

fn limiter(store: MemoryStore<ManualClock>) -> Stopped {
    Limiter::with_store(Policy::default(), store).unwrap()
}

#[test]
fn more_buckets_than_the_cap_are_all_restored_and_new_callers_share() {
    let (before, _) = stopped_limiter(Policy::default());
    let old = |number: usize| member("u", &format!("old-{number}"));
    for number in 0..300 {
        assert_eq!(admitted(&before, &old(number)), 500);
    }
    let (mut store, clock) = capped(100);
    let told = Arc::new(Mutex::new(Vec::new()));
    store.subscribe({
        let told = Arc::clone(&told);
        StoreListener::new(move |event| told.lock().unwrap().push(event.clone()))
    });
    store.restore_at(&snapshot(&before), wall()).unwrap();
    let limiter = limiter(store);
    assert_eq!(limiter.store().len(), 300);
    assert!((0..300).all(|number| admitted(&limiter, &old(number)) == 0), "no bucket is lost");

    let new: usize =
        (0..10).map(|number| admitted(&limiter, &member("u", &format!("new-{number}")))).sum();
    assert_eq!(new, 500, "the burst of one bucket");
    let reached = [StoreEvent::CapReached { max_buckets: 100 }];
    assert_eq!(*told.lock().unwrap(), reached);
    clock.advance(Duration::from_secs(60));
    limiter.store().shrink();
    assert_eq!(limiter.store().len(), 0);
    assert_eq!(told.lock().unwrap().len(), 2, "a tenth of the cap is free again");
    assert_eq!(admitted(&limiter, &member("u", "new-1")), 500);
    assert_eq!(limiter.store().len(), 1);
}

#[test]
fn callers_who_shared_a_bucket_go_on_to_share_it() {
    let (store, _) = capped(10);
    let before = limiter(store);
    let old = |number: usize| member("u", &format!("old-{number}"));
    for number in 0..10 {
        assert_eq!(admitted(&before, &old(number)), 500);
    }
    assert_eq!(admitted(&before, &member("u", "new-1")), 500);
    let (mut store, clock) = capped(10);
    store.restore_at(&snapshot(&before), wall() + Duration::from_millis(240)).unwrap();
    let after = limiter(store);
    let new = |number: usize| member("u", &format!("new-{number}"));
    assert_eq!(admitted(&after, &new(2)), 2, "the units of 240 ms");
    assert_eq!(admitted(&after, &new(1)), 0);
    clock.advance(Duration::from_millis(120));
    assert_eq!(admitted(&after, &new(1)), 1);
    // Callers of another limit share another bucket.
    assert!(after.check_now(&new(1), "/other").unwrap().is_admitted());
}

#[test]
fn a_cap_of_another_size_places_buckets_anew() {
    let (before, _) = stopped_limiter(Policy::default());
    let old = |number: usize| member("u", &format!("old-{number}"));
    for number in 0..50 {
        assert_eq!(admitted(&before, &old(number)), 500);
    }
    for max_buckets in [1, 60, 10_000] {
        let (mut store, _) = capped(max_buckets);
        store.restore_at(&snapshot(&before), wall()).unwrap();
        let after = limiter(store);
        assert!((0..50).all(|number| admitted(&after, &old(number)) == 0));
    }
}
