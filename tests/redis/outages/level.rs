//! The level of a bucket, by a model of its own.

use std::collections::BTreeMap;

use bolna_rate_limit::Quota;

/// How many units were admitted beyond the limit: each raises the level, and time lowers it by the
/// limit. The highest level is therefore the most, over all intervals, that was admitted within an
/// interval less what the limit allows in it.
pub(super) fn highest(quota: Quota, admitted: &[u64]) -> f64 {
    let interval = quota.emission_interval().as_nanos() as f64;
    let (mut level, mut highest, mut before) = (0_f64, 0_f64, 0);
    for at in admitted {
        let passed = (*at - before) as f64;
        level = (level - passed / interval).max(0.0) + 1.0;
        (highest, before) = (highest.max(level), *at);
    }
    highest
}

/// The times of admissions, sorted, by bucket.
pub(super) fn by_bucket(admitted: &[(u64, String)]) -> BTreeMap<&str, Vec<u64>> {
    let mut buckets = BTreeMap::<&str, Vec<u64>>::new();
    for (at, bucket) in admitted {
        buckets.entry(bucket).or_default().push(*at);
    }
    buckets.values_mut().for_each(|times| times.sort_unstable());
    buckets
}

#[test]
fn the_level_is_the_most_over_all_intervals() {
    let quota = Quota::per_second(10).burst(5).build().unwrap();
    let unit = 100_000_000;
    assert_eq!(highest(quota, &[]), 0.0);
    assert_eq!(highest(quota, &[7; 5]), 5.0);
    // Half a second gives five units back, and a longer time not more.
    let later = [7, 7, 7, 7, 7, 7 + 3 * unit, 7 + 900 * unit, 7 + 900 * unit];
    assert_eq!(highest(quota, &later), 5.0);
    assert_eq!(highest(quota, &[7, 7, 7 + unit, 7 + unit, 7 + 2 * unit, 7 + 2 * unit]), 4.0);
}
