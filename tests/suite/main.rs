//! What the library promises, in the terms of its users.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "../bucket/mod.rs"]
mod bucket;
#[path = "../vectors/mod.rs"]
mod read;
mod support;

mod accounts;
mod blocks;
mod breaker;
mod candidate;
mod cap;
mod charges;
mod contract;
mod corrections;
mod decision;
mod deferred;
mod denials;
mod diagnoses;
mod enforcement;
mod fallback;
mod grants;
mod grpc;
mod honest_paths;
mod identity;
mod in_flight;
mod limits;
mod live;
mod max_retry_after;
mod model;
mod most_refused;
mod observed;
mod observers;
mod operator;
mod pairings;
mod plans;
mod policy;
#[cfg(feature = "policy-file")]
mod policy_file;
mod proxy;
mod recorded_servers;
mod refused_bodies;
#[cfg(feature = "policy-file")]
mod reload;
mod reports;
mod shared_caches;
mod snapshots;
mod spellings;
mod stacks;
mod store;
mod submit;
mod tcp;
mod threads;
mod vectors;
mod wire;
