//! The cap: what happens when no more buckets may be tracked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::clock::ManualClock;
use bolna_rate_limit::store::{Bucket, CapEvent, MemoryStore, Store};
use bolna_rate_limit::{Endpoint, Limiter, Policy, Principal, Quota};

use crate::support::{DecideNow, organization};

type Capped = Limiter<MemoryStore<ManualClock>>;

/// A limiter that tracks at most `max_buckets` buckets, and the events of its cap.
fn capped_limiter(max_buckets: usize) -> (Capped, ManualClock, Arc<Mutex<Vec<CapEvent>>>) {
    let clock = ManualClock::default();
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let told = Arc::clone(&told);
        move |event| told.lock().unwrap().push(event)
    };
    let store = MemoryStore::with_clock(clock.clone()).max_buckets(max_buckets).on_cap(listener);
    (Limiter::with_store(Policy::default(), store), clock, told)
}

fn admitted(limiter: &Capped, caller: &Principal, calls: usize) -> usize {
    (0..calls).filter(|_| limiter.decide_now(caller, "/call").unwrap().is_allowed()).count()
}

fn callers(name: &str, number: usize) -> Vec<Principal> {
    (0..number).map(|number| organization(&format!("{name}-{number}"))).collect()
}

#[test]
fn whoever_owes_keeps_his_bucket() {
    let (limiter, clock, _) = capped_limiter(1000);
    let old = callers("old", 1000);
    for caller in &old {
        assert_eq!(admitted(&limiter, caller, 501), 500);
    }
    for caller in callers("new", 10_000) {
        let _ = limiter.decide_now(&caller, "/call");
    }
    assert_eq!(limiter.store().len(), 1000);
    clock.advance(Duration::from_nanos(59_999_999_999));
    for caller in &old {
        assert_eq!(admitted(&limiter, caller, 501), 499, "all but 1 ns of one unit has come back");
    }
}

#[test]
fn a_new_caller_is_limited_together_with_others() {
    let (limiter, clock, _) = capped_limiter(1000);
    for caller in callers("old", 1000) {
        admitted(&limiter, &caller, 500);
    }
    let new = callers("new", 1000);
    let mut burst: Vec<_> = new.iter().map(|caller| admitted(&limiter, caller, 600)).collect();
    assert!(burst.iter().all(|admitted| *admitted <= 500), "a caller got more than the quota");
    burst.retain(|admitted| *admitted > 0);
    assert!(burst.len() <= 16, "{} buckets were shared", burst.len());
    assert_eq!(burst.iter().sum::<usize>(), burst.len() * 500);

    // From then on they share the units that come back: 500 a minute for each of these buckets, to
    // any caller.
    clock.advance(Duration::from_millis(1200));
    let refill: usize = new.iter().map(|caller| admitted(&limiter, caller, 600)).sum();
    assert_eq!(refill, burst.len() * 10);
}

#[test]
fn callers_of_different_plans_do_not_share() {
    let (limiter, clock, _) = capped_limiter(1);
    let daily = Quota::per(1, Duration::from_secs(86_400)).build().unwrap();
    let fast = Quota::per_minute(500).build().unwrap();
    let check = |id: &str, quota| {
        let principal = organization(id);
        let bucket = Bucket::new(&principal, Endpoint::CALL, quota);
        limiter.store().check(bucket).now().unwrap().unwrap().is_allowed()
    };
    assert!(check("old", Quota::per(1, Duration::from_secs(1_000_000)).build().unwrap()));
    // Enough callers that each of the 16 shared buckets of either plan is in use.
    let mut admitted = [0; 2];
    for _ in 0..20 {
        for caller in 0..100 {
            clock.advance(Duration::from_secs(1));
            admitted[0] += u32::from(check(&format!("trial-{caller}"), daily));
            admitted[1] += u32::from(check(&format!("paying-{caller}"), fast));
        }
    }
    assert!(admitted[0] <= 16, "{} of those who have one a day", admitted[0]);
    assert_eq!(admitted[1], 2000);
}

#[test]
fn a_new_caller_has_his_own_bucket_as_soon_as_there_is_room() {
    let (limiter, clock, _) = capped_limiter(1000);
    for caller in callers("old", 1000) {
        admitted(&limiter, &caller, 1);
    }
    let (one, other) = (organization("one"), organization("other"));
    admitted(&limiter, &one, 500);
    clock.advance(Duration::from_secs(60));
    assert_eq!(admitted(&limiter, &other, 600), 500);
    assert_eq!(admitted(&limiter, &one, 600), 500);
    assert!(limiter.store().len() <= 1000);
}

#[test]
fn the_operator_is_told_when_it_changes_and_not_more() {
    let (limiter, clock, told) = capped_limiter(100);
    for round in 0..3 {
        for caller in callers(&format!("round-{round}"), 100) {
            admitted(&limiter, &caller, 1);
        }
        assert_eq!(told.lock().unwrap().len(), round * 2, "the cap is reached by the next");
        for caller in callers("one-too-many", 500) {
            admitted(&limiter, &caller, 1);
        }
        assert_eq!(told.lock().unwrap().last(), Some(&CapEvent::Reached { max_buckets: 100 }));
        assert_eq!(told.lock().unwrap().len(), round * 2 + 1);
        clock.advance(Duration::from_secs(120));
        limiter.store().shrink();
        assert_eq!(told.lock().unwrap().last(), Some(&CapEvent::Relieved { buckets: 0 }));
    }
}

#[test]
fn requests_find_out_by_themselves_that_there_is_room_again() {
    let (limiter, clock, told) = capped_limiter(100);
    for caller in callers("caller", 101) {
        admitted(&limiter, &caller, 1);
    }
    // One of the old callers goes on, with five requests a second.
    let old = organization("caller-0");
    for _ in 0..600 {
        clock.advance(Duration::from_millis(200));
        assert_eq!(admitted(&limiter, &old, 1), 1);
    }
    assert_eq!(told.lock().unwrap().len(), 2);
    assert!(matches!(told.lock().unwrap()[1], CapEvent::Relieved { buckets: ..=90 }));
    assert!(limiter.store().len() <= 2);
}

#[tokio::test]
async fn a_look_at_a_caller_without_a_bucket_shows_what_he_would_share() {
    let (limiter, _clock, _) = capped_limiter(1);
    admitted(&limiter, &organization("old"), 1);
    let new = organization("new");
    let peek = async || limiter.peek(&new, Endpoint::CALL).await.unwrap().unwrap();
    assert_eq!(peek().await.remaining(), 500);
    admitted(&limiter, &new, 200);
    assert_eq!(peek().await.remaining(), 300);
    limiter.reset(&new, Endpoint::CALL).await.unwrap();
    assert_eq!(peek().await.remaining(), 300, "a shared bucket was reset");
}

#[test]
fn a_cap_of_nothing_is_a_cap_of_one() {
    let (limiter, _clock, _) = capped_limiter(0);
    let caller = organization("o");
    assert_eq!(admitted(&limiter, &caller, 600), 500);
    assert_eq!(limiter.store().len(), 1);
}
