//! What has to hold, whatever goes wrong.

use std::collections::HashMap;

use crate::values::Endpoint;

/// Watches what is admitted from each bucket.
///
/// The level of a bucket is a model of its own: each unit that is admitted raises it, and time
/// lowers it by the limit. The bounds say how high it may ever be. So they hold for every interval
/// of a run.
pub(super) struct Referee {
    levels: HashMap<(usize, Endpoint), Level>,
}

struct Level {
    /// In thousandths of units.
    level: i128,
    highest: i128,
    at: u64,
    /// The time in which one unit comes back.
    interval: u64,
}

impl Referee {
    pub(super) fn new() -> Self {
        Self { levels: HashMap::new() }
    }

    /// Units of the bucket of a principal are admitted. Since the last time the limit has allowed
    /// `rate` thousandths of itself, for what is not counted together.
    pub(super) fn admit(&mut self, bucket: (usize, Endpoint), interval: u64, units: u32, now: u64) {
        let level =
            self.levels.entry(bucket).or_insert(Level { level: 0, highest: 0, at: now, interval });
        level.fall(now, 0);
        level.level += i128::from(units) * 1000;
        level.highest = level.highest.max(level.level);
    }

    /// Units are given back.
    pub(super) fn give_back(&mut self, bucket: (usize, Endpoint), units: u32) {
        if let Some(level) = self.levels.get_mut(&bucket) {
            level.level = (level.level - i128::from(units) * 1000).max(0);
        }
    }

    /// Time has passed, in which replicas that were cut off have admitted `extra` nanoseconds' worth
    /// of units besides.
    pub(super) fn pass(&mut self, now: u64, extra: impl Fn(usize) -> u64) {
        for ((principal, _), level) in &mut self.levels {
            level.fall(now, extra(*principal));
        }
    }

    /// The highest level of each bucket, in units, rounded up.
    pub(super) fn highest(&self) -> impl Iterator<Item = ((usize, Endpoint), u32)> + '_ {
        self.levels.iter().map(|(bucket, level)| {
            (*bucket, u32::try_from((level.highest + 999) / 1000).expect("small"))
        })
    }
}

impl Level {
    fn fall(&mut self, now: u64, extra: u64) {
        let passed = i128::from(now - self.at) + i128::from(extra);
        self.level = (self.level - passed * 1000 / i128::from(self.interval)).max(0);
        self.at = now;
    }
}
