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
use bolna_rate_limit::clock::ManualClock;
use bolna_rate_limit::store::{Charge, Entry, MemoryStore, Store};
use bolna_rate_limit::{Endpoint, Principal, Quota};
use memory_stats::memory_stats;

const BUCKETS: u32 = 1_000_000;

/// Longer than two turns of the store's shards, so that every request sweeps as many shards as a
/// request may.
const OVERDUE: Duration = Duration::from_millis(300);

struct Fixture {
    store: MemoryStore<ManualClock>,
    clock: ManualClock,
    quota: Quota,
}

impl Fixture {
    fn new() -> Self {
        let clock = ManualClock::default();
        let quota = Quota::per_minute(500).build().expect("the quota is valid");
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

    fn fill(&self) -> Vec<u64> {
        (0..BUCKETS).map(|number| self.charge(number)).collect()
    }
}

fn main() {
    let first = Fixture::new();
    let before = resident();
    let mut times = Vec::new();
    let allocated = measure(|| times = first.fill()).bytes_current - i64::from(BUCKETS) * 8;
    let grown = resident() - before - times.len() * 8;
    println!("{} buckets", first.store.len());
    println!("{:>6.1} bytes a bucket, by the allocator", share(allocated));
    println!("{:>6.1} bytes a bucket, resident", share(i64::try_from(grown).unwrap_or(i64::MAX)));
    drop(first);

    println!("\n| nanoseconds a request | median | 99 % | 99.99 % | worst | over 50 µs | of |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    print("a new bucket, in memory never touched before", times);
    let Fixture { store, clock, quota } = Fixture::new();
    let filled = Fixture { store, clock, quota };
    print("a new bucket", filled.fill());
    print("a bucket that exists", (0..BUCKETS).map(|number| filled.charge(number)).collect());
    let sweeping = |number: u32| {
        // The clock goes forth and back. A turn is due either way, and no bucket becomes full.
        filled.clock.set(OVERDUE * (number % 2));
        filled.charge(number)
    };
    print("sweeping as much as one request ever does", (0..20_000).map(sweeping).collect());
    let clearing = |number: u32| {
        filled.clock.advance(OVERDUE);
        filled.charge(number % 10)
    };
    filled.clock.set(Duration::from_secs(60));
    print("the same, with all that is swept dropped", (0..1_100).map(clearing).collect());
    print("reading the clock", (0..BUCKETS).map(|_| time(|| ())).collect());
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
