//! The memory that a million buckets take, and the time that a request spends on sweeping them:
//! `cargo bench --bench memory`. Takes about ten seconds.
//!
//! The times of single requests depend on the machine: on timer interrupts, on other processes, and
//! on memory that is touched for the first time. So the benchmark also measures a loop that only
//! reads the clock, and fills the store twice, the second time in memory that the process has used
//! before.

use std::hint::black_box;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use bolna_rate_limit::store::{Charge, Entry, MemoryStore, Store};
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Endpoint, Principal, Quota};
use memory_stats::memory_stats;

const BUCKETS: u32 = 1_000_000;

/// After this time, more shards are due than a request sweeps.
const PAUSE: Duration = Duration::from_secs(10);

const DAY: Duration = Duration::from_secs(86_400);

struct Fixture {
    store: MemoryStore<ManualClock>,
    clock: ManualClock,
    quota: Quota,
}

impl Fixture {
    fn new() -> Self {
        let clock = ManualClock::default();
        // So slow that no bucket is full again before the clock is set forward by days.
        let quota = Quota::per(1, DAY).burst(1_000).build().expect("the quota is valid");
        Self { store: MemoryStore::with_clock(clock.clone()), clock, quota }
    }

    /// Nanoseconds for one request.
    fn charge(&self, number: u32) -> u64 {
        let id = format!("{:08x}-e320-4d95-a3a5-242cfe45621d", number.wrapping_mul(2_654_435_761));
        let principal = Principal::organization(id).expect("the id is not empty");
        let entry = Entry::new(Endpoint::CALL, self.quota);
        time(|| {
            let _ = black_box(self.store.check(Charge::of_one(&principal, &entry)));
        })
    }

    fn filled(buckets: u32) -> (Self, Vec<u64>) {
        let new = Self::new();
        let times = (0..buckets).map(|number| new.charge(number)).collect();
        (new, times)
    }

    /// The times of requests that each sweep as much as a request may. With `drop`, all buckets are
    /// full again, and it ends when they are dropped.
    fn sweep(&self, drop: bool) -> Vec<u64> {
        if drop {
            self.clock.advance(DAY * 10);
        }
        let mut times = Vec::new();
        while times.len() < 500 && !(drop && self.store.len() <= 1) {
            self.clock.advance(PAUSE);
            times.push(self.charge(0));
        }
        times
    }
}

fn main() {
    let before = resident();
    let mut first = None;
    let allocated = measure(|| first = Some(Fixture::filled(BUCKETS))).bytes_current;
    let (first, times) = first.expect("it was made just before");
    let allocated = allocated - i64::from(BUCKETS) * 8;
    let grown = resident() - before - times.len() * 8;
    println!("{} buckets", first.store.len());
    println!("{:>6.1} bytes a bucket, by the allocator", share(allocated));
    println!("{:>6.1} bytes a bucket, resident", share(i64::try_from(grown).unwrap_or(i64::MAX)));
    drop(first);

    println!("\n| nanoseconds a request | median | 99 % | 99.99 % | worst | over 50 µs | of |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    print("a new bucket, in memory never touched before", times);
    let (filled, times) = Fixture::filled(BUCKETS);
    print("a new bucket", times);
    print("a bucket that exists", (0..BUCKETS).map(|number| filled.charge(number)).collect());
    print("reading the clock", (0..BUCKETS).map(|_| time(|| ())).collect());
    drop(filled);
    let sweep = |buckets, stores, drop| {
        let stores = (0..stores).map(|_| Fixture::filled(buckets).0);
        stores.flat_map(|store| store.sweep(drop)).collect()
    };
    print("sweeping empty shards", sweep(0, 10, false));
    for (buckets, stores) in [(20_000, 10), (200_000, 10), (BUCKETS, 3)] {
        print(&format!("sweeping {buckets} buckets"), sweep(buckets, stores, false));
        print("the same, with all that is swept dropped", sweep(buckets, stores, true));
    }
    let (filled, _) = Fixture::filled(BUCKETS);
    filled.clock.advance(DAY * 10);
    let reports = (0..3).map(|_| time(|| drop(black_box(filled.store.report())))).collect();
    print("a report that sweeps a million buckets, and two that find nothing to do", reports);
}

fn time(work: impl FnOnce()) -> u64 {
    let start = Instant::now();
    work();
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn resident() -> usize {
    memory_stats().expect("the operating system tells").physical_mem
}

#[expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "it is printed with one decimal"
)]
fn share(bytes: i64) -> f64 {
    bytes as f64 / f64::from(BUCKETS)
}

fn print(what: &str, mut times: Vec<u64>) {
    times.sort_unstable();
    let at = |per_ten_thousand: usize| times[times.len() * per_ten_thousand / 10_000];
    let worst = times.last().copied().unwrap_or_default();
    let over = times.iter().filter(|time| **time > 50_000).count();
    println!(
        "| {what} | {} | {} | {} | {worst} | {over} | {} |",
        at(5_000),
        at(9_900),
        at(9_999),
        times.len()
    );
}
