//! The networked store: all that does not depend on the server's protocol, and in `redis` the
//! protocol.

mod backoff;
mod batch;
mod call;
mod core;
mod corrections;
mod failure;
mod handle;
mod home;
mod pending;
mod redis;
mod replay;
mod request;
mod ring;
mod server_time;
mod settings;
#[cfg(test)]
mod simulation;
mod supervisor;
#[cfg(test)]
mod tests;
mod worker;

pub use redis::{
    Credentials, RedisCheck, RedisStore, RedisStoreBuilder, RedisStoreError, RedisStoreErrorKind,
};
