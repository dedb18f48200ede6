use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode, response};
use tower_layer::Layer;

use super::address::ClientAddress;
use super::after::Corrections;
use super::config::Config;
use super::cost::{CostOf, IntoCost};
use super::identify::{ByClosure, Identify, IntoAccount};
use super::refused_body::Timer;
use super::response::{Dialect, LegacyReset, Longest, Refusal};
use super::service::BolnaRateLimit;
use crate::limiter::Limiter;
use crate::policy::Policy;
use crate::store::MemoryStore;
use crate::values::{Enforcement, LimitName, OnStoreFailure, OnUnidentified};

/// The layer that limits the requests to a service. See the [crate's documentation](crate).
///
/// The clones of a layer, and all services made from them, share one [`Limiter`], and so count
/// together. The setters below change this layer only. The settings that all layers of a limiter
/// share are set on the limiter: the policy, enforcement and observers.
///
/// ```
/// use bolna_rate_limit::layer::LegacyReset;
/// use bolna_rate_limit::{BolnaRateLimitLayer, Policy};
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
    /// A layer with the limits that Bolna documents, counted in this process.
    pub fn new() -> Self {
        Self::with_policy(Policy::default())
    }

    /// A layer with that policy, counted in this process.
    pub fn with_policy(policy: Policy) -> Self {
        Self::with_limiter(Limiter::new(policy))
    }
}

impl<St> BolnaRateLimitLayer<St> {
    /// A layer around that limiter, which may also be used elsewhere.
    pub fn with_limiter(limiter: Limiter<St>) -> Self {
        Self { config: Arc::new(Config::new(limiter)) }
    }

    /// The limiter, for example to look at buckets or to change limits while requests run.
    #[must_use]
    pub fn limiter(&self) -> &Limiter<St> {
        &self.config.limiter
    }

    /// Finds the account of a request with a closure on the request's head. By default it is the
    /// [`Account`](crate::Account) in the request's extensions.
    ///
    /// The closure returns an `Account`, a [`Principal`](crate::Principal), or an `Option` of
    /// either: values, so an account in the extensions is `.cloned()`. It runs on the request path
    /// and must not block. See [`Identify`] for what to do if a look-up is needed.
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

    /// The same as [`identify`](Self::identify), with a type that implements [`Identify`].
    pub fn identify_with(self, identify: impl Identify) -> Self {
        self.with(|config| config.identify = Some(Arc::new(identify)))
    }

    /// Finds the network address of unidentified requests, by which they are limited if the policy
    /// has a [quota for them](crate::policy::PolicyBuilder::unidentified_quota). Without this, all
    /// unidentified requests share one bucket.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::ConnectInfo;
    /// use bolna_rate_limit::layer::ClientAddress;
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Policy, Quota};
    ///
    /// // At most 30 unidentified requests a minute of one address: keys can't be guessed.
    /// let policy = Policy::bolna().unidentified_quota(Quota::per_minute(30)).build()?;
    /// let layer = BolnaRateLimitLayer::with_policy(policy).client_address(
    ///     ClientAddress::of_peer(|head| {
    ///         head.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)
    ///     }),
    /// );
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    pub fn client_address(self, client: ClientAddress) -> Self {
        self.with(|config| config.client_address = Some(client))
    }

    /// Sets how many units of a limit a request costs, by a closure on the request's head. It
    /// replaces the cost in the policy. The closure returns a number of units, or an `Option` of
    /// one, where `None` is the policy's cost. 0 is treated as 1, so that no request is
    /// free by mistake.
    ///
    /// A request that costs more than the limit's burst can never be allowed: it is refused with
    /// [413](Self::too_costly_status), and the limiter reports an
    /// [advice](crate::observe::Advice::CostAboveBurst).
    ///
    /// The closure runs for each request, also to other endpoints, and must not block. To set the
    /// costs of several limits, call this several times. If the active policy does not have the
    /// limit, the observers that the limiter has by now get an advice
    /// ([BRL010](crate::observe::Advice::UnknownLimit)).
    ///
    /// ```
    /// use bolna_rate_limit::policy::LimitBuilder;
    /// use bolna_rate_limit::values::LimitName;
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Policy, Quota};
    ///
    /// // 500 requests and 10,000 rows a minute.
    /// let policy = Policy::bolna()
    ///     .also("executions", LimitBuilder::account("rows", Quota::per_minute(10_000)).cost(20))
    ///     .build()?;
    /// let layer = BolnaRateLimitLayer::with_policy(policy).cost(LimitName::new("rows")?, |head| {
    ///     // `?page_size=100`; the policy's cost is that of the default page.
    ///     let mut parameters = head.uri.query()?.split('&');
    ///     parameters.find_map(|it| it.strip_prefix("page_size="))?.parse::<u32>().ok()
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cost<F, C>(self, limit: impl Into<LimitName>, cost: F) -> Self
    where
        F: Fn(&Parts) -> C + Send + Sync + 'static,
        C: IntoCost,
    {
        let limit = limit.into();
        self.config.limiter.check_cost_of(limit);
        self.with(|config| config.costs.push(CostOf::new(limit, cost)))
    }

    /// Sets the status of a request that costs more than a limit can ever allow. Defaults to 413,
    /// Content Too Large. Waiting does not help, so it should be a status that clients do not
    /// retry.
    pub fn too_costly_status(self, status: StatusCode) -> Self {
        self.with(|config| config.too_costly = status)
    }

    /// Sets what happens to a request that has no account. By default it is refused with 401.
    /// Enforcement does not change this, because it is about limits.
    pub fn on_unidentified(self, what: OnUnidentified) -> Self {
        self.with(|config| config.terms.on_unidentified = what)
    }

    /// Sets what happens to a request when the store fails. By default it is refused with 503 and
    /// `Retry-After: 1`. Where the limit is not [enforced](Self::enforcement), the request is
    /// admitted.
    pub fn on_store_failure(self, what: OnStoreFailure) -> Self {
        self.with(|config| config.terms.on_store_failure = what)
    }

    /// Sets the form of the `RateLimit` and `RateLimit-Policy` header fields. Defaults to
    /// [`Dialect::Draft11`].
    pub fn dialect(self, dialect: Dialect) -> Self {
        self.with(|config| config.format.dialect = dialect)
    }

    /// Sends `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` as well, for
    /// clients that do not know the newer fields. Off by default.
    ///
    /// `X-RateLimit-Limit` is the burst, since `X-RateLimit-Remaining` is what is left of the
    /// burst. Scripts in a browser see these fields only if CORS exposes them.
    pub fn legacy_headers(self, reset: LegacyReset) -> Self {
        self.with(|config| config.format.special.get_or_insert_default().legacy = Some(reset))
    }

    /// Sets whether a response that a shared cache may store has the `RateLimit` fields and
    /// `X-RateLimit-*`. Defaults to `true`.
    ///
    /// A shared cache, such as a CDN or a proxy's, sends a stored response to other callers, with
    /// the figures of the caller that it was made for. With `false`, the layer leaves the figures
    /// out of a response of the inner service if a shared cache may store it by what it says itself
    /// (RFC 9111, section 3):
    ///
    /// * `Cache-Control` has neither `no-store` nor `private`, and has `public`, `s-maxage`, or a
    ///   `max-age`, `stale-while-revalidate` or `stale-if-error` other than 0. A `private` with
    ///   names of fields, such as `private="set-cookie"`, does not count, because a cache may store
    ///   the rest, nor does a `no-store` beside `must-understand`.
    /// * Or `Cache-Control` has none of `no-store`, `private`, `max-age` and `s-maxage`, and
    ///   `Expires` is in the future.
    /// * Or the same is true of a field for some caches only, whatever `Cache-Control` says:
    ///   `CDN-Cache-Control` or another name that ends in `-Cache-Control` (RFC 9213), or
    ///   `Surrogate-Control`.
    /// * Or it is a 304, whose fields are written into the stored response, and its `Cache-Control`
    ///   has neither `no-store` nor `private`.
    ///
    /// A response that says nothing about caching has its figures. If a cache of yours stores such
    /// responses by a rule of its own, let the service say `private` or `no-store`, or use
    /// [`Dialect::Off`].
    ///
    /// Refusals say `Cache-Control: no-store` and have all their fields. If a closure of
    /// [`render_refusals`](Self::render_refusals) sets another `Cache-Control` by which a shared
    /// cache may store the refusal, the figures are left out of it too. Fields that the inner
    /// service has set are left as they are.
    ///
    /// ```
    /// use bolna_rate_limit::BolnaRateLimitLayer;
    ///
    /// let layer = BolnaRateLimitLayer::new().fields_in_shared_caches(false);
    /// ```
    pub fn fields_in_shared_caches(self, sent: bool) -> Self {
        self.with(|config| config.format.special.get_or_insert_default().private = !sent)
    }

    /// Caps the wait that refusals name. By default they name the whole wait.
    ///
    /// Many clients wait for the whole `Retry-After` and show nothing meanwhile: for an hour after
    /// a [block](Limiter::block) of an hour, and up to a day with a limit by the day. With a cap
    /// they come back sooner, and find a block that was lifted early, a refund or a higher limit.
    /// If they are still limited, they are refused again, which costs no unit.
    ///
    /// The cap applies to `Retry-After`, `retry-after-ms`, gRPC's `grpc-retry-pushback-ms` and
    /// `RetryInfo`, and [`Refusal::wait`]. It is in whole seconds, rounded down, and at least 1 s.
    /// `RateLimit` and the `detail` of the refusal still say the whole wait, and
    /// `X-RateLimit-Reset` does not change. Where `Retry-After` and `RateLimit` differ, clients go
    /// by `Retry-After` (draft-ietf-httpapi-ratelimit-headers-11).
    ///
    /// ```
    /// use std::time::Duration;
    /// use bolna_rate_limit::BolnaRateLimitLayer;
    ///
    /// let layer = BolnaRateLimitLayer::new().max_retry_after(Duration::from_secs(60));
    /// ```
    pub fn max_retry_after(self, wait: Duration) -> Self {
        self.with(|config| config.format.longest = Longest::of(wait))
    }

    /// Sends `retry-after-ms` with 429 as well: the wait in milliseconds, rounded up and at least
    /// 1, for clients that read it, such as the SDKs of `OpenAI` and `Anthropic`. Off by default.
    /// Scripts in a browser see it only if CORS exposes it.
    pub fn retry_after_ms(self) -> Self {
        self.with(|config| config.format.retry_after_ms = true)
    }

    /// Renders refusals with a closure. By default they are `application/problem+json`. The body of
    /// the response is anything that [`Bytes`] can be made of: a `String`, a `Vec<u8>`, a
    /// `&'static str`. [`Refusal`] says what there is to tell.
    ///
    /// Requests of gRPC (`Content-Type: application/grpc`, and of gRPC-Web) are always refused in
    /// gRPC's own form: status 200 without content, and in the header `grpc-status`,
    /// `grpc-message`, `grpc-retry-pushback-ms` and a `RetryInfo` in `grpc-status-details-bin`. The
    /// code is `RESOURCE_EXHAUSTED`, `UNAUTHENTICATED` for an unidentified request, `UNAVAILABLE`
    /// if the store failed, or `INVALID_ARGUMENT` for a path that is too ambiguous.
    ///
    /// The layer completes the response of the closure:
    ///
    /// * It adds `Cache-Control: no-store` unless the field is set.
    /// * If the reason is a limit, it adds `Retry-After` and, if it is on, `retry-after-ms`, unless
    ///   they are set. Both are at most [`max_retry_after`](Self::max_retry_after). And it appends
    ///   the `RateLimit` fields.
    /// * If the request is unidentified, it adds `WWW-Authenticate` unless the field is set.
    /// * If the store failed, it adds `Retry-After: 1` unless the field is set.
    /// * If the method is HEAD, it removes the content.
    /// * If the request's body is not [read](Self::read_refused_bodies) to its end, it sets
    ///   `Connection: close`.
    ///
    /// ```
    /// use bolna_rate_limit::BolnaRateLimitLayer;
    /// use http::Response;
    ///
    /// let layer = BolnaRateLimitLayer::new().render_refusals(|refusal| {
    ///     let mut response = Response::new(format!("{}\n", refusal.detail()));
    ///     *response.status_mut() = refusal.status();
    ///     response
    /// });
    /// ```
    pub fn render_refusals<F, B>(self, render: F) -> Self
    where
        F: Fn(&Refusal<'_>) -> Response<B> + Send + Sync + 'static,
        B: Into<Bytes>,
    {
        let render = move |refusal: &Refusal<'_>| render(refusal).map(Into::into);
        self.with(|config| config.renderer = Some(Arc::new(render)))
    }

    /// Sets how many bytes of the body of a refused request are read, and dropped, before the
    /// refusal is sent. Defaults to 1 MiB. With 0 nothing is read, and every refusal of a request
    /// that has a body says `Connection: close`.
    ///
    /// This is done below HTTP/2 only, where a server can't end an upload without closing the
    /// connection: a client that is still sending would see a reset instead of the refusal. The
    /// inner service and its permit are released before the body is read. Once the body has ended,
    /// the connection goes on being used.
    ///
    /// If the body is longer, the refusal says `Connection: close`, and a client that sends its
    /// whole body before it reads may see a reset. If the length is known to be more, nothing is
    /// read, and the refusal is sent at once. The same is true if the client waits for
    /// `100 Continue` (RFC 9110, section 10.1.1): it does not send its body.
    ///
    /// A client that stops sending is waited for as long as the connection lasts, unless there is
    /// a [time limit](Self::read_refused_bodies_for). What is outside of this layer, such as a
    /// concurrency limit, is held meanwhile, by unidentified requests too.
    ///
    /// The refusal says what was decided before the body was read. So if that took long, less than
    /// the wait that it names would suffice.
    pub fn read_refused_bodies(self, most: u64) -> Self {
        self.with(|config| config.refused_bodies.most = most)
    }

    /// Sets for how long the body of a refused request is [read](Self::read_refused_bodies), by a
    /// timer of your runtime. By default there is no time limit, because the layer does not depend
    /// on a runtime.
    ///
    /// The closure makes the timer when the layer first has to wait for more of the body, once for
    /// each request. When the timer is over, the refusal is sent with `Connection: close`, however
    /// much has been read.
    ///
    /// ```
    /// use std::time::Duration;
    /// use bolna_rate_limit::BolnaRateLimitLayer;
    ///
    /// let layer = BolnaRateLimitLayer::new()
    ///     .read_refused_bodies_for(|| tokio::time::sleep(Duration::from_secs(10)));
    /// ```
    pub fn read_refused_bodies_for<F, T>(self, timer: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let timer = move || Box::pin(timer()) as Timer;
        self.with(|config| config.refused_bodies.timer = Some(Arc::new(timer)))
    }

    /// Sets on which principals this layer enforces limits. Defaults to all of them. Other layers
    /// on the same limiter are not affected. The limiter, the policy and a limit can have an
    /// enforcement of their own. The least of all these settings applies.
    ///
    /// To change enforcement for all layers while requests run, set it on the limiter:
    ///
    /// ```
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Enforcement};
    ///
    /// let layer = BolnaRateLimitLayer::new();
    /// layer.limiter().set_enforcement(Enforcement::SHADOW);
    /// // A week later, on every fourth principal:
    /// layer.limiter().set_enforcement(Enforcement::percent(25)?);
    ///
    /// // A second layer that charges the same buckets and never refuses a request for its limit:
    /// let shadow = BolnaRateLimitLayer::with_limiter(layer.limiter().clone())
    ///     .enforcement(Enforcement::SHADOW);
    /// # Ok::<(), bolna_rate_limit::values::EnforcementError>(())
    /// ```
    pub fn enforcement(self, enforcement: Enforcement) -> Self {
        self.with(|config| config.terms.enforcement = enforcement)
    }

    /// Sends the `RateLimit` fields also if the limit is not enforced on the principal, so that
    /// callers can adapt before it is. Off by default: such responses have no such fields.
    pub fn fields_in_shadow(self) -> Self {
        self.with(|config| config.fields_in_shadow = true)
    }

    /// Inserts the [`Ruling`](crate::Ruling) into the extensions of each admitted request. From it
    /// a handler learns how much is left, and in shadow mode whether the request is over the limit.
    /// Off by default, because it costs each request an allocation.
    ///
    /// There is a ruling only if a limit has decided. So there is none in the extensions of
    /// requests to exempt paths, of unidentified requests without a limit for addresses, of
    /// requests for which the store failed, and, in shadow mode, of those that cost more than a
    /// burst.
    ///
    /// ```
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Ruling};
    /// use http::Request;
    ///
    /// let layer = BolnaRateLimitLayer::new().ruling_in_extensions();
    ///
    /// // In a handler:
    /// fn units_left<B>(request: &Request<B>) -> Option<u32> {
    ///     let ruling = request.extensions().get::<Ruling>()?;
    ///     ruling.decision().map(|decision| decision.remaining())
    /// }
    /// ```
    pub fn ruling_in_extensions(self) -> Self {
        self.with(|config| config.ruling_in_extensions = true)
    }

    /// Inserts the [`Admission`](crate::limiter::Admission) into the extensions of each admitted
    /// request that was charged. With it a handler refunds or settles the request, also long after
    /// the response. Off by default, because it costs each request some allocations. A request that
    /// a limit of [requests in flight](crate::policy::PolicyBuilder::concurrent) counts has it in
    /// any case.
    ///
    /// ```
    /// use bolna_rate_limit::limiter::Admission;
    /// use bolna_rate_limit::BolnaRateLimitLayer;
    /// use http::Request;
    ///
    /// let layer = BolnaRateLimitLayer::new().admission_in_extensions();
    ///
    /// // In a handler, if there turns out to be nothing to do:
    /// fn is_free<B>(request: &Request<B>) {
    ///     if let Some(admission) = request.extensions().get::<Admission>() {
    ///         admission.refund();
    ///     }
    /// }
    /// ```
    pub fn admission_in_extensions(self) -> Self {
        self.with(|config| {
            config.admission_in_extensions = true;
            config.terms.corrects = true;
        })
    }

    /// Gives back all units that a request has paid, once, if a closure on the head of its response
    /// returns `true`. Call it several times to refund for several reasons.
    ///
    /// A refund can make a wait that another response has named too long, never too short. The
    /// fields of the response itself still say what was left before the refund. The closure does
    /// not see a gRPC status that is in the trailers, as it is if the response has a message.
    ///
    /// ```
    /// use bolna_rate_limit::BolnaRateLimitLayer;
    ///
    /// // Callers do not pay for our own failures, nor for requests that were shed.
    /// let layer = BolnaRateLimitLayer::new().refund_on(|head| head.status.is_server_error());
    /// ```
    ///
    /// To charge only failures, refund everything else. The example limits how often one address
    /// can guess API keys. Put this layer outside of authentication, where requests have no account
    /// yet and are charged to their address.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::ConnectInfo;
    /// use bolna_rate_limit::layer::{ClientAddress, Dialect, OnUnidentified};
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Policy, Quota};
    /// use http::StatusCode;
    ///
    /// // At most 100 failures of one address, and 10 a minute from then on.
    /// let quota = Quota::per_minute(10).burst(100);
    /// let policy = Policy::builder().unidentified_quota(quota).build()?;
    /// let guard = BolnaRateLimitLayer::with_policy(policy)
    ///     .client_address(ClientAddress::of_peer(|head| {
    ///         head.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)
    ///     }))
    ///     .on_unidentified(OnUnidentified::Admit)
    ///     .refund_on(|head| head.status != StatusCode::UNAUTHORIZED)
    ///     .dialect(Dialect::Off);
    /// # Ok::<(), bolna_rate_limit::PolicyError>(())
    /// ```
    ///
    /// Each request holds a unit until its response is there, so the burst must exceed the number
    /// of requests that one address has in flight. Above the limit, requests with a good key are
    /// refused too. The guard reports [BRL001](crate::observe::Advice::AllUnidentified) once;
    /// ignore it here.
    pub fn refund_on<F>(self, refund: F) -> Self
    where
        F: Fn(&response::Parts) -> bool + Send + Sync + 'static,
    {
        self.correct(|corrections| corrections.refund_on(refund))
    }

    /// Refunds a request if the inner service returns an error instead of a response, as Tower's
    /// timeout and load-shedding services do. Off by default.
    pub fn refund_errors(self) -> Self {
        self.correct(|corrections| corrections.refund_errors = true)
    }

    /// Refunds a request if the future of its response is dropped before the response is there: the
    /// client has disconnected, a timeout outside of this layer has passed, or the handler has
    /// panicked. Off by default: a client could disconnect on purpose, and get work done for
    /// nothing.
    ///
    /// A request that is dropped while the store decides gets nothing back: whether it was charged
    /// is not known.
    pub fn refund_dropped(self) -> Self {
        self.correct(|corrections| corrections.refund_dropped = true)
    }

    /// Sets how many units of a limit a request costs in the end, by a closure on the head of its
    /// response. When the request is admitted, it is charged an estimate: the policy's cost, or
    /// that of [`cost`](Self::cost). The closure returns a number of units, or an `Option` of one.
    /// Return `None` to leave the cost as it was charged, and 0 to give all units of the limit
    /// back.
    ///
    /// If the request costs more than the estimate, the rest is charged even if the bucket does not
    /// hold it. That overdraws the bucket by at most one burst, and later requests wait until it is
    /// repaid. So a request can cost at most one burst more than the estimate. If
    /// [`refund_on`](Self::refund_on) refunds the request, the closure is not called.
    ///
    /// ```
    /// use bolna_rate_limit::policy::LimitBuilder;
    /// use bolna_rate_limit::values::LimitName;
    /// use bolna_rate_limit::{BolnaRateLimitLayer, Policy, Quota};
    ///
    /// // 10,000 rows a minute. A request is estimated to read 20.
    /// let policy = Policy::bolna()
    ///     .also("executions", LimitBuilder::account("rows", Quota::per_minute(10_000)).cost(20))
    ///     .build()?;
    /// let layer = BolnaRateLimitLayer::with_policy(policy)
    ///     .settle(LimitName::new("rows")?, |head| {
    ///         head.headers.get("x-rows")?.to_str().ok()?.parse::<u32>().ok()
    ///     });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn settle<F, C>(self, limit: impl Into<LimitName>, cost: F) -> Self
    where
        F: Fn(&response::Parts) -> C + Send + Sync + 'static,
        C: IntoCost,
    {
        let limit = limit.into();
        self.config.limiter.check_cost_of(limit);
        self.correct(|corrections| corrections.settle(limit, cost))
    }

    /// Sets whether the layer limits requests at all. Defaults to `true`.
    ///
    /// With `false`, each request goes to the inner service, and each response comes back,
    /// unchanged. The layer does not identify, charge or refuse any request, adds no header field,
    /// and reports nothing to observers; so there is no [advice](crate::observe::Advice) about
    /// these requests either. Other layers with the same limiter are not affected. The layer has
    /// the same type either way, so the value can come from configuration:
    ///
    /// ```
    /// use bolna_rate_limit::BolnaRateLimitLayer;
    ///
    /// let enabled = std::env::var("RATE_LIMIT").map_or(true, |value| value != "off");
    /// let layer = BolnaRateLimitLayer::new().enabled(enabled);
    /// ```
    ///
    /// To charge and report requests without refusing any for its limit, set
    /// [`enforcement`](Self::enforcement) instead.
    ///
    /// Tower's `option_layer` can leave the layer out altogether. But then the responses must be of
    /// the same type with the layer and without it, and the layer changes the type of their bodies.
    /// A layer around it has to change it back. With axum:
    ///
    /// ```
    /// use axum::{Router, response::IntoResponse, routing::post};
    /// use bolna_rate_limit::BolnaRateLimitLayer;
    /// use tower::util::{MapResponseLayer, option_layer};
    ///
    /// # let enabled = true;
    /// // The first of the two is the outer one.
    /// let limit =
    ///     (MapResponseLayer::new(IntoResponse::into_response), BolnaRateLimitLayer::new());
    /// let app: Router = Router::new()
    ///     .route("/call", post(async || "calling"))
    ///     .layer(option_layer(enabled.then_some(limit)));
    /// ```
    pub fn enabled(self, enabled: bool) -> Self {
        self.with(|config| config.enabled = enabled)
    }

    fn correct(self, change: impl FnOnce(&mut Corrections)) -> Self {
        self.with(|config| {
            change(Arc::make_mut(config.corrections.get_or_insert_default()));
            config.terms.corrects = true;
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Config<St>)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

/// `S` must be `Clone`: after a refusal the service goes on with a new clone of it. A service that
/// is not `Clone` can be wrapped with `tower::buffer::BufferLayer` first.
impl<S: Clone, St> Layer<S> for BolnaRateLimitLayer<St> {
    type Service = BolnaRateLimit<S, St>;

    fn layer(&self, inner: S) -> Self::Service {
        BolnaRateLimit::new(inner, Config::clone(&self.config))
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
