//! Servers with other limiters than this crate's, which are stricter than the client's policy and
//! say little about it.
//!
//! Time is virtual, and each server is exact: what a client does can be held against what one that
//! knows the server could do ([`least`]).
//!
//! `table` prints what each job costs.

mod algorithms;
mod dialects;
mod jobs;
mod laws;
mod least;
mod network;
mod promises;
mod report;
mod rows;
mod servers;
mod table;

use std::time::Duration;

/// Nanoseconds: a time, since 1970 or since the job began, or how long something takes.
type Nanos = u64;

const MILLISECOND: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MILLISECOND;

fn nanos(time: Duration) -> Nanos {
    time.as_nanos().try_into().expect("less than 500 years")
}
