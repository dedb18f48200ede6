//! Snapshots that no store takes, though their checksum is right.

use std::env;
use std::process::Command as Process;
use std::time::{Duration, UNIX_EPOCH};

use super::format::{ExceptionRecord, LONGEST, SharedRecord, SlotRecord, Writer};
use super::{Snapshot, SnapshotError};
use crate::policy::Policy;
use crate::store::memory::key::Keys;
use crate::store::{Bucket, Charge, Entry, MemoryStore, Store};
use crate::values::clock::ManualClock;
use crate::values::{Endpoint, FingerprintKey, Principal, Quota};

/// The records of accounts. There are none of addresses.
#[derive(Default)]
struct Forged {
    slots: Vec<SlotRecord>,
    exceptions: Vec<ExceptionRecord>,
    shared: Vec<SharedRecord>,
}

impl Forged {
    fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        let key = FingerprintKey::of_process().numbers();
        let mut writer = Writer::new(1_000_000, key, 0);
        self.slots.iter().for_each(|record| writer.words(*record));
        writer.count(self.slots.len());
        self.exceptions.iter().for_each(|record| writer.words(*record));
        writer.count(self.exceptions.len());
        self.shared.iter().for_each(|record| writer.words(*record));
        writer.count(self.shared.len());
        (0..3).for_each(|_| writer.count(0));
        Snapshot::from_bytes(writer.finish())
    }

    /// What is left of the bucket of [`caller`] in a store that has restored it.
    fn left(&self) -> u32 {
        let clock = ManualClock::new();
        clock.set(Duration::MAX);
        let mut store = MemoryStore::with_clock(clock);
        let at = UNIX_EPOCH + Duration::from_nanos(1_000_000);
        store.restore_at(&self.snapshot().expect("it is valid"), at).expect("it is empty");
        let entry = Entry::new(Endpoint::CALL, quota());
        let check = store.check(Charge::of_one(&caller(), &entry));
        let decisions = check.now().expect("it answers at once").expect("it does not fail");
        let (decision, is_allowed) = (decisions.first(), decisions.first().is_allowed());
        decision.remaining() + u32::from(is_allowed)
    }
}

fn caller() -> Principal {
    Principal::organization("org-4").expect("the id is not empty")
}

fn quota() -> Quota {
    Quota::per_minute(60).build().expect("the quota is valid")
}

fn slot(debt: u64) -> SlotRecord {
    let principal = caller();
    let key = Keys::default().of(&Bucket::of_account(&principal, Endpoint::CALL));
    let [first, second] = key.numbers();
    [first, second, debt]
}

fn exception(blocked: u64, overdraft: u64) -> ExceptionRecord {
    let [first, second, _] = slot(0);
    [first, second, blocked, overdraft]
}

#[test]
fn times_that_no_bucket_can_owe_are_refused() {
    for too_long in [LONGEST + 1, u64::MAX] {
        for forged in [
            Forged { slots: vec![slot(1), slot(too_long)], ..Forged::default() },
            Forged { exceptions: vec![exception(too_long, 0)], ..Forged::default() },
            Forged { exceptions: vec![exception(0, too_long)], ..Forged::default() },
            Forged { shared: vec![[1, 0, 0, 0, too_long, 0]], ..Forged::default() },
            Forged { shared: vec![[1, 0, 0, 0, 0, too_long]], ..Forged::default() },
        ] {
            assert_eq!(forged.snapshot().expect_err("it is damaged"), SnapshotError::Damaged);
        }
    }
}

#[test]
fn the_longest_times_overflow_nothing() {
    let slots = vec![slot(LONGEST)];
    assert_eq!(Forged { slots, ..Forged::default() }.left(), 0);
    let exceptions = vec![exception(LONGEST, LONGEST)];
    assert_eq!(Forged { exceptions, ..Forged::default() }.left(), 0);
    let shared = vec![[1, 0, 0, 0, LONGEST, LONGEST]];
    assert_eq!(Forged { shared, ..Forged::default() }.left(), 60);
}

#[test]
fn a_bucket_that_is_there_twice_counts_as_the_one_that_owes_more() {
    let half = 30_000_000_000;
    for slots in [vec![slot(half), slot(0), slot(7)], vec![slot(7), slot(0), slot(half)]] {
        assert_eq!(Forged { slots, ..Forged::default() }.left(), 30);
    }
}

#[test]
fn shared_buckets_of_no_scope_or_no_quota_are_refused() {
    let burst = u64::from(u32::MAX);
    for [scope, interval, burst] in
        [[4, 1, 1], [u64::MAX, 1, 1], [0, 0, 1], [0, 1, 0], [0, 1, burst + 1], [0, LONGEST, burst]]
    {
        let shared = vec![[1, scope, interval, burst, 1, 1]];
        let error = Forged { shared, ..Forged::default() }.snapshot().expect_err("it is damaged");
        assert_eq!(error, SnapshotError::Damaged);
    }
    for [scope, interval, burst] in [[0, 0, 0], [1, 1, 1], [3, 120_000_000, 500]] {
        let shared = vec![[1, scope, interval, burst, 1, 1]];
        assert!(Forged { shared, ..Forged::default() }.snapshot().is_ok());
    }
}

/// In a process of its own, since ids are made everywhere else.
#[test]
fn a_process_that_has_made_no_id_makes_them_with_the_key_of_the_snapshot() {
    const CHILD: &str = "BOLNA_TEST_ADOPTS";
    if env::var_os(CHILD).is_some() {
        let writer = Writer::new(0, [3, 4], 0);
        let snapshot = Snapshot::from_bytes(writer.finish()).expect("it is whole");
        // Neither a policy nor a store makes ids.
        let _policy = Policy::bolna().build().expect("the policy is valid");
        let mut store = MemoryStore::new();
        store.restore(&snapshot).expect("the store is empty");
        assert!(!store.table.keys.are_own(), "requests take no longer");
        assert_eq!(FingerprintKey::of_process().numbers(), [3, 4]);
        let by_the_key = FingerprintKey::new([3, 4]).fingerprint(b"org-4");
        assert_eq!(caller().id().fingerprint(), by_the_key);
        // A second one with another key is restored all the same.
        let snapshot = Snapshot::from_bytes(Writer::new(0, [5, 6], 0).finish()).expect("whole");
        let mut store = MemoryStore::new();
        store.restore(&snapshot).expect("the store is empty");
        assert!(store.table.keys.are_own() && store.addresses.keys.are_own());
        assert_eq!(store.snapshot().contents().key, [5, 6]);
        return;
    }
    let name = "store::memory::snapshot::tests::\
                a_process_that_has_made_no_id_makes_them_with_the_key_of_the_snapshot";
    let child = Process::new(env::current_exe().expect("it is known"))
        .args(["--exact", name])
        .env(CHILD, "")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}
