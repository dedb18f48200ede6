//! The two bounds of what is admitted when a server is lost, held by replicas that are processes,
//! and what keeps a server from being lost for longer than it has to be.
//!
//! However often all replicas lose the server, no interval sees more than the limit, the burst and
//! one burst more. It is measured by the level of a bucket, which each admission raises and which
//! falls by the limit.

mod clock;
mod losses;
mod parts;
mod queue;
mod reconnect;
