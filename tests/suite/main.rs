//! What the library promises, in its users' terms.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod support;

mod identity;
mod model;
mod policy;
mod store;
mod threads;
mod vectors;
mod wire;
