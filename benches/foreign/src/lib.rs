//! What the programs of this crate share: `job`, which makes calls through the client, and
//! `limiter`, a server with one of the limiters that are written in Rust. They are run by
//! `scripts/foreign-limiters`.

mod options;

pub use options::option;
