//! What becomes of a request about which no limit can decide.

/// What becomes of a request that has no account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OnUnidentified {
    /// It is refused.
    #[default]
    Refuse,
    /// It goes on, uncounted: a caller that leaves its credentials out has no limit.
    Admit,
}

/// What becomes of a request when the store can't be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OnStoreFailure {
    /// It is refused.
    #[default]
    Refuse,
    /// It goes on, uncounted: while the store is lost, callers have no limit.
    Admit,
}
