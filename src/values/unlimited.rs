//! What happens to a request about which no limit can decide.

/// What happens to a request that has no account. Refused by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OnUnidentified {
    /// The request is refused.
    #[default]
    Refuse,
    /// The request is admitted and not counted: a caller that leaves its credentials out has no
    /// limit.
    Admit,
}

/// What happens to a request when the store fails. Refused by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OnStoreFailure {
    /// The request is refused.
    #[default]
    Refuse,
    /// The request is admitted and not counted: while the store fails, callers have no limit.
    Admit,
}
