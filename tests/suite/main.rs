//! What the library promises, in its users' terms.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "../vectors/mod.rs"]
mod read;
mod support;

mod blocks;
mod breaker;
mod cap;
mod contract;
mod deferred;
mod denials;
mod fallback;
mod grants;
mod identity;
mod model;
mod pairings;
mod policy;
#[cfg(feature = "policy-file")]
mod policy_file;
mod reports;
mod store;
mod tcp;
mod threads;
mod vectors;
mod wire;
