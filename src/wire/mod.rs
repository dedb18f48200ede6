//! What goes over the wire: the header fields of every counted response, and refusals.

mod fields;
mod kept;
mod problem;
mod refusal;

pub use fields::{Dialect, LegacyReset};
pub(crate) use fields::{Fields, Format};
pub(crate) use kept::Kept;
pub(crate) use refusal::{Answer, Cause, Renderer};
pub use refusal::{Reason, Refusal};
