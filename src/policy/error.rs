//! What can be wrong with a policy.

use std::error::Error;
use std::fmt;

use crate::endpoint::Endpoint;
use crate::quota::QuotaError;

/// Why a policy can't be built: the value, the rule that it breaks, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// An endpoint's name can't stand in a header field.
    Name {
        /// The name.
        name: String,
    },
    /// Two endpoints have one name, or one has the name `default`.
    DuplicateEndpoint {
        /// The name.
        name: String,
    },
    /// A quota or an enforcement was set for an endpoint that the policy does not have.
    UnknownEndpoint {
        /// The name.
        name: String,
    },
    /// An endpoint has no paths, so its quota would never be used.
    NoPaths {
        /// The name.
        name: String,
    },
    /// A quota makes no sense.
    Quota {
        /// The endpoint that it was meant for.
        endpoint: Endpoint,
        /// What is wrong with it.
        reason: QuotaError,
    },
    /// A path template makes no sense, or matches what another one matches.
    Path {
        /// The template.
        path: String,
        /// The rule that it breaks.
        rule: String,
    },
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name } => {
                write!(
                    f,
                    "endpoint name {name:?}: a name is 1 to 64 characters of A-Z, a-z, 0-9, `_`, `.` and `-`, and one of \
                     at most {} in a process",
                    Endpoint::MOST,
                )
            }
            Self::DuplicateEndpoint { name } if name == Endpoint::DEFAULT.name() => {
                write!(
                    f,
                    "endpoint name {name:?}: it stands for everything else; use default_quota and default_paths"
                )
            }
            Self::DuplicateEndpoint { name } => {
                write!(
                    f,
                    "endpoint name {name:?}: it is taken; give one endpoint all of its paths at once"
                )
            }
            Self::UnknownEndpoint { name } => {
                write!(
                    f,
                    "endpoint name {name:?}: there is no such endpoint to change; add it with endpoint first"
                )
            }
            Self::NoPaths { name } => {
                write!(f, "endpoint {name:?}: it has no paths, so nothing would draw on its quota")
            }
            Self::Quota { endpoint, reason } => {
                write!(f, "quota of endpoint {:?}: {reason}", endpoint.name())
            }
            Self::Path { path, rule } => write!(f, "path {path:?}: {rule}"),
        }
    }
}

// Without sources: each message holds its reason.
impl Error for PolicyError {}
