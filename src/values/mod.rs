//! Plain data: who is billed, for what, how much, and what was decided.
//!
//! Nothing here knows a policy, a store or HTTP. The names that nearly every program needs are at
//! the root of the crate as well.

pub mod clock;

mod decision;
mod endpoint;
mod enforcement;
mod gcra;
mod names;
mod principal;
mod quota;
mod ruling;
#[cfg(feature = "serde")]
mod serde;
mod unlimited;

pub use decision::Decision;
pub use endpoint::Endpoint;
pub use enforcement::Enforcement;
pub use names::NameError;
pub use principal::{Displayed, EmptyId, Id, IntoId, Kind, Optional, Principal};
pub use quota::{Quota, QuotaBuilder, QuotaError};
pub use ruling::{Outcome, Ruling};
pub use unlimited::{OnStoreFailure, OnUnidentified};

pub(crate) use gcra::Rate;
