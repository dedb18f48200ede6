use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use tower_layer::Layer;

use super::gate::{Fallback, Gate};
use super::service::BolnaRateLimit;
use crate::identity::Identify;
use crate::limiter::Limiter;
use crate::policy::Policy;
use crate::store::MemoryStore;
use crate::wire::{Dialect, LegacyReset, Refusal};

/// Limits the requests to the services that it wraps. See the [crate's documentation](crate).
///
/// Clones, and all services made from them, share one limiter: wherever they stand, they count together.
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
    gate: Arc<Gate<St>>,
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
        Self { gate: Arc::new(Gate::new(limiter)) }
    }

    /// The limiter: to look at buckets and to change limits while requests run.
    #[must_use]
    pub fn limiter(&self) -> &Limiter<St> {
        &self.gate.limiter
    }

    /// Finds out in another way who pays: from a type of your own in the request's extensions. By default from an
    /// [`Account`](crate::Account).
    pub fn identify(self, identify: impl Identify) -> Self {
        self.with(|gate| gate.identify = Some(Arc::new(identify)))
    }

    /// What becomes of a request that nobody can be billed for. By default it is refused with 401.
    pub fn on_unidentified(self, fallback: Fallback) -> Self {
        self.with(|gate| gate.unidentified = fallback)
    }

    /// What becomes of a request when the store can't be asked. By default it is refused with 503.
    pub fn on_store_failure(self, fallback: Fallback) -> Self {
        self.with(|gate| gate.store_failed = fallback)
    }

    /// The form of the `RateLimit` and `RateLimit-Policy` header fields. By default the newest draft's.
    pub fn dialect(self, dialect: Dialect) -> Self {
        self.with(|gate| gate.format.dialect = dialect)
    }

    /// Sends `X-RateLimit-Limit`, `-Remaining` and `-Reset` as well, for clients that know nothing newer. Off by default.
    ///
    /// The limit that they tell is the burst, of which the rest is what remains. A browser sees them only if CORS exposes
    /// them.
    pub fn legacy_headers(self, reset: LegacyReset) -> Self {
        self.with(|gate| gate.format.legacy = Some(reset))
    }

    /// Sends `retry-after-ms` with refusals as well: the wait in milliseconds, rounded up, for clients that read it (the
    /// `OpenAI` and `Anthropic` SDKs do). Off by default. A browser sees it only if CORS exposes it.
    pub fn retry_after_ms(self) -> Self {
        self.with(|gate| gate.format.retry_after_ms = true)
    }

    /// Renders refusals in another way than as `application/problem+json`.
    ///
    /// What the renderer makes is completed: `Cache-Control` and, on 429, `Retry-After` are added unless it has set
    /// them, the `RateLimit` fields are appended, and a HEAD request gets no content.
    ///
    /// ```
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Reason, Refusal};
    /// use bytes::Bytes;
    /// use http::Response;
    ///
    /// let layer = BolnaRateLimitLayer::new().render_refusals(|refusal: &Refusal<'_>| match refusal.reason() {
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
        self.with(|gate| gate.renderer = Some(Arc::new(render)))
    }

    fn with(mut self, change: impl FnOnce(&mut Gate<St>)) -> Self {
        change(Arc::make_mut(&mut self.gate));
        self
    }
}

impl<S, St> Layer<S> for BolnaRateLimitLayer<St> {
    type Service = BolnaRateLimit<S, St>;

    fn layer(&self, inner: S) -> Self::Service {
        BolnaRateLimit::new(inner, Arc::clone(&self.gate))
    }
}

impl<St> Clone for BolnaRateLimitLayer<St> {
    fn clone(&self) -> Self {
        Self { gate: Arc::clone(&self.gate) }
    }
}

impl Default for BolnaRateLimitLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<St: fmt::Debug> fmt::Debug for BolnaRateLimitLayer<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BolnaRateLimitLayer").field("gate", &self.gate).finish()
    }
}
