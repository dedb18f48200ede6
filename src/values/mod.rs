//! Plain data: who is billed, for what, how much, and what was decided.
//!
//! * A [`Principal`] is who is billed: a [`Kind`] and an [`Id`].
//! * An [`Endpoint`] is a group of paths that are limited together.
//! * A [`Quota`] is a limit over a period, and a burst. A [`Limit`] is a quota with a name and a
//!   [`Scope`]: which requests it counts together.
//! * A [`Charge`] is what one request takes from its buckets, all or nothing; its [`Decisions`] are
//!   what becomes of it.
//! * A [`Decision`] is what a limit says about one request, and how much is left.
//! * A [`Ruling`] is what comes of the request: a decision, or the reason why there is none, and
//!   whether the request is admitted.
//! * [`Enforcement`] says on which principals limits are enforced.
//! * A [`Clock`](clock::Clock) tells a store in this process the time.
//!
//! Nothing here depends on policies, stores or HTTP. The types that nearly every program needs are
//! at the root of the crate as well. With the feature `serde` the values can be serialized, and all
//! but decisions and rulings can be read back.
//!
//! ```
//! use std::time::Duration;
//! use bolna_rate_limit::values::Limit;
//! use bolna_rate_limit::{Decision, Endpoint, Quota};
//!
//! let limit = Limit::new(Endpoint::CALL, Quota::per_minute(500).build()?);
//! // The bucket takes 12 s to be full again, so a hundred units of 120 ms are missing.
//! let decision = Decision::allowed(limit, Duration::from_secs(12));
//! assert_eq!(decision.remaining(), 400);
//! assert_eq!(decision.retry_after(), None);
//! # Ok::<(), bolna_rate_limit::values::QuotaError>(())
//! ```

pub mod clock;

mod charge;
mod costs;
mod decision;
mod endpoint;
mod enforcement;
mod excerpt;
mod fingerprint;
mod gcra;
mod limit;
mod names;
mod principal;
mod quota;
mod ruling;
#[cfg(feature = "serde")]
mod serde;
mod unlimited;

pub use charge::{Bucket, BucketState, Charge, ChargeError, ChargeOutcome, Decisions, Entry};
pub use costs::Costs;
pub use decision::Decision;
pub use endpoint::Endpoint;
pub use enforcement::{Enforcement, EnforcementError};
pub use limit::{Limit, LimitName, Scope};
pub use names::NameError;
pub use principal::{Displayed, EmptyId, Id, IntoId, Kind, Optional, Principal};
pub use quota::{Quota, QuotaBuilder, QuotaError};
pub use ruling::{Outcome, Ruling};
pub use unlimited::{OnStoreFailure, OnUnidentified};

pub(crate) use charge::{OwnedBucket, OwnedCharge};
pub(crate) use excerpt::Excerpt;
pub(crate) use fingerprint::{FingerprintKey, checksum};
pub(crate) use gcra::Rate;
pub(crate) use principal::IdText;
pub(crate) use ruling::Enforced;
