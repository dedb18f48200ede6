//! What each replica sends, and by which quotas it is limited.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bolna_rate_limit::{Policy, Quota};

pub(crate) const REPLICAS: u32 = 3;

/// The quotas, by the paths that they limit. One bucket refills within half a second, so that it
/// wastes units during most losses; the other one takes longer than most losses.
pub(crate) const QUOTAS: [(&str, Quota); 2] =
    [("/fast", quota(200, 1, 100)), ("/slow", quota(600, 60, 60))];

/// How the callers pause. Each of them has a bucket for each quota.
pub(crate) const CALLERS: [Caller; 3] = [Caller::Hammers, Caller::Surges, Caller::Spares];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Sends without a pause.
    Hammers,
    /// Sends without a pause for four tenths of a second, and then nothing until its fast bucket is
    /// full again. All replicas do so at the same time.
    Surges,
    /// Sends less than the limit, so that its bucket is nearly full when a loss begins, and as much
    /// as it can get every four seconds.
    Spares,
}

impl Caller {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hammers => "hammers",
            Self::Surges => "surges",
            Self::Spares => "spares",
        }
    }

    /// The time until the next request.
    pub(crate) fn pause(self) -> Duration {
        // The processes have no other clock in common.
        let millis = nanos_of_day() / 1_000_000;
        Duration::from_millis(match self {
            Self::Surges if millis % 2000 >= 400 => 2000 - millis % 2000,
            Self::Spares if millis % 4000 < 3000 => 100,
            _ => 1,
        })
    }
}

/// The time, by the clock that all processes of this machine share.
pub(crate) fn nanos_of_day() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

pub(crate) fn policy() -> Policy {
    let mut policy = Policy::builder();
    for (path, quota) in QUOTAS {
        policy = policy.endpoint(&path[1..], quota, [path]);
    }
    policy.build().unwrap()
}

const fn quota(limit: u32, seconds: u64, burst: u32) -> Quota {
    match Quota::per(limit, Duration::from_secs(seconds)).burst(burst).build() {
        Ok(quota) => quota,
        Err(_) => panic!("the quota is valid"),
    }
}
