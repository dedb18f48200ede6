//! What goes over the wire: the header fields of responses, and refusals.

mod cache;
mod fields;
mod problem;
mod refusal;

pub use fields::{Dialect, LegacyReset};
pub(super) use fields::{Fields, Format};
pub(super) use refusal::{Answer, Renderer};
pub use refusal::{Reason, Refusal};
