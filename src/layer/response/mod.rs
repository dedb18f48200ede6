//! What goes over the wire: the header fields of responses, and refusals.

mod buffer;
mod cache;
mod fields;
mod grpc;
mod problem;
mod refusal;
mod shared_caches;
#[cfg(test)]
mod tests;

pub use fields::{Dialect, LegacyReset};
pub(super) use fields::{Fields, Format, Longest};
pub(super) use grpc::is_grpc;
pub use refusal::{Reason, Refusal};
pub(super) use refusal::{RefusalResponse, Renderer};
