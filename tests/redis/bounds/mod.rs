//! The two bounds of what is admitted when a server is lost, held by replicas that are processes.
//!
//! However often all replicas lose the server, no interval sees more than the limit, the burst and
//! one burst more. It is measured by the level of a bucket, which each admission raises and which
//! falls by the limit.

mod level;
pub(crate) mod replica;
pub(crate) mod replicas;
pub(crate) mod setups;
pub(crate) mod traffic;

mod clock;
mod losses;
mod queue;
mod reconnect;
