//! The errors of building a policy.

use std::error::Error;
use std::fmt;

use super::builder::UNIDENTIFIED;
use super::path::TemplateError;
use crate::values::{Endpoint, Excerpt, NameError, QuotaError};

/// Why a policy can't be built. `Display` says in one line which value is wrong, where it is, which
/// rule it breaks, and what to do. Of each value it shows at most the first 100 characters.
///
/// ```
/// use bolna_rate_limit::policy::PathList;
/// use bolna_rate_limit::{Policy, PolicyError, Quota};
///
/// let paths = ["/search", "/find/:term"];
/// let policy = Policy::builder().endpoint("search", Quota::per_minute(60), paths);
/// let error = policy.build().unwrap_err();
/// let text = "path \"/find/:term\" of endpoint \"search\": a parameter is a whole segment and is \
///             written `{name}`, and the rest of a path `{*name}`";
/// assert_eq!(error.to_string(), text);
/// // In a form, the entry that is wrong:
/// if let PolicyError::Path { list: PathList::Endpoint(name), index, .. } = error {
///     assert_eq!((name.as_str(), index), ("search", 1));
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// The name of an endpoint is not valid, or would be one more than the process can have.
    #[non_exhaustive]
    Name {
        /// Which name it is, and what is wrong with it.
        reason: NameError,
    },
    /// The name of a limit that is not an endpoint's own is not valid, or would be one more than
    /// the process can have.
    #[non_exhaustive]
    LimitName {
        /// Which name it is, and what is wrong with it.
        reason: NameError,
    },
    /// Two endpoints have the same name, or one has the name `default`.
    #[non_exhaustive]
    DuplicateEndpoint {
        /// The name.
        name: String,
    },
    /// A limit has the name of another limit or of an endpoint.
    #[non_exhaustive]
    DuplicateLimit {
        /// The name.
        name: String,
    },
    /// An endpoint has more than four limits.
    #[non_exhaustive]
    TooManyLimits {
        /// The name of the endpoint.
        endpoint: String,
        /// How many limits it has.
        count: usize,
    },
    /// A limit that is to be shared by endpoints names none, so it would never apply.
    #[non_exhaustive]
    UnusedLimit {
        /// The name of the limit.
        name: String,
    },
    /// The cost of a limit is 0, or more than its bucket can hold.
    #[non_exhaustive]
    Cost {
        /// The name of the limit.
        limit: String,
        /// The cost.
        cost: u32,
        /// The most units that the bucket can hold, or the most requests in flight.
        burst: u32,
        /// Whether the limit is of [requests in flight](crate::Quota::concurrent).
        concurrent: bool,
    },
    /// The share of a quota that a user may spend is not from 1 to 100 percent.
    #[non_exhaustive]
    Share {
        /// The name of the endpoint.
        endpoint: String,
        /// The share, in percent.
        percent: u8,
    },
    /// A setting is for an endpoint or a limit that the policy does not have.
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
        /// The name of the limit that has the quota: an endpoint's, or that of a further limit.
        limit: String,
        /// What is wrong with it.
        reason: QuotaError,
    },
    /// An endpoint's own limit, or that of unidentified requests, limits requests in flight. It
    /// must be a rate.
    #[non_exhaustive]
    Concurrent {
        /// The name of the limit.
        limit: String,
    },
    /// The store can't do what a limit asks for.
    #[non_exhaustive]
    Unsupported {
        /// The name of the limit.
        limit: String,
        /// What the limit asks for, and what the store can't do.
        reason: String,
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
    /// Literals and parameters alternate in the path templates in too many ways, as in
    /// `/a/{x}/{y}/...`, `/{x}/a/{y}/...` and so on. Use fewer templates with several parameters.
    TooManyOverlaps,
}

/// A list of path templates of a policy.
///
/// The [example of `PolicyError`](PolicyError) matches it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PathList {
    /// The templates of the endpoint with that name.
    Endpoint(String),
    /// The templates of exempt paths.
    Exempt,
    /// The prefixes that the application strips.
    Prefix,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { reason } => write!(f, "endpoint {reason}"),
            Self::LimitName { reason } => write!(f, "limit {reason}"),
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
                "name {:?}: there is no such endpoint or limit to change; add it with \
                 `endpoint(...)` or `also(...)` first",
                Excerpt::of(name)
            ),
            Self::DuplicateLimit { name } => write!(
                f,
                "limit name {:?}: it is taken by another limit or an endpoint; each limit has a \
                 name of its own, and one of several endpoints is declared once",
                Excerpt::of(name)
            ),
            Self::TooManyLimits { endpoint, count } => write!(
                f,
                "endpoint {:?}: it has {count} limits, its own and shared ones included; at most \
                 4 are allowed",
                Excerpt::of(endpoint)
            ),
            Self::UnusedLimit { name } => write!(
                f,
                "limit {:?}: it names no endpoint, so it would never apply",
                Excerpt::of(name)
            ),
            Self::Cost { limit, cost, burst, concurrent: false } => write!(
                f,
                "cost of limit {:?}: it is {cost}, and must be from 1 to the burst, {burst}, since \
                 the bucket never holds more units",
                Excerpt::of(limit)
            ),
            Self::Cost { limit, cost, burst, concurrent: true } => write!(
                f,
                "cost of limit {:?}: it is {cost}, and must be from 1 to {burst}, the most \
                 requests that it allows in flight",
                Excerpt::of(limit)
            ),
            Self::Share { endpoint, percent } => write!(
                f,
                "user share of endpoint {:?}: it is {percent}, and must be from 1 to 100 percent",
                Excerpt::of(endpoint)
            ),
            Self::NoPaths { name } => write!(
                f,
                "endpoint {:?}: it has no paths, so its quota would never apply",
                Excerpt::of(name)
            ),
            Self::Unsupported { limit, reason } => {
                write!(f, "limit {:?}: it {reason}", Excerpt::of(limit))
            }
            Self::Quota { limit, reason } => {
                write!(f, "quota of {:?}: {reason}", Excerpt::of(limit))
            }
            Self::Concurrent { limit } => {
                let too = "; to limit requests in flight too, add `concurrent(...)` or `also(...)`";
                let too = if limit == UNIDENTIFIED { "" } else { too };
                write!(
                    f,
                    "quota of {:?}: it limits requests in flight, and must be a rate, such as 500 \
                     a minute{too}",
                    Excerpt::of(limit)
                )
            }
            Self::Path { path, list: PathList::Endpoint(endpoint), reason, .. } => {
                let (path, endpoint) = (Excerpt::of(path), Excerpt::of(endpoint));
                write!(f, "path {path:?} of endpoint {endpoint:?}: {reason}")
            }
            Self::Path { path, list: PathList::Exempt, reason, .. } => {
                write!(f, "exempt path {:?}: {reason}", Excerpt::of(path))
            }
            Self::Path { path, list: PathList::Prefix, reason, .. } => {
                write!(f, "stripped prefix {:?}: {reason}", Excerpt::of(path))
            }
            Self::TooManyOverlaps => f.write_str(
                "the path templates: literals and parameters alternate in them in too many ways; \
                 use fewer templates with several parameters, and no stripped prefix with a \
                 parameter before hundreds of templates",
            ),
        }
    }
}

// It has no source, because each message contains its reason.
impl Error for PolicyError {}
