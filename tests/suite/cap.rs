//! The cap: what happens when no more buckets may be tracked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::store::{
    Charge, Command, Entry, MemoryStore, Reply, Store, StoreEvent, StoreListener,
};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Decision, Endpoint, Limiter, Policy, Principal, Quota};

use crate::bucket::{Bucket, OneBucket};
use crate::support::{DecideNow, now, organization, peeked, quiet};

type Capped = Limiter<MemoryStore<ManualClock>>;

/// A limiter that keeps at most `max_buckets` buckets and blocks, and the events of its cap.
fn capped_limiter(max_buckets: usize) -> (Capped, ManualClock, Arc<Mutex<Vec<StoreEvent>>>) {
    let clock = ManualClock::default();
    let told = Arc::new(Mutex::new(Vec::new()));
    let store = MemoryStore::with_clock(clock.clone()).max_buckets(max_buckets);
    store.subscribe({
        let told = Arc::clone(&told);
        StoreListener::new(move |event| told.lock().unwrap().push(event.clone()))
    });
    (quiet(Limiter::with_store(Policy::default(), store).unwrap()), clock, told)
}

fn admitted(limiter: &Capped, caller: &Principal, calls: usize) -> usize {
    (0..calls).filter(|_| limiter.decide_now(caller, "/call").unwrap().is_allowed()).count()
}

fn callers(name: &str, number: usize) -> Vec<Principal> {
    (0..number).map(|number| organization(&format!("{name}-{number}"))).collect()
}

#[test]
fn a_bucket_that_is_not_full_is_kept() {
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
fn new_callers_of_an_endpoint_are_limited_together() {
    let (limiter, clock, _) = capped_limiter(1000);
    for caller in callers("old", 1000) {
        admitted(&limiter, &caller, 500);
    }
    let new = callers("new", 1000);
    let shared = |calls| new.iter().map(|caller| admitted(&limiter, caller, calls)).sum::<usize>();
    assert_eq!(shared(2), 500, "the burst of one bucket");
    // From then on they share the units that come back: 500 a minute, to any caller.
    clock.advance(Duration::from_millis(1200));
    assert_eq!(shared(2), 10);
    // The callers of another endpoint share another bucket.
    let agent = |caller| limiter.decide_now(caller, "/v2/agent/1").unwrap().is_allowed();
    assert_eq!(new.iter().filter(|caller| agent(caller)).count(), 500);
    assert_eq!(limiter.store().report().shared, 5000);
}

#[test]
fn a_cap_holds_for_the_callers_of_all_plans_together() {
    let (limiter, _clock, _) = capped_limiter(16);
    let check = |caller: u32, quota| {
        let caller = organization(&caller.to_string());
        now(limiter.store().check_one(Bucket::new(&caller, Endpoint::CALL, quota))).unwrap()
    };
    // 3,000 plans with quotas of their own, 20 callers each. Only the first 16 callers have buckets.
    // The others share those of the first 1,024 quotas, and the one of all further quotas.
    let admitted = (0..60_000).filter(|caller| {
        let plan = 1000 + caller % 3000;
        check(*caller, Quota::per_hour(plan).burst(1).build().unwrap()).is_allowed()
    });
    assert_eq!(admitted.count(), 16 + 1024 + 1);
    let report = limiter.store().report();
    assert_eq!((report.buckets, report.max_buckets, report.shared), (16, Some(16), 60_000 - 16));
}

#[test]
fn callers_of_different_plans_do_not_share() {
    let (limiter, clock, _) = capped_limiter(1);
    let daily = Quota::per(1, Duration::from_secs(86_400)).build().unwrap();
    let fast = Quota::per_minute(500).build().unwrap();
    let check = |id: &str, quota| {
        let principal = organization(id);
        now(limiter.store().check_one(Bucket::new(&principal, Endpoint::CALL, quota))).unwrap()
    };
    let slowest = Quota::per(1, Duration::from_secs(1_000_000)).build().unwrap();
    assert!(check("old", slowest).is_allowed());
    // A caller who has one request a day does not shut the others out for a day, and the others do
    // not fill the bucket up for the callers who have one request a day.
    let mut admitted = [0; 2];
    for caller in 0..2000 {
        clock.advance(Duration::from_secs(1));
        admitted[0] += u32::from(check(&format!("trial-{caller}"), daily).is_allowed());
        admitted[1] += u32::from(check(&format!("paying-{caller}"), fast).is_allowed());
    }
    assert_eq!(admitted, [1, 2000]);
}

/// Beyond 1,024 quotas.
#[test]
fn a_bucket_that_callers_of_many_quotas_share_is_filled_up_for_none() {
    let (limiter, clock, _) = capped_limiter(1);
    let check = |id: u32, seconds| {
        let quota = Quota::per(1, Duration::from_secs(seconds)).build().unwrap();
        let caller = organization(&id.to_string());
        now(limiter.store().check_one(Bucket::new(&caller, Endpoint::CALL, quota))).unwrap()
    };
    assert!(check(0, 1_000_000).is_allowed());
    for other in 0..1024 {
        assert!(check(1, 1_000_000 + other).is_allowed());
    }
    assert!(check(2, 3600).is_allowed());
    // A quota of a second would cut the hour to a second for all who share the bucket.
    assert_eq!(check(3, 1).retry_after(), Some(Duration::from_secs(3600)));
    assert_eq!(check(4, 1800).retry_after(), Some(Duration::from_secs(3600)));
    clock.advance(Duration::from_secs(3600));
    assert!(check(3, 1).is_allowed());
}

#[test]
fn a_new_caller_has_a_bucket_of_its_own_as_soon_as_there_is_room() {
    let (limiter, clock, _) = capped_limiter(1000);
    for caller in callers("old", 1000) {
        admitted(&limiter, &caller, 1);
    }
    let (one, other) = (organization("one"), organization("other"));
    assert_eq!(admitted(&limiter, &one, 600), 500);
    assert_eq!(admitted(&limiter, &other, 600), 0);
    clock.advance(Duration::from_secs(60));
    // The request that finds out that there is room is still decided by the shared bucket.
    assert_eq!(admitted(&limiter, &other, 1), 1);
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
        assert_eq!(told.lock().unwrap().last(), Some(&StoreEvent::CapReached { max_buckets: 100 }));
        assert_eq!(told.lock().unwrap().len(), round * 2 + 1);
        clock.advance(Duration::from_secs(120));
        limiter.store().shrink();
        assert_eq!(
            told.lock().unwrap().last(),
            Some(&StoreEvent::CapRelieved { max_buckets: 100 })
        );
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
    let mut relieved = false;
    for _ in 0..600 {
        clock.advance(Duration::from_millis(200));
        assert_eq!(admitted(&limiter, &old, 1), 1);
        if !relieved && told.lock().unwrap().len() == 2 {
            relieved = true;
            assert!(limiter.store().len() <= 90, "{} are in use", limiter.store().len());
        }
    }
    assert_eq!(
        *told.lock().unwrap(),
        [StoreEvent::CapReached { max_buckets: 100 }, StoreEvent::CapRelieved { max_buckets: 100 }]
    );
    assert!(limiter.store().len() <= 2);
}

#[tokio::test]
async fn a_look_at_a_caller_without_a_bucket_shows_what_it_would_share() {
    let (limiter, _clock, _) = capped_limiter(1);
    admitted(&limiter, &organization("old"), 1);
    let new = organization("new");
    let peek = async || peeked(&limiter, &new, Endpoint::CALL).await;
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

/// Also while buckets that are full again could make room for the caller.
#[test]
fn a_look_at_the_cap_says_what_a_request_meets() {
    let (limiter, clock, _) = capped_limiter(100);
    for caller in callers("old", 100) {
        admitted(&limiter, &caller, 1);
    }
    for round in 0..1000 {
        let caller = organization(&format!("new-{}", round % 150));
        let peeked = now(peeked(&limiter, &caller, Endpoint::CALL));
        let met = limiter.decide_now(&caller, "/call").unwrap();
        assert_eq!(met.is_allowed(), peeked.is_allowed(), "round {round}");
        let spent = u32::from(met.is_allowed());
        assert_eq!(met.remaining() + spent, peeked.remaining(), "round {round}");
        assert_eq!(met.retry_after(), peeked.retry_after(), "round {round}");
        clock.advance(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn blocks_count_towards_the_cap_and_fail_if_there_is_no_room() {
    let (limiter, clock, _) = capped_limiter(2);
    let hour = Duration::from_secs(3600);
    let [one, other] = ["one", "other"].map(organization);
    let block = async |caller, period| limiter.block(caller, Endpoint::CALL, period).await;
    block(&one, hour).await.unwrap();
    let report = limiter.store().report();
    assert_eq!((report.buckets, report.blocks, report.max_buckets), (0, 1, Some(2)));
    assert!(limiter.decide_now(&other, "/call").unwrap().is_allowed());
    let error = block(&other, hour).await.unwrap_err();
    assert_eq!((error.kind(), error.is_of_store()), ("full", false));
    assert!(limiter.decide_now(&other, "/call").unwrap().is_allowed());
    // A block is replaced or lifted without further room, and one that is lifted makes room.
    block(&one, 2 * hour).await.unwrap();
    assert_eq!(limiter.decide_now(&one, "/call").unwrap().retry_after(), Some(2 * hour));
    block(&one, Duration::ZERO).await.unwrap();
    block(&other, hour).await.unwrap();
    assert!(limiter.decide_now(&other, "/call").unwrap().is_blocked());
    // So does one that has ended, and a bucket that is full again.
    clock.advance(hour);
    block(&one, hour).await.unwrap();
    block(&other, hour).await.unwrap();
    assert_eq!(limiter.store().report().blocks, 2);
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A quota of one unit in that many seconds.
fn slow(period: u64, burst: u32) -> Quota {
    Quota::per(1, seconds(period)).burst(burst).build().unwrap()
}

/// A capped store whose only place is taken.
fn full_store() -> (MemoryStore<ManualClock>, ManualClock) {
    let clock = ManualClock::default();
    clock.set(seconds(10_000));
    let store = MemoryStore::with_clock(clock.clone()).max_buckets(1);
    assert!(ask(&store, "old", slow(1_000_000, 1)).is_allowed());
    (store, clock)
}

fn ask(store: &MemoryStore<ManualClock>, id: &str, quota: Quota) -> Decision {
    let caller = organization(id);
    now(store.check_one(Bucket::new(&caller, Endpoint::CALL, quota))).unwrap()
}

#[test]
fn a_clock_that_goes_back_does_not_shut_a_shared_bucket() {
    let (store, clock) = full_store();
    assert!(ask(&store, "new", slow(60, 1)).is_allowed());
    clock.set(seconds(1_000));
    let wait = ask(&store, "new", slow(60, 1)).retry_after().unwrap();
    assert_eq!(wait, seconds(60));
    clock.advance(wait);
    assert!(ask(&store, "new", slow(60, 1)).is_allowed());
}

#[test]
fn a_shared_bucket_is_not_filled_up_when_others_are_full_again() {
    let (store, clock) = full_store();
    // Each of these quotas has a shared bucket, and the first of them is soon full again.
    for other in 0..1024 {
        assert!(ask(&store, "other", slow(1 + other * 10, 1)).is_allowed());
    }
    let burst = || (0..200).filter(|_| ask(&store, "new", slow(3600, 50)).is_allowed()).count();
    assert_eq!(burst(), 50, "of the bucket that all further quotas share");
    for other in 0..3 {
        clock.advance(seconds(10));
        assert!(ask(&store, "other", slow(1 + other * 10, 1)).is_allowed());
        assert_eq!(burst(), 0, "no unit has come back");
    }
}

#[test]
fn a_look_at_the_cap_says_what_a_request_of_several_buckets_meets() {
    let endpoint = |number: u32| Endpoint::new(&format!("cap-{number}")).unwrap();
    let entry = |number| Entry::new(endpoint(number), slow(1_000, 2));
    // Which buckets are beside each other differs from caller to caller.
    for round in 0..50 {
        let clock = ManualClock::default();
        clock.set(seconds(10_000));
        let store = MemoryStore::with_clock(clock.clone()).max_buckets(16);
        let check = |id: &str, entries: &[Entry]| {
            let caller = organization(&format!("{id}-{round}"));
            let charge = Charge::new(&caller, entries).unwrap();
            let peek = now(store.command(Command::Peek(charge))).unwrap();
            let checked = store.check(charge).now().unwrap().unwrap().outcome();
            assert_eq!(peek.into_decisions().unwrap().outcome(), checked, "{id}");
        };
        // Three buckets of this caller are soon full again, and still there.
        (0..3).for_each(|number| check("caller", &[Entry::new(endpoint(number), slow(1, 1))]));
        (0..13).for_each(|other| check(&format!("other-{other}"), &[entry(3)]));
        // The shared bucket of one endpoint is drained.
        (0..4).for_each(|new| check(&format!("new-{new}"), &[entry(5)]));
        // There is room for one of two further buckets.
        let other = organization(&format!("other-0-{round}"));
        now(store.reset(&other, endpoint(3))).unwrap();
        clock.advance(seconds(2));
        check("caller", &[entry(4), entry(5)]);
        assert!(store.len() <= 16);
    }
}

#[test]
fn a_settlement_without_room_leaves_a_wait_that_suffices() {
    let settle = |store: &MemoryStore<ManualClock>, id: &str, quota| {
        let caller = organization(id);
        let entry = Entry::new(Endpoint::CALL, quota).with_cost(2).unwrap();
        now(store.command(Command::Settle(Charge::of_one(&caller, &entry))))
    };
    // A shared bucket is drained at most.
    let (store, clock) = full_store();
    for _ in 0..2 {
        assert_eq!(settle(&store, "new", slow(60, 2)).unwrap(), Reply::Done);
    }
    let wait = ask(&store, "new", slow(60, 2)).retry_after().unwrap();
    assert_eq!(wait, seconds(60));
    clock.advance(wait);
    assert!(ask(&store, "new", slow(60, 2)).is_allowed());

    // So is a bucket of the caller's own, if there is no room for the overdraft.
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(clock.clone()).max_buckets(1);
    assert!(settle(&store, "o", slow(60, 2)).is_ok());
    assert_eq!(settle(&store, "o", slow(60, 2)).unwrap_err().kind(), "full");
    let caller = organization("o");
    let bucket = Bucket::new(&caller, Endpoint::CALL, slow(60, 2));
    assert_eq!(now(store.peek(bucket)).unwrap().retry_after(), Some(seconds(60)));
    clock.advance(seconds(60));
    assert!(ask(&store, "o", slow(60, 2)).is_allowed());
}
