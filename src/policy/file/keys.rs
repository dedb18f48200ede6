//! The keys that each table of a policy file may have.

/// The keys of the whole policy.
pub(super) const POLICY: &[&str] = &[
    "base",
    "enforce",
    "exempt",
    "stripped_prefixes",
    "ignored_spellings",
    "default",
    "endpoint",
    "shared",
    "unidentified",
];

/// The keys of the endpoint `default`.
pub(super) const DEFAULT: &[&str] =
    &["limit", "per", "burst", "cost", "enforce", "user_share", "concurrent", "paths", "also"];

/// The keys of every other endpoint.
pub(super) const ENDPOINT: &[&str] = &[
    "name",
    "limit",
    "per",
    "burst",
    "cost",
    "enforce",
    "user_share",
    "concurrent",
    "paths",
    "also",
];

/// The keys of a further limit of an endpoint.
pub(super) const ALSO: &[&str] =
    &["name", "scope", "limit", "per", "burst", "concurrent", "cost", "enforce"];

/// The keys of a limit that several endpoints share.
pub(super) const SHARED: &[&str] =
    &["name", "scope", "limit", "per", "burst", "concurrent", "cost", "enforce", "endpoints"];

/// The keys of the limit of requests without an account.
pub(super) const UNIDENTIFIED: &[&str] = &["limit", "per", "burst", "cost", "enforce"];
