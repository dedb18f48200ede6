//! A snapshot that another process took, with a release of version 1 of the format.

use std::time::{Duration, UNIX_EPOCH};

use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::{Charge, Entry, MemoryStore, Snapshot, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::values::{Kind, Limit, LimitName, Scope};
use bolna_rate_limit::{Account, Endpoint, Limiter, Policy, Principal, Quota};

use super::{Stopped, admitted, member, wall};
use crate::support::now;

const RECORDED: &str = include_str!("../../vectors/snapshot-1.hex");

/// The limits of the process that took it.
fn policy() -> Policy {
    Policy::bolna()
        .quota("call", Quota::per_minute(60).burst(6))
        .also("call", LimitBuilder::user("call-user", Quota::per_minute(30).burst(4)))
        .also("call", LimitBuilder::everyone("call-all", Quota::per_minute(90).burst(12)))
        .build()
        .unwrap()
}

fn address_limit() -> Entry {
    let quota = Quota::per_minute(3).build().unwrap();
    Entry::of(Limit::new(LimitName::new("unidentified").unwrap(), quota).with_scope(Scope::Address))
}

fn store(snapshot: Option<&Snapshot>) -> MemoryStore<ManualClock> {
    let clock = ManualClock::new();
    clock.set(Duration::from_secs(99));
    let mut store = MemoryStore::with_clock(clock).max_buckets(9);
    if let Some(snapshot) = snapshot {
        store.restore_at(snapshot, wall() + Duration::from_secs(1)).unwrap();
    }
    store
}

fn check_address(limiter: &Stopped, id: &str) -> bool {
    let (address, entries) = (Principal::new(Kind::ADDRESS, id).unwrap(), [address_limit()]);
    let check = limiter.store().check(Charge::new(&address, &entries).unwrap());
    check.now().unwrap().unwrap().outcome().is_admitted()
}

/// Prints a new recording. It is for a new version of the format alone: that of version 1 has to be
/// read for ever.
#[test]
#[ignore = "records"]
fn record() {
    let limiter = Limiter::with_store(policy(), store(None)).unwrap();
    assert_eq!(admitted(&limiter, &member("ana", "acme")), 4);
    assert_eq!(admitted(&limiter, &member("ben", "acme")), 2);
    assert!((0..3).all(|_| check_address(&limiter, "192.0.2.1")));
    let blocked = member("eve", "other");
    now(limiter.block(&blocked, Endpoint::CALL, Duration::from_secs(3600))).unwrap();
    for number in 0..9 {
        let other = Account::user(format!("shares-{number}"));
        assert!(limiter.check_now(&other, "/other").unwrap().is_admitted());
    }
    for byte in limiter.store().snapshot_at(wall()).as_bytes() {
        print!("{byte:02x}");
    }
    println!();
}

pub(super) fn recorded() -> Snapshot {
    let digits = RECORDED.trim();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    Snapshot::from_bytes((0..digits.len()).step_by(2).map(byte).collect::<Vec<_>>()).unwrap()
}

#[test]
fn a_snapshot_of_another_process_is_restored_by_ids_and_names() {
    // This process has made ids before, with a key of its own, and names that the other has not.
    let _ = (Principal::user("u"), LimitName::new("a-name-with-the-number-of-another").unwrap());
    let snapshot = recorded();
    assert_eq!(snapshot.taken_at(), UNIX_EPOCH + Duration::new(1_800_000_000, 123_456_789));
    let limiter = Limiter::with_store(policy(), store(Some(&snapshot))).unwrap();
    // One unit of the organization has come back in a second, and half a unit of each user.
    assert_eq!(admitted(&limiter, &member("ana", "acme")), 0);
    assert_eq!(admitted(&limiter, &member("cid", "acme")), 1);
    assert!(!check_address(&limiter, "192.0.2.1"));
    assert!(check_address(&limiter, "192.0.2.2"));
    let ruling = limiter.check_now(&member("eve", "other"), "/call").unwrap();
    assert_eq!(ruling.retry_after(), Some(Duration::from_secs(3599)));
    // All that shared a bucket have spent less than the 16 units of a second.
    let usage = now(limiter.peek(Account::user("new"), Endpoint::DEFAULT)).unwrap().unwrap();
    assert_eq!(usage.decisions()[0].remaining(), 1000);
}

#[test]
fn a_store_with_the_key_of_another_process_passes_it_on() {
    let _ = Principal::user("u");
    let mut first = store(Some(&recorded()));
    let snapshot = first.snapshot_at(wall() + Duration::from_secs(1));
    let mut second = MemoryStore::with_clock(ManualClock::new());
    second.restore_at(&snapshot, wall() + Duration::from_secs(1)).unwrap();
    let limiter = Limiter::with_store(policy(), second).unwrap();
    assert_eq!(admitted(&limiter, &member("ana", "acme")), 0);
    assert_eq!(admitted(&limiter, &member("cid", "acme")), 1);
    // With room for more addresses it keeps the key, and passes that on too.
    let third = store(Some(&recorded())).max_addresses(16);
    let limiter = Limiter::with_store(policy(), third).unwrap();
    assert!((0..3).all(|_| check_address(&limiter, "192.0.2.9")));
    let snapshot = limiter.store().snapshot_at(wall() + Duration::from_secs(1));
    let mut fourth = MemoryStore::with_clock(ManualClock::new());
    fourth.restore_at(&snapshot, wall() + Duration::from_secs(1)).unwrap();
    let limiter = Limiter::with_store(policy(), fourth).unwrap();
    assert!(!check_address(&limiter, "192.0.2.9"));
    // Empty again, it counts on with the process's own key.
    first = first.max_buckets(9);
    let limiter = Limiter::with_store(policy(), first).unwrap();
    assert_eq!(admitted(&limiter, &member("ana", "acme")), 4);
}
