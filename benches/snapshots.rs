//! What a snapshot of a million buckets takes, and what it costs the requests meanwhile:
//! `cargo bench --bench snapshots`, with `--features serde` also as JSON. Takes some ten seconds.
//!
//! The times of single requests depend on the machine, above all if it has fewer processors than
//! threads that are busy. So the same requests are also timed beside a thread that computes
//! something else.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bolna_rate_limit::store::{Charge, Entry, MemoryStore, Snapshot, Store};
use bolna_rate_limit::{Endpoint, Principal, Quota};

const BUCKETS: u32 = 1_000_000;

/// A snapshot of another process, and so with the key of another.
const OF_ANOTHER: &str = include_str!("../tests/vectors/snapshot-1.hex");

fn main() {
    let principals: Vec<Principal> = (0..BUCKETS).map(principal).collect();
    let store = MemoryStore::new();
    principals.iter().for_each(|principal| charge(&store, principal));
    let (taken, snapshot) = timed(|| store.snapshot());
    println!("{} buckets, {} bytes", snapshot.buckets(), snapshot.as_bytes().len());

    println!("\n| milliseconds | first | second | third |");
    println!("|---|--:|--:|--:|");
    let again = || timed(|| store.snapshot()).0;
    print("to take it", [taken, again(), again()]);
    let bytes = snapshot.as_bytes();
    print("to check its bytes", [(); 3].map(|()| timed(|| Snapshot::from_bytes(bytes)).0));
    print("to restore it", [(); 3].map(|()| restored(&snapshot).0));
    let of_small = || {
        let mut store = MemoryStore::new().max_buckets(100_000);
        timed(|| store.restore(&snapshot).expect("the store is empty")).0
    };
    print("to restore it in another number of shards", [(); 3].map(|()| of_small()));
    #[cfg(feature = "serde")]
    {
        let json = serde_json::to_vec(&snapshot).expect("it can be serialized");
        let write = || timed(|| serde_json::to_vec(&snapshot)).0;
        print("to write it as JSON", [(); 3].map(|()| write()));
        let read = || timed(|| serde_json::from_slice::<Snapshot>(&json)).0;
        print("to read it from JSON", [(); 3].map(|()| read()));
        println!("\n{} bytes of JSON", json.len());
    }

    println!("\n| nanoseconds a request | median | 99.9 % | 99.999 % | worst | of |");
    println!("|---|--:|--:|--:|--:|--:|");
    let spin = || {
        black_box((0..100_000_u64).fold(0, |sum, next| black_box(sum ^ next)));
    };
    let new = |first: u32| (first..first + BUCKETS / 2).map(principal).collect::<Vec<_>>();
    requests("a bucket that exists", &store, &principals, spin);
    requests("the same, during snapshots", &store, &principals, || drop(store.snapshot()));
    requests("a new bucket", &store, &new(BUCKETS), spin);
    requests("the same, during snapshots", &store, &new(BUCKETS * 2), || drop(store.snapshot()));

    println!("\n| nanoseconds a request, of 1,000 buckets | first | second | third |");
    println!("|---|--:|--:|--:|");
    let few = &principals[..1000];
    let each = |store: &MemoryStore| {
        let round = || few.iter().for_each(|principal| charge(store, principal));
        [(); 3].map(|()| timed(|| (0..1000).for_each(|_| round())).0 / 1_000_000)
    };
    print_nanos(
        "a store that has restored a snapshot of its process",
        each(&restored(&snapshot).1),
    );
    print_nanos("... of another process, after ids were made", each(&restored(&of_another()).1));
}

fn of_another() -> Snapshot {
    let digits = OF_ANOTHER.trim().as_bytes();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("it is text");
        u8::from_str_radix(pair, 16).expect("it is hexadecimal")
    };
    Snapshot::from_bytes(digits.chunks(2).map(byte).collect::<Vec<_>>()).expect("it is whole")
}

fn restored(snapshot: &Snapshot) -> (Duration, MemoryStore) {
    let mut store = MemoryStore::new();
    let now = SystemTime::now();
    let time = timed(|| store.restore_at(snapshot, now).expect("the store is empty")).0;
    (time, store)
}

fn principal(number: u32) -> Principal {
    let id = format!("{:08x}-e320-4d95-a3a5-242cfe45621d", number.wrapping_mul(2_654_435_761));
    Principal::organization(id).expect("the id is not empty")
}

fn charge(store: &MemoryStore, principal: &Principal) {
    // So slow that no bucket is full again meanwhile.
    let quota = Quota::per(100_000, Duration::from_secs(86_400 * 365)).build();
    let entry = Entry::new(Endpoint::CALL, quota.expect("the quota is valid"));
    let _ = black_box(store.check(Charge::of_one(principal, &entry)));
}

/// Times a request of each principal, while another thread repeats `beside`.
fn requests(what: &str, store: &MemoryStore, principals: &[Principal], beside: impl Fn() + Sync) {
    let ends = AtomicBool::new(false);
    let mut times: Vec<u128> = thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                beside();
            }
        });
        let time = |principal| timed(|| charge(store, principal)).0.as_nanos();
        let times = principals.iter().map(time).collect();
        ends.store(true, Ordering::Relaxed);
        times
    });
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100_000];
    let worst = times.last().expect("there are some");
    println!(
        "| {what} | {} | {} | {} | {worst} | {} |",
        at(50_000),
        at(99_900),
        at(99_999),
        times.len()
    );
}

fn timed<R>(work: impl FnOnce() -> R) -> (Duration, R) {
    let start = Instant::now();
    let result = black_box(work());
    (start.elapsed(), result)
}

fn print(what: &str, times: [Duration; 3]) {
    let [first, second, third] = times.map(|time| time.as_millis());
    println!("| {what} | {first} | {second} | {third} |");
}

fn print_nanos(what: &str, times: [Duration; 3]) {
    let [first, second, third] = times.map(|time| time.as_nanos());
    println!("| {what} | {first} | {second} | {third} |");
}
