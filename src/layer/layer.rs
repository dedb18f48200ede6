use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use tower_layer::Layer;

use super::config::Config;
use super::identify::{ByClosure, Identify, IntoAccount};
use super::response::{Dialect, LegacyReset, Refusal};
use super::service::BolnaRateLimit;
use crate::limiter::Limiter;
use crate::policy::Policy;
use crate::store::MemoryStore;
use crate::values::{Enforcement, OnStoreFailure, OnUnidentified};

/// Limits the requests to the services that it wraps. See the [crate's documentation](crate).
///
/// Clones, and all services made from them, share one limiter: wherever they stand, they count
/// together. The setters below change this layer only. What several layers may share, the policy,
/// enforcement and observers, is set on the [`Limiter`].
///
/// ```
/// use bolna_rate_limit::{BolnaRateLimitLayer, LegacyReset, Policy};
///
/// let policy = Policy::bolna().exempt(["/healthz"]).build()?;
/// let layer = BolnaRateLimitLayer::with_policy(policy)
///     .legacy_headers(LegacyReset::DeltaSeconds)
///     .retry_after_ms();
/// # Ok::<(), bolna_rate_limit::PolicyError>(())
/// ```
#[must_use = "a layer does nothing until a service is wrapped in it"]
pub struct BolnaRateLimitLayer<St = MemoryStore> {
    config: Arc<Config<St>>,
}

impl BolnaRateLimitLayer {
    /// Bolna's documented limits, counted in this process.
    pub fn new() -> Self {
        Self::with_policy(Policy::default())
    }

    /// Other limits, counted in this process.
    pub fn with_policy(policy: Policy) -> Self {
        Self::with_limiter(Limiter::new(policy))
    }
}

impl<St> BolnaRateLimitLayer<St> {
    /// Limits by that limiter, which may be in use elsewhere.
    pub fn with_limiter(limiter: Limiter<St>) -> Self {
        Self { config: Arc::new(Config::new(limiter)) }
    }

    /// The limiter: to look at buckets and to change limits while requests run.
    #[must_use]
    pub fn limiter(&self) -> &Limiter<St> {
        &self.config.limiter
    }

    /// Finds out who is calling from the head of each request, instead of from an
    /// [`Account`](crate::Account) in its extensions.
    ///
    /// The closure returns an `Account`, a [`Principal`](crate::Principal), or an `Option` of
    /// either. It runs on the request path and must not block: see [`Identify`] for what to do
    /// when a look-up is needed.
    ///
    /// ```
    /// use bolna_rate_limit::{Account, BolnaRateLimitLayer};
    ///
    /// #[derive(Clone)]
    /// struct Claims { user: u64, organization: Option<u64> }
    ///
    /// let layer = BolnaRateLimitLayer::new().identify(|head| {
    ///     let claims = head.extensions.get::<Claims>()?;
    ///     Some(Account::user(claims.user).in_organization(claims.organization))
    /// });
    /// ```
    pub fn identify<F, R>(self, identify: F) -> Self
    where
        F: Fn(&Parts) -> R + Send + Sync + 'static,
        R: IntoAccount,
    {
        self.identify_with(ByClosure(identify))
    }

    /// The same by a type that implements [`Identify`].
    pub fn identify_with(self, identify: impl Identify) -> Self {
        self.with(|config| config.identify = Some(Arc::new(identify)))
    }

    /// What becomes of a request that has no account. By default it is refused with 401.
    /// Enforcement has no part in it: it is about limits.
    pub fn on_unidentified(self, what: OnUnidentified) -> Self {
        self.with(|config| config.terms.on_unidentified = what)
    }

    /// What becomes of a request when the store can't be asked. By default it is refused with 503.
    pub fn on_store_failure(self, what: OnStoreFailure) -> Self {
        self.with(|config| config.terms.on_store_failure = what)
    }

    /// The form of the `RateLimit` and `RateLimit-Policy` header fields. By default the newest
    /// draft's.
    pub fn dialect(self, dialect: Dialect) -> Self {
        self.with(|config| config.format.dialect = dialect)
    }

    /// Sends `X-RateLimit-Limit`, `-Remaining` and `-Reset` as well, for clients that know nothing
    /// newer. Off by default.
    ///
    /// The limit that they tell is the burst, of which the rest is what remains. A browser sees
    /// them only if CORS exposes them.
    pub fn legacy_headers(self, reset: LegacyReset) -> Self {
        self.with(|config| config.format.legacy = Some(reset))
    }

    /// Sends `retry-after-ms` with refusals as well: the wait in milliseconds, rounded up, for
    /// clients that read it (the `OpenAI` and `Anthropic` SDKs do). Off by default. A browser
    /// sees it only if CORS exposes it.
    pub fn retry_after_ms(self) -> Self {
        self.with(|config| config.format.retry_after_ms = true)
    }

    /// Renders refusals in another way than as `application/problem+json`.
    ///
    /// What the renderer makes is completed: `Cache-Control` and, on 429, `Retry-After` are added
    /// unless it has set them, the `RateLimit` fields are appended, and a HEAD request gets no
    /// content.
    ///
    /// ```
    /// use bolna_rate_limit::{BolnaRateLimitLayer, layer::Reason};
    /// use bytes::Bytes;
    /// use http::Response;
    ///
    /// let layer = BolnaRateLimitLayer::new().render_refusals(|refusal| match refusal.reason() {
    ///     Reason::Limited(_) => {
    ///         let mut response = Response::new(Bytes::from_static(b"slow down\n"));
    ///         *response.status_mut() = refusal.status();
    ///         response
    ///     }
    ///     _ => refusal.problem(),
    /// });
    /// ```
    pub fn render_refusals<F>(self, render: F) -> Self
    where
        F: Fn(&Refusal<'_>) -> Response<Bytes> + Send + Sync + 'static,
    {
        self.with(|config| config.renderer = Some(Arc::new(render)))
    }

    /// On which principals this layer enforces limits. By default on all. It is a setting of this
    /// layer only: another one on the same limiter is not affected. Where the limiter, the policy
    /// or the endpoint has a setting of its own, the least of them counts.
    ///
    /// To change enforcement under load, for all layers, set it on the limiter:
    ///
    /// ```
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Enforcement};
    ///
    /// let layer = BolnaRateLimitLayer::new();
    /// layer.limiter().set_enforcement(Enforcement::SHADOW);
    /// // A week later, on every fourth principal:
    /// layer.limiter().set_enforcement(Enforcement::percent(25));
    ///
    /// // A second layer that refuses none, and counts in the same buckets:
    /// let shadow = BolnaRateLimitLayer::with_limiter(layer.limiter().clone())
    ///     .enforcement(Enforcement::SHADOW);
    /// ```
    pub fn enforcement(self, enforcement: Enforcement) -> Self {
        self.with(|config| config.terms.enforcement = enforcement)
    }

    /// Sends the `RateLimit` fields also where the limit is not enforced, so that callers can adapt
    /// to it before it is. Off by default: such responses carry no fields.
    pub fn fields_in_shadow(self) -> Self {
        self.with(|config| config.fields_in_shadow = true)
    }

    /// Leaves the [`Ruling`](crate::values::Ruling) in the extensions of each request that is
    /// admitted, for the handler: how much is left, and in shadow mode whether the request would
    /// have been refused. Off by default, since it is an allocation for each request. There is none
    /// for exempt paths, for unidentified requests, nor where the store could not be asked.
    pub fn ruling_in_extensions(self) -> Self {
        self.with(|config| config.ruling_in_extensions = true)
    }

    fn with(mut self, change: impl FnOnce(&mut Config<St>)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl<S, St> Layer<S> for BolnaRateLimitLayer<St> {
    type Service = BolnaRateLimit<S, St>;

    fn layer(&self, inner: S) -> Self::Service {
        BolnaRateLimit::new(inner, Arc::clone(&self.config))
    }
}

impl<St> Clone for BolnaRateLimitLayer<St> {
    fn clone(&self) -> Self {
        Self { config: Arc::clone(&self.config) }
    }
}

impl Default for BolnaRateLimitLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<St: fmt::Debug> fmt::Debug for BolnaRateLimitLayer<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BolnaRateLimitLayer").field("config", &self.config).finish()
    }
}
