//! What happens to a request about which no limit can decide.

/// What happens to a request that has no account. Refused by default.
///
/// ```
/// use bolna_rate_limit::layer::OnUnidentified;
/// use bolna_rate_limit::{BolnaRateLimitLayer, Policy, Quota};
///
/// // Visitors are served without an account, but only 30 requests a minute of each address, once
/// // the layer knows addresses: see `client_address`.
/// let policy = Policy::bolna().unidentified_quota(Quota::per_minute(30)).build()?;
/// let layer = BolnaRateLimitLayer::with_policy(policy).on_unidentified(OnUnidentified::Admit);
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
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
///
/// ```
/// use bolna_rate_limit::layer::OnStoreFailure;
/// use bolna_rate_limit::store::{AnyStore, Breaker};
/// use bolna_rate_limit::{BolnaRateLimitLayer, Limiter, Policy, PolicyError};
///
/// // A failure of the store stops no calls. (Around the store, a `LocalFallback` would go on to
/// // limit them.)
/// fn layer(store: AnyStore) -> Result<BolnaRateLimitLayer<Breaker<AnyStore>>, PolicyError> {
///     let limiter = Limiter::with_store(Policy::default(), Breaker::new(store))?;
///     Ok(BolnaRateLimitLayer::with_limiter(limiter).on_store_failure(OnStoreFailure::Admit))
/// }
/// # layer(bolna_rate_limit::store::MemoryStore::new().into())?;
/// # Ok::<(), PolicyError>(())
/// ```
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
