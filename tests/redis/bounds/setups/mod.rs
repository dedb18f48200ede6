//! What is set up both by tests, for a moment, and by the benchmark `outages`, at full length.

use bolna_rate_limit::store::RedisStoreBuilder;

pub(crate) mod clock;
pub(crate) mod connections;
pub(crate) mod faults;
pub(crate) mod queues;

/// Sets up a store on the server with that address.
pub(crate) type Build = fn(&str) -> RedisStoreBuilder;
