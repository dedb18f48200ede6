//! What goes wrong in a run, and when.

use std::ops::Range;

pub(super) const MILLI: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scenario {
    Calm,
    Freezes,
    /// Short freezes, with hardly more time between them.
    BrownOuts,
    Restarts,
    Cuts,
    Partitions,
    Delays,
    Clocks,
    Moves,
    NamedTime,
    Everything,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server does nothing for a while, as a suspended process.
    Freeze { server: usize, time: u64 },
    /// The server is down for a while, and its connections break.
    Kill { server: usize, time: u64 },
    /// All connections break.
    Cut,
    /// Nothing gets through between one replica and the servers for a while.
    Partition { replica: usize, time: u64 },
    /// Each message takes up to that much longer for a while.
    Delay { most: u64, time: u64 },
    /// The server's clock is set forward or back by so many microseconds.
    Clock { server: usize, by: i64 },
    /// The buckets of a principal are migrated to another server, which takes a while.
    Move { principal: usize, to: usize, time: u64 },
}

impl Scenario {
    pub(super) fn servers(self) -> usize {
        if matches!(self, Self::Moves | Self::Everything) { 3 } else { 1 }
    }

    /// Whether there is a limit for everyone, which needs all buckets on one server.
    pub(super) fn counts_everyone(self) -> bool {
        self.servers() == 1
    }

    pub(super) fn names_time(self, random: &mut Random) -> bool {
        self == Self::NamedTime || (self == Self::Everything && random.below(4) == 0)
    }

    /// The next fault, and the time until it.
    pub(super) fn next(self, random: &mut Random, sizes: [usize; 3]) -> Option<(u64, Fault)> {
        let [servers, replicas, principals] = sizes;
        let kind = match self {
            Self::Calm | Self::NamedTime => return None,
            Self::Everything => {
                let all = [
                    Self::Freezes,
                    Self::Restarts,
                    Self::Cuts,
                    Self::Partitions,
                    Self::Delays,
                    Self::Clocks,
                    Self::Moves,
                ];
                all[random.index(all.len())]
            }
            one => one,
        };
        let (waits, times): (&[_], &[_]) = match kind {
            Self::BrownOuts => (
                &[600 * MILLI..800 * MILLI, 800 * MILLI..SECOND],
                &[50 * MILLI..100 * MILLI, 100 * MILLI..300 * MILLI],
            ),
            _ => (
                &[20 * MILLI..300 * MILLI, 300 * MILLI..3 * SECOND],
                &[20 * MILLI..60 * MILLI, 60 * MILLI..400 * MILLI, 400 * MILLI..4 * SECOND],
            ),
        };
        let wait = random.any(waits);
        let server = random.index(servers);
        let time = random.any(times);
        let fault = match kind {
            Self::Freezes | Self::BrownOuts => Fault::Freeze { server, time },
            Self::Restarts => Fault::Kill { server, time },
            Self::Cuts => Fault::Cut,
            Self::Partitions => Fault::Partition { replica: random.index(replicas), time },
            Self::Delays => Fault::Delay { most: random.in_range(MILLI..60 * MILLI), time },
            Self::Clocks => {
                let most = [1000, 1_000_000, 3_600_000_000][random.index(3)];
                let by = i64::try_from(random.below(most)).expect("small");
                Fault::Clock { server, by: if random.below(2) == 0 { by } else { -by } }
            }
            _ => Fault::Move { principal: random.index(principals), to: server, time },
        };
        Some((wait, fault))
    }
}

/// Pseudo-random numbers, by `SplitMix64`.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("it is below a usize")
    }

    pub(super) fn in_range(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    pub(super) fn any(&mut self, ranges: &[Range<u64>]) -> u64 {
        let index = self.index(ranges.len());
        self.in_range(ranges[index].clone())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).expect("32 bits")
    }
}
