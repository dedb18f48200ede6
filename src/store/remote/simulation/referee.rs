//! The bounds that have to hold, whatever goes wrong.

use std::collections::HashMap;

use crate::values::OwnedBucket;

/// The number of the principal that a bucket belongs to, and the bucket.
pub(super) type Key = (usize, OwnedBucket);

/// Watches what is admitted from each bucket.
///
/// The level of a bucket is a model of its own: each unit that is admitted raises it, and time
/// lowers it by the limit. The bounds say how high it may ever be. So they hold for every interval
/// of a run.
pub(super) struct Referee {
    levels: HashMap<Key, Level>,
}

struct Level {
    /// The time until it is 0 again, in nanoseconds, and the most that it has been.
    level: u64,
    highest: u64,
    at: u64,
    /// The time in which one unit comes back.
    interval: u64,
}

impl Referee {
    pub(super) fn new() -> Self {
        Self { levels: HashMap::new() }
    }

    /// Units of the bucket of a principal are admitted.
    pub(super) fn admit(&mut self, bucket: Key, interval: u64, units: u32, now: u64) {
        let level =
            self.levels.entry(bucket).or_insert(Level { level: 0, highest: 0, at: now, interval });
        level.fall(now, 0);
        level.level += u64::from(units) * interval;
        level.highest = level.highest.max(level.level);
    }

    /// Units are given back.
    pub(super) fn give_back(&mut self, bucket: &Key, units: u32) {
        if let Some(level) = self.levels.get_mut(bucket) {
            level.level = level.level.saturating_sub(u64::from(units) * level.interval);
        }
    }

    /// Time has passed, in which replicas that were cut off have admitted `extra` nanoseconds'
    /// worth of units besides.
    pub(super) fn pass(&mut self, now: u64, extra: impl Fn(usize) -> u64) {
        for ((principal, _), level) in &mut self.levels {
            level.fall(now, extra(*principal));
        }
    }

    /// The highest level of each bucket, in units, rounded up.
    pub(super) fn highest(&self) -> impl Iterator<Item = (&Key, u32)> + '_ {
        self.levels.iter().map(|(bucket, level)| {
            (bucket, u32::try_from(level.highest.div_ceil(level.interval)).expect("small"))
        })
    }
}

impl Level {
    fn fall(&mut self, now: u64, extra: u64) {
        self.level = self.level.saturating_sub(now - self.at + extra);
        self.at = now;
    }
}
