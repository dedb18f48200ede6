//! Outages, and what is measured in them. The tests run short ones, and the benchmark `outages`
//! runs long ones.

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
