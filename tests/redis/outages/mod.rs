//! Outages and what is measured in them: shared by tests, for a moment, and by the benchmark
//! `outages`, at full length.

use bolna_rate_limit::store::RedisStoreBuilder;

pub(crate) mod clock;
pub(crate) mod connections;
pub(crate) mod faults;
mod level;
pub(crate) mod queues;
pub(crate) mod replica;
pub(crate) mod replicas;
mod traffic;

/// Sets up a store on the server with that address.
pub(crate) type Build = fn(&str) -> RedisStoreBuilder;
