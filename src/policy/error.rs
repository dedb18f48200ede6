//! The errors of building a policy.

use std::error::Error;
use std::fmt;

use super::path::TemplateError;
use crate::values::{Endpoint, Excerpt, NameError, QuotaError};

/// Why a policy can't be built. `Display` says in one line which value is wrong, where it is, which
/// rule it breaks, and what to do. Of each value it shows at most the first 100 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// The name of an endpoint is not valid, or would be one more than the process can have.
    #[non_exhaustive]
    Name {
        /// Which name it is, and what is wrong with it.
        reason: NameError,
    },
    /// Two endpoints have the same name, or one has the name `default`.
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
    /// An endpoint has no paths, so its quota would never apply.
    #[non_exhaustive]
    NoPaths {
        /// The name.
        name: String,
    },
    /// A quota is not valid.
    #[non_exhaustive]
    Quota {
        /// The name of the endpoint that the quota is for.
        endpoint: String,
        /// What is wrong with it.
        reason: QuotaError,
    },
    /// A path template is not valid, or matches the same paths as another one.
    #[non_exhaustive]
    Path {
        /// The template.
        path: String,
        /// The list that it is in.
        list: PathList,
        /// The place of the template in that list, from 0.
        index: usize,
        /// What is wrong with it.
        reason: TemplateError,
    },
}

/// A list of path templates of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PathList {
    /// The templates of the endpoint with that name.
    Endpoint(String),
    /// The templates of exempt paths.
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
                "endpoint name {:?}: it is taken; give one endpoint all of its paths at once",
                Excerpt::of(name)
            ),
            Self::UnknownEndpoint { name } => write!(
                f,
                "endpoint name {:?}: there is no such endpoint to change; add it with \
                 `endpoint(...)` first",
                Excerpt::of(name)
            ),
            Self::NoPaths { name } => write!(
                f,
                "endpoint {:?}: it has no paths, so its quota would never apply",
                Excerpt::of(name)
            ),
            Self::Quota { endpoint, reason } => {
                write!(f, "quota of endpoint {:?}: {reason}", Excerpt::of(endpoint))
            }
            Self::Path { path, list: PathList::Endpoint(endpoint), reason, .. } => {
                let (path, endpoint) = (Excerpt::of(path), Excerpt::of(endpoint));
                write!(f, "path {path:?} of endpoint {endpoint:?}: {reason}")
            }
            Self::Path { path, list: PathList::Exempt, reason, .. } => {
                write!(f, "exempt path {:?}: {reason}", Excerpt::of(path))
            }
        }
    }
}

// It has no source, because each message contains its reason.
impl Error for PolicyError {}
