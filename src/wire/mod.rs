//! What goes over the wire: the header fields of every counted response, and refusals.

mod fields;
mod problem;
mod refusal;

pub use fields::{Dialect, LegacyReset};
pub(crate) use fields::{Fields, Format, Rendered};
pub(crate) use refusal::{Cause, Renderer};
pub use refusal::{Reason, Refusal};
