//! What can be wrong with a policy.

use std::error::Error;
use std::fmt;

use super::path::TemplateError;
use crate::values::{Endpoint, NameError, QuotaError};

/// Why a policy can't be built: the value, where it is, the rule that it breaks, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// A text can't be the name of an endpoint.
    #[non_exhaustive]
    Name {
        /// The name, and what is wrong with it.
        reason: NameError,
    },
    /// Two endpoints have one name, or one has the name `default`.
    #[non_exhaustive]
    DuplicateEndpoint {
        /// The name.
        name: String,
    },
    /// A setting is for an endpoint that the policy does not have.
    #[non_exhaustive]
    UnknownEndpoint {
        /// The name.
        name: String,
    },
    /// An endpoint has no paths, so its quota would never be used.
    #[non_exhaustive]
    NoPaths {
        /// The name.
        name: String,
    },
    /// A quota makes no sense.
    #[non_exhaustive]
    Quota {
        /// The endpoint that it was meant for.
        endpoint: Endpoint,
        /// What is wrong with it.
        reason: QuotaError,
    },
    /// A path template makes no sense, or matches what another one matches.
    #[non_exhaustive]
    Path {
        /// The template.
        path: String,
        /// The list that it is in.
        list: PathList,
        /// Its place in the list, from 0.
        index: usize,
        /// What is wrong with it.
        reason: TemplateError,
    },
}

/// A list of path templates of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PathList {
    /// Those of an endpoint.
    Endpoint(Endpoint),
    /// Those that are exempt.
    Exempt,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { reason } => write!(f, "endpoint {reason}"),
            Self::DuplicateEndpoint { name } if name == Endpoint::DEFAULT.name() => write!(
                f,
                "endpoint name {name:?}: it stands for everything else; use default_quota and \
                 default_paths"
            ),
            Self::DuplicateEndpoint { name } => write!(
                f,
                "endpoint name {name:?}: it is taken; give one endpoint all of its paths at once"
            ),
            Self::UnknownEndpoint { name } => write!(
                f,
                "endpoint name {name:?}: there is no such endpoint to change; add it with endpoint \
                 first"
            ),
            Self::NoPaths { name } => {
                write!(f, "endpoint {name:?}: it has no paths, so nothing would draw on its quota")
            }
            Self::Quota { endpoint, reason } => {
                write!(f, "quota of endpoint {:?}: {reason}", endpoint.name())
            }
            Self::Path { path, reason, .. } => write!(f, "path {path:?}: {reason}"),
        }
    }
}

// Without sources: each message holds its reason.
impl Error for PolicyError {}
