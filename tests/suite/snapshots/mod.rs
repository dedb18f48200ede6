//! Snapshots: a restart gives no caller units back but those of the time that has passed.

mod bad_input;
mod cap;
mod recorded;
mod restart;
mod threads;
mod twin;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::{
    AnyStore, Bucket, Charge, Command, Entry, MemoryStore, Snapshot, Store,
};
use bolna_rate_limit::values::clock::{Clock, ManualClock};
use bolna_rate_limit::values::{Kind, Limit, LimitName, Scope};
use bolna_rate_limit::{Account, Endpoint, Limiter, Policy, Principal, Quota};

use crate::support::{now, organization, stopped_limiter};

type Stopped = Limiter<MemoryStore<ManualClock>>;

const NANOSECOND: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);

/// The wall-clock time of all snapshots.
fn wall() -> SystemTime {
    UNIX_EPOCH + Duration::new(1_800_000_000, 123_456_789)
}

/// Takes a snapshot, through a file as it were.
fn snapshot(limiter: &Stopped) -> Snapshot {
    let snapshot = limiter.store().snapshot_at(wall());
    Snapshot::from_bytes(snapshot.as_bytes()).unwrap()
}

/// A limiter of another process, whose clock has another origin, at that wall-clock time.
fn restored(snapshot: &Snapshot, policy: Policy, at: SystemTime) -> (Stopped, ManualClock) {
    let clock = ManualClock::new();
    clock.set(Duration::from_secs(86_400 * 365));
    let mut store = MemoryStore::with_clock(clock.clone());
    store.restore_at(snapshot, at).unwrap();
    (Limiter::with_store(policy, store).unwrap(), clock)
}

/// The limiter after a restart that took so long.
fn restarted(limiter: &Stopped, down: Duration) -> (Stopped, ManualClock) {
    restored(&snapshot(limiter), limiter.policy(), wall() + down)
}

fn member(user: &str, organization: &str) -> Account {
    Account::user(user).in_organization(organization)
}

fn is_admitted(limiter: &Stopped, account: &Account) -> bool {
    limiter.check_now(account, "/call").unwrap().is_admitted()
}

/// How many of a thousand calls are admitted.
fn admitted(limiter: &Stopped, account: &Account) -> usize {
    (0..1000).filter(|_| is_admitted(limiter, account)).count()
}

/// What is left of each limit of `/call`.
fn left(limiter: &Stopped, account: &Account) -> Vec<(&'static str, u32)> {
    let ruling = now(limiter.peek(account, Endpoint::CALL)).unwrap().unwrap();
    ruling.decisions().iter().map(|it| (it.name().name(), it.remaining())).collect()
}

#[test]
fn a_bucket_owes_after_a_restart_what_it_owed_less_the_time_that_has_passed() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    let caller = member("u", "o");
    assert_eq!(admitted(&limiter, &caller), 500);
    clock.advance(Duration::from_nanos(119_999_998));
    for (down, is_back) in [(Duration::ZERO, false), (NANOSECOND, false), (NANOSECOND * 2, true)] {
        let (limiter, _) = restarted(&limiter, down);
        assert_eq!(is_admitted(&limiter, &caller), is_back, "after {down:?}");
    }
    let (limiter, clock) = restarted(&limiter, SECOND * 30);
    assert_eq!(left(&limiter, &caller), [("call", 250)]);
    clock.advance(SECOND * 30 - Duration::from_nanos(119_999_999));
    assert_eq!(left(&limiter, &caller), [("call", 499)]);
    clock.advance(NANOSECOND);
    assert_eq!(left(&limiter, &caller), [("call", 500)]);
}

#[test]
fn buckets_of_users_and_of_everyone_keep_what_they_owe() {
    let policy = Policy::bolna()
        .quota("call", Quota::per_minute(10))
        .also("call", LimitBuilder::user("call-user", Quota::per_minute(4)))
        .also("call", LimitBuilder::everyone("call-all", Quota::per_minute(15)));
    let (limiter, _) = stopped_limiter(policy.build().unwrap());
    assert_eq!(admitted(&limiter, &member("ana", "acme")), 4);
    assert_eq!(admitted(&limiter, &member("ben", "acme")), 4);
    assert_eq!(admitted(&limiter, &Account::user("ana")), 4);
    let (limiter, _) = restarted(&limiter, Duration::ZERO);
    let of = |account: Account| left(&limiter, &account);
    assert_eq!(of(member("ana", "acme")), [("call", 2), ("call-user", 0), ("call-all", 3)]);
    assert_eq!(of(member("cid", "acme")), [("call", 2), ("call-user", 4), ("call-all", 3)]);
    assert_eq!(of(Account::user("ana")), [("call", 6), ("call-user", 0), ("call-all", 3)]);
    // Of the same id, but other principals.
    assert_eq!(of(member("ana", "ana")), [("call", 10), ("call-user", 4), ("call-all", 3)]);
    assert_eq!(admitted(&limiter, &member("cid", "acme")), 2);
}

#[test]
fn buckets_of_addresses_keep_what_they_owe() {
    let clock = ManualClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let address = Principal::new(Kind::ADDRESS, "192.0.2.1").unwrap();
    let limit = Limit::new(LimitName::new("unidentified").unwrap(), quota(3));
    let entry = Entry::of(limit.with_scope(Scope::Address));
    let entries = [entry];
    let admitted = |store: &MemoryStore<ManualClock>, address: &Principal| {
        let check = || store.check(Charge::new(address, &entries).unwrap()).now().unwrap().unwrap();
        (0..10).filter(|_| check().outcome().is_admitted()).count()
    };
    assert_eq!(admitted(&store, &address), 3);
    let mut other = MemoryStore::with_clock(clock).max_addresses(16);
    other.restore_at(&store.snapshot_at(wall()), wall() + SECOND * 20).unwrap();
    assert_eq!(other.report().addresses, 1);
    assert_eq!(admitted(&other, &address), 1);
    assert_eq!(admitted(&other, &Principal::new(Kind::ADDRESS, "192.0.2.2").unwrap()), 3);
}

fn quota(per_minute: u32) -> Quota {
    Quota::per_minute(per_minute).build().unwrap()
}

#[test]
fn a_plan_and_a_candidate_go_on_from_where_they_were() {
    let calls = |limit| Policy::bolna().quota("call", Quota::per_minute(limit)).build().unwrap();
    let (limiter, _) = stopped_limiter(Policy::default());
    limiter.set_candidate(calls(100)).unwrap();
    let (plan, caller) = (member("u", "o").with_policy(calls(600)), member("u", "p"));
    assert!((0..90).all(|_| is_admitted(&limiter, &plan) && is_admitted(&limiter, &caller)));
    let (limiter, _) = restarted(&limiter, Duration::ZERO);
    limiter.set_candidate(calls(100)).unwrap();
    assert_eq!(left(&limiter, &plan), [("call", 510)]);
    let ruling = limiter.check_now(&caller, "/call").unwrap();
    assert_eq!(ruling.decisions()[0].remaining(), 409);
    assert_eq!(ruling.candidate().unwrap().as_slice()[0].remaining(), 9);
}

#[test]
fn a_block_ends_when_it_would_have_ended() {
    let (limiter, _) = stopped_limiter(Policy::default());
    let caller = member("u", "o");
    now(limiter.block(&caller, Endpoint::CALL, SECOND * 3600)).unwrap();
    assert_eq!(limiter.store().len(), 0, "the caller owes nothing");
    let (limiter, clock) = restarted(&limiter, SECOND * 600);
    assert_eq!(limiter.store().report().blocks, 1);
    assert!(!is_admitted(&limiter, &caller));
    clock.advance(SECOND * 3000 - NANOSECOND);
    assert!(!is_admitted(&limiter, &caller));
    clock.advance(NANOSECOND);
    assert!(is_admitted(&limiter, &caller));
    let (limiter, _) = restarted(&limiter, Duration::ZERO);
    assert_eq!(limiter.store().report().blocks, 0, "what is over is in no snapshot");
}

#[test]
fn a_snapshot_of_the_future_gives_nothing_back() {
    let (limiter, _) = stopped_limiter(Policy::default());
    let caller = member("u", "o");
    assert_eq!(admitted(&limiter, &caller), 500);
    for back in [SECOND, SECOND * 3600, wall().duration_since(UNIX_EPOCH).unwrap() + SECOND * 9] {
        let (limiter, clock) = restored(&snapshot(&limiter), limiter.policy(), wall() - back);
        assert_eq!(admitted(&limiter, &caller), 0);
        clock.advance(SECOND * 60);
        assert_eq!(admitted(&limiter, &caller), 500, "no block for ever");
    }
}

#[test]
fn a_wall_clock_that_was_set_forward_gives_back_the_units_of_that_time() {
    let (limiter, _) = stopped_limiter(Policy::default());
    let caller = member("u", "o");
    assert_eq!(admitted(&limiter, &caller), 500);
    let (limiter, _) = restarted(&limiter, SECOND * 86_400 * 365 * 1000);
    assert!(limiter.store().is_empty());
    assert_eq!(admitted(&limiter, &caller), 500, "a burst, and no more");
}

/// A clock that is later at each reading.
#[derive(Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(10, Ordering::Relaxed))
    }
}

#[test]
fn the_time_that_a_snapshot_takes_gives_nothing_back() {
    fn waits<St: Store>(limiter: &Limiter<St>, accounts: &[Account; 3]) -> [Duration; 3] {
        accounts.each_ref().map(|account| {
            let ruling = now(limiter.peek(account, Endpoint::CALL)).unwrap().unwrap();
            ruling.retry_after().unwrap_or(ruling.decisions()[0].reset())
        })
    }
    let store = MemoryStore::with_clock(Ticking::default());
    let limiter = Limiter::with_store(Policy::default(), store).unwrap();
    let [spent, blocked, overdrawn] = ["spent", "blocked", "overdrawn"].map(organization);
    let accounts = [&spent, &blocked, &overdrawn].map(Account::from);
    assert!((0..400).all(|_| limiter.check_now(&accounts[0], "/call").unwrap().is_admitted()));
    now(limiter.block(&accounts[1], Endpoint::CALL, SECOND * 60)).unwrap();
    let entry = Entry::new(Endpoint::CALL, quota(500)).with_cost(500).unwrap();
    for _ in 0..2 {
        let settle = Command::Settle(Charge::of_one(&overdrawn, &entry));
        now(limiter.store().command(settle)).unwrap();
    }

    // The clock is read for each of 1088 shards, so the snapshot takes 11 s.
    let before = waits(&limiter, &accounts);
    let snapshot = limiter.store().snapshot_at(wall());
    let after = waits(&limiter, &accounts);
    let (restored, _) = restored(&snapshot, Policy::default(), wall());
    let restored = waits(&restored, &accounts);
    for ((restored, before), after) in restored.into_iter().zip(before).zip(after) {
        assert!(after + SECOND * 10 < before);
        assert!(restored <= before);
        // The peeks and the snapshot itself have read the clock a few times.
        assert!(restored + Duration::from_millis(40) >= before, "{restored:?} of {before:?}");
    }
}

#[test]
fn what_is_full_is_in_no_snapshot() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    assert!(is_admitted(&limiter, &member("u", "o")));
    assert_eq!(snapshot(&limiter).buckets(), 1);
    clock.advance(Duration::from_millis(120));
    assert_eq!(snapshot(&limiter).buckets(), 0);
    let empty = stopped_limiter(Policy::default()).0;
    assert_eq!(snapshot(&empty).as_bytes().len(), snapshot(&limiter).as_bytes().len());
    let (limiter, _) = restarted(&empty, SECOND);
    assert!(limiter.store().is_empty());
}

#[test]
fn a_store_that_has_counted_requests_is_left_as_it_is() {
    let (limiter, _) = stopped_limiter(Policy::default());
    assert_eq!(admitted(&limiter, &member("u", "o")), 500);
    let snapshot = snapshot(&limiter);

    let mut store = MemoryStore::with_clock(ManualClock::new());
    let (other, entry) = (organization("p"), Entry::new(Endpoint::CALL, quota(500)));
    store.check(Charge::of_one(&other, &entry)).now().unwrap().unwrap();
    let error = store.restore_at(&snapshot, wall()).unwrap_err().to_string();
    assert_eq!(
        error,
        "the store keeps 1 buckets already: restore a snapshot before the store counts requests"
    );
    let check = |account: &Principal| {
        store.check(Charge::of_one(account, &entry)).now().unwrap().unwrap().first().remaining()
    };
    assert_eq!((check(&other), check(&organization("o"))), (498, 499));
}

#[test]
fn a_restored_store_is_full_of_what_it_can_still_reset_and_refund() {
    let (limiter, _) = stopped_limiter(Policy::default());
    let (ana, ben) = (member("ana", "acme"), member("ben", "other"));
    assert_eq!((admitted(&limiter, &ana), admitted(&limiter, &ben)), (500, 500));
    let (limiter, _) = restarted(&limiter, Duration::ZERO);
    now(limiter.reset(&ana, Endpoint::CALL)).unwrap();
    now(limiter.refund(&ben, Endpoint::CALL, 7)).unwrap();
    assert_eq!((admitted(&limiter, &ana), admitted(&limiter, &ben)), (500, 7));
}

#[test]
fn a_hundred_thousand_buckets_survive() {
    let (limiter, clock) = stopped_limiter(Policy::default());
    let account = |number: u32| member("u", &format!("org-{number}"));
    for number in 0..100_000 {
        for _ in 0..=number % 3 {
            assert!(is_admitted(&limiter, &account(number)));
        }
        clock.advance(Duration::from_nanos(u64::from(number % 2)));
    }
    let snapshot = snapshot(&limiter);
    assert_eq!(snapshot.buckets(), 100_000);
    assert!(snapshot.as_bytes().len() <= 24 * 100_000 + 128);
    let (restored, _) = restarted(&limiter, Duration::ZERO);
    assert_eq!(restored.store().len(), 100_000);
    for number in (0..100_000).step_by(7) {
        let rulings = [&limiter, &restored].map(|it| it.check_now(&account(number), "/call"));
        assert_eq!(
            rulings[0].as_ref().unwrap().decisions(),
            rulings[1].as_ref().unwrap().decisions()
        );
    }
}

#[test]
fn the_contents_are_not_shown() {
    let (limiter, _) = stopped_limiter(Policy::default());
    assert!(is_admitted(&limiter, &member("u", "o")));
    let shown = format!("{:?}", snapshot(&limiter));
    let time = format!("{:?}", wall());
    assert_eq!(shown, format!("Snapshot {{ taken_at: {time}, buckets: 1, .. }}"));
}

#[test]
fn a_store_behind_another_type_is_reached_by_a_clone() {
    let store = Arc::new(MemoryStore::with_clock(ManualClock::new()));
    let any = AnyStore::from(Arc::clone(&store));
    let limiter = Limiter::with_store(Policy::default(), any).unwrap();
    now(limiter.check(&member("u", "o"), "/call").unwrap().wait()).unwrap();
    assert_eq!(store.snapshot().buckets(), 1);
}

#[test]
fn the_system_clocks_serve_without_arguments() {
    let quota = Quota::per(2, SECOND * 86_400).build().unwrap();
    let (caller, entry) = (organization("o"), Entry::new(Endpoint::CALL, quota));
    let check = |store: &MemoryStore| {
        store.check(Charge::of_one(&caller, &entry)).now().unwrap().unwrap().first().remaining()
    };
    let before = SystemTime::now();
    let store = MemoryStore::new();
    assert_eq!((check(&store), check(&store)), (1, 0));
    let snapshot = store.snapshot();
    assert!((before..=SystemTime::now()).contains(&snapshot.taken_at()));
    let mut restored = MemoryStore::new();
    restored.restore(&snapshot).unwrap();
    assert_eq!(check(&restored), 0);
    let bucket = Bucket::of_account(&caller, Endpoint::CALL);
    now(restored.command(Command::Reset(bucket))).unwrap();
    assert_eq!(check(&restored), 1);
}
