//! How long requests waited for the store, in a form that can be added up over processes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Label, counter};

use super::names;

/// The buckets of a Prometheus histogram: each counts the waits up to its bound.
///
/// They are counters, because the exporter for Prometheus makes a summary of a `histogram!` unless
/// its user has set buckets, and the quantiles of several processes can't be combined.
pub(super) struct Waits {
    /// How many waits end in each bucket and in none below it: a request adds to one number only.
    counts: [AtomicU64; BUCKETS],
    /// What the counters of the recorder say.
    published: Mutex<[u64; BUCKETS]>,
}

const BUCKETS: usize = BOUNDS.len() + 1;

/// The label `le`, which is in seconds, and the same in microseconds.
///
/// A check that is decided by the fallback at the default deadline of 25 ms takes a little longer
/// than that. Without the bound at 30 ms such waits would be shown as up to 50 ms.
const BOUNDS: [(&str, u64); 12] = [
    ("0.0001", 100),
    ("0.00025", 250),
    ("0.0005", 500),
    ("0.001", 1_000),
    ("0.0025", 2_500),
    ("0.005", 5_000),
    ("0.01", 10_000),
    ("0.025", 25_000),
    ("0.03", 30_000),
    ("0.05", 50_000),
    ("0.1", 100_000),
    ("0.25", 250_000),
];

impl Waits {
    pub(super) fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], published: Mutex::default() }
    }

    #[inline]
    pub(super) fn count(&self, waited: Duration) {
        let fits = |&(_, bound): &(_, u64)| waited <= Duration::from_micros(bound);
        let bucket = BOUNDS.iter().position(fits).unwrap_or(BOUNDS.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// Brings the counters of the recorder up to date.
    pub(super) fn publish(&self, labels: impl Fn(&'static str) -> Vec<Label>) {
        // Counts are read under the lock, so that no thread reads less than was published.
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = BOUNDS.iter().map(|&(le, _)| le).chain(["+Inf"]);
        let mut up_to = 0;
        for ((le, count), published) in bounds.zip(&self.counts).zip(&mut *published) {
            up_to += count.load(Ordering::Relaxed);
            // Adds 0 too: Prometheus sees no increase in the first value of a counter, and it needs
            // all buckets for a quantile.
            counter!(names::STORE_WAITS, labels(le)).increment(up_to - *published);
            *published = up_to;
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    /// What the recorder's counters say after each of the rounds of waits, which are in
    /// microseconds.
    fn published<const N: usize>(rounds: [&[u64]; N]) -> [Vec<u64>; N] {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let waits = Waits::new();
        let mut totals = vec![0; BUCKETS];
        rounds.map(|round| {
            round.iter().for_each(|&waited| waits.count(Duration::from_micros(waited)));
            metrics::with_local_recorder(&recorder, || {
                waits.publish(|le| vec![Label::from_static_parts("le", le)]);
            });
            // A snapshot has what was added since the one before.
            for (key, _, _, value) in snapshotter.snapshot().into_vec() {
                let le = key.key().labels().next().expect("all have the label").value().to_owned();
                let place = BOUNDS.iter().position(|&(bound, _)| bound == le);
                let DebugValue::Counter(added) = value else { panic!("{value:?}") };
                totals[place.unwrap_or(BOUNDS.len())] += added;
            }
            totals.clone()
        })
    }

    #[test]
    fn each_bucket_counts_the_waits_up_to_its_bound() {
        let [first, second, third] = published([&[100, 101, 25_400, 900_000], &[], &[0, 250_000]]);
        assert_eq!(first, [1, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4]);
        assert_eq!(second, first);
        assert_eq!(third, [2, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 5, 6]);
    }

    #[test]
    fn labels_and_bounds_agree_and_ascend() {
        for (le, bound) in BOUNDS {
            let seconds: f64 = le.parse().expect("a number");
            assert_eq!(Duration::from_secs_f64(seconds), Duration::from_micros(bound), "{le}");
        }
        assert!(BOUNDS.is_sorted_by(|(_, one), (_, next)| one < next));
    }
}
