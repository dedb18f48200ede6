//! A refusal does no harm to the next request, whatever else is in the stack: every service of
//! tower and tower-http that handles requests is tried around the layer and, if it is `Clone`,
//! inside of it.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bolna_rate_limit::{BolnaRateLimit, BolnaRateLimitLayer, Limiter};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tower::balance::p2c::Balance;
use tower::buffer::BufferLayer;
use tower::discover::ServiceList;
use tower::filter::{AsyncFilterLayer, FilterLayer};
use tower::hedge::{self, Hedge};
use tower::layer::layer_fn;
use tower::limit::{
    ConcurrencyLimit, ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer, RateLimitLayer,
};
use tower::load::{CompleteOnResponse, Constant, PeakEwma, PendingRequests};
use tower::load_shed::LoadShedLayer;
use tower::reconnect::Reconnect;
use tower::retry::{self, RetryLayer};
use tower::spawn_ready::SpawnReadyLayer;
use tower::steer::Steer;
use tower::timeout;
use tower::util::{
    AndThenLayer, BoxCloneService, BoxCloneSyncService, BoxService, Either, FutureService,
    MapErrLayer, MapFutureLayer, MapRequestLayer, MapResponseLayer, MapResultLayer, Optional,
    ThenLayer, UnsyncBoxService,
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_http::add_extension::AddExtensionLayer;
use tower_http::auth::{AddAuthorizationLayer, AsyncRequireAuthorizationLayer};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::csrf::CsrfLayer;
use tower_http::decompression::{DecompressionLayer, RequestDecompressionLayer};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::map_request_body::MapRequestBodyLayer;
use tower_http::map_response_body::MapResponseBodyLayer;
use tower_http::metrics::InFlightRequestsLayer;
use tower_http::normalize_path::NormalizePathLayer;
use tower_http::on_early_drop::OnEarlyDropLayer;
use tower_http::propagate_header::PropagateHeaderLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::sensitive_headers::{
    SetSensitiveHeadersLayer, SetSensitiveRequestHeadersLayer, SetSensitiveResponseHeadersLayer,
};
use tower_http::services::{Redirect, ServeDir, ServeFile};
use tower_http::set_header::request::{SetMultipleRequestHeadersLayer, SetRequestHeaderLayer};
use tower_http::set_header::response::{SetMultipleResponseHeadersLayer, SetResponseHeaderLayer};
use tower_http::set_header::{HeaderMetadata, MakeHeaderValue};
use tower_http::set_status::SetStatusLayer;
use tower_http::timeout::{
    RequestBodyDeadlineLayer, RequestBodyTimeoutLayer, ResponseBodyDeadlineLayer,
    ResponseBodyTimeoutLayer, TimeoutLayer,
};
use tower_http::trace::TraceLayer;
use tower_http::validate_request::ValidateRequestHeaderLayer;

use crate::deferred::{Answers, DeferredStore};
use crate::support::{call_by, one_call};

type Body = Full<Bytes>;
type Answer = Response<Body>;
type Limited = BolnaRateLimit<Inner, DeferredStore>;

/// The innermost service. It panics if it is called before it was polled ready, a service that is
/// ready holds one of the permits, and its clone is not ready.
type Inner = ConcurrencyLimit<Handler>;

/// Answers requests with any body.
#[derive(Clone, Debug)]
struct Handler;

impl<B> Service<Request<B>> for Handler {
    type Response = Answer;
    type Error = Infallible;
    type Future = Ready<Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::default()))
    }
}

const PERMITS: usize = 4;

fn inner() -> (Inner, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(PERMITS));
    (ConcurrencyLimit::with_semaphore(Handler, Arc::clone(&permits)), permits)
}

/// Sends requests to one service, which is polled ready before each. Some are admitted and some
/// refused, by a store that answers at once and then by one that answers later.
async fn goes_on<S, B>(mut service: S, limiter: &Limiter<DeferredStore>, permits: &Semaphore)
where
    S: Service<Request<Body>, Response = Response<B>, Error: Debug>,
{
    for answers in [Answers::DecisionAtOnce, Answers::Decision] {
        limiter.store().now_answers(answers);
        for (caller, refused) in
            [("a", false), ("a", true), ("a", true), ("b", false), ("b", true), ("c", false)]
        {
            let request = call_by("u", &format!("{caller}, {answers:?}")).map(|_| Body::default());
            let response = service.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!(response.status() == StatusCode::TOO_MANY_REQUESTS, refused);
            if refused {
                assert_eq!(permits.available_permits(), PERMITS, "all permits are given back");
            }
        }
    }
}

/// The service of that layer is the inner service of the rate limit.
async fn inside<L, B>(layer: L)
where
    L: Layer<Inner, Service: Service<Request<Body>, Response = Response<B>, Error: Debug> + Clone>,
{
    let (inner, permits) = inner();
    let limiter = DeferredStore::limiter(one_call());
    let limited = BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(layer.layer(inner));
    goes_on(limited, &limiter, &permits).await;
}

/// The service of that layer is around the rate limit.
async fn around<L, B>(layer: L)
where
    L: Layer<Limited, Service: Service<Request<Body>, Response = Response<B>, Error: Debug>>,
{
    let (inner, permits) = inner();
    let limiter = DeferredStore::limiter(one_call());
    let limited = BolnaRateLimitLayer::with_limiter(limiter.clone()).layer(inner);
    goes_on(layer.layer(limited), &limiter, &permits).await;
}

/// Retries nothing.
#[derive(Clone)]
struct Never;

impl<R, T, E> retry::Policy<R, T, E> for Never {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut R, _: &mut Result<T, E>) -> Option<Self::Future> {
        None
    }

    fn clone_request(&mut self, _: &R) -> Option<R> {
        None
    }
}

impl<R> hedge::Policy<R> for Never {
    fn clone_request(&self, _: &R) -> Option<R> {
        None
    }

    fn can_retry(&self, _: &R) -> bool {
        false
    }
}

fn left<S>(service: S) -> Either<S, S> {
    Either::Left(service)
}

fn first<R, S>(_: &R, _: &[S]) -> usize {
    0
}

fn headers<T>() -> Vec<HeaderMetadata<T>>
where
    HeaderValue: MakeHeaderValue<T>,
{
    vec![(NAME, VALUE).into()]
}

const LONG: Duration = Duration::from_secs(3600);
const NAME: HeaderName = HeaderName::from_static("x-name");
const VALUE: HeaderValue = HeaderValue::from_static("value");

macro_rules! tests {
    ($position:ident: $($service:ident: $layer:expr;)*) => {
        mod $position {
            use super::*;
            $(
                #[tokio::test]
                async fn $service() {
                    super::$position($layer).await;
                }
            )*
        }
    };
}

macro_rules! services {
    (both: {$($both:tt)*} inside: {$($inside:tt)*} around: {$($around:tt)*}) => {
        tests! { inside: $($both)* $($inside)* }
        tests! { around: $($both)* $($around)* }
    };
}

services! {
    both: {
        // tower
        and_then: AndThenLayer::new(|response| ready(Ok::<_, Infallible>(response)));
        async_filter: AsyncFilterLayer::new(|r: Request<Body>| ready(Ok::<_, BoxError>(r)));
        box_clone: layer_fn(BoxCloneService::<Request<Body>, _, _>::new);
        buffer: BufferLayer::<Request<Body>>::new(1);
        concurrency_limit: ConcurrencyLimitLayer::new(1);
        either: layer_fn(left);
        filter: FilterLayer::new(|request: Request<Body>| Ok::<_, BoxError>(request));
        future: layer_fn(|inner| FutureService::new(ready(Ok::<_, Infallible>(inner))));
        global_concurrency_limit: GlobalConcurrencyLimitLayer::new(1);
        load_shed: LoadShedLayer::new();
        map_err: MapErrLayer::new(|error: Infallible| error);
        map_future: MapFutureLayer::new(|future| future);
        map_request: MapRequestLayer::new(|request: Request<Body>| request);
        map_response: MapResponseLayer::new(|response| response);
        map_result: MapResultLayer::new(|result: Result<_, Infallible>| result);
        retry: RetryLayer::new(Never);
        steer: layer_fn(|inner| Steer::new([inner], first));
        then: ThenLayer::new(ready::<Result<_, Infallible>>);
        timeout: timeout::TimeoutLayer::new(LONG);
        // tower-http
        add_authorization: AddAuthorizationLayer::bearer("token");
        add_extension: AddExtensionLayer::new(());
        async_authorization: AsyncRequireAuthorizationLayer::new(|r: Request<Body>| ready(Ok(r)));
        catch_panic: CatchPanicLayer::new();
        compression: CompressionLayer::new();
        cors: CorsLayer::permissive();
        csrf: CsrfLayer::new();
        decompression: DecompressionLayer::new();
        follow_redirect: FollowRedirectLayer::new();
        in_flight_requests: InFlightRequestsLayer::pair().0;
        map_request_body: MapRequestBodyLayer::new(|body: Body| body);
        map_response_body: MapResponseBodyLayer::new(|body| body);
        normalize_path: NormalizePathLayer::trim_trailing_slash();
        on_early_drop: OnEarlyDropLayer::builder();
        propagate_header: PropagateHeaderLayer::new(NAME);
        propagate_request_id: PropagateRequestIdLayer::x_request_id();
        request_body_deadline: RequestBodyDeadlineLayer::new(LONG);
        request_body_limit: RequestBodyLimitLayer::new(1);
        request_body_timeout: RequestBodyTimeoutLayer::new(LONG);
        request_decompression: RequestDecompressionLayer::new();
        response_body_deadline: ResponseBodyDeadlineLayer::new(LONG);
        response_body_timeout: ResponseBodyTimeoutLayer::new(LONG);
        sensitive_headers: SetSensitiveHeadersLayer::new([NAME]);
        sensitive_request_headers: SetSensitiveRequestHeadersLayer::new([NAME]);
        sensitive_response_headers: SetSensitiveResponseHeadersLayer::new([NAME]);
        serve_dir: layer_fn(|inner| {
            ServeDir::new("src").call_fallback_on_method_not_allowed(true).fallback(inner)
        });
        set_request_header: SetRequestHeaderLayer::overriding(NAME, VALUE);
        set_request_headers: SetMultipleRequestHeadersLayer::overriding(headers());
        set_request_id: SetRequestIdLayer::x_request_id(MakeRequestUuid);
        set_response_header: SetResponseHeaderLayer::overriding(NAME, VALUE);
        set_response_headers: SetMultipleResponseHeadersLayer::overriding(headers());
        timeout_with_status: TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, LONG);
        trace: TraceLayer::new_for_http();
        validate_request: ValidateRequestHeaderLayer::accept("text/plain");
    }
    inside: {
        box_clone_sync: layer_fn(BoxCloneSyncService::<Request<Body>, _, _>::new);
        steer_to_one_of_two: layer_fn(|inner: Inner| Steer::new([inner.clone(), inner], first));
        // Without an inner service.
        redirect: layer_fn(|_: Inner| Redirect::<Body>::permanent(Uri::from_static("/")));
        serve_file: layer_fn(|_: Inner| ServeFile::new("Cargo.toml"));
        // Around the limited service it would hide the status.
        set_status: SetStatusLayer::new(StatusCode::NO_CONTENT);
    }
    // These are not `Clone`.
    around: {
        balance: layer_fn(|limited| {
            Balance::new(ServiceList::new::<Request<Body>>([Constant::new(limited, 0)]))
        });
        boxed: layer_fn(BoxService::<Request<Body>, _, _>::new);
        constant_load: layer_fn(|limited| Constant::new(limited, 0));
        hedge: layer_fn(|limited| Hedge::new::<Request<Body>>(limited, Never, 1, 0.9, LONG));
        optional: layer_fn(|limited| Optional::new::<Request<Body>>(Some(limited)));
        peak_ewma: layer_fn(|limited| {
            PeakEwma::new(limited, LONG, 1.0, CompleteOnResponse::default())
        });
        pending_requests: layer_fn(|limited| {
            PendingRequests::new(limited, CompleteOnResponse::default())
        });
        rate_limit: RateLimitLayer::new(100, LONG);
        reconnect: layer_fn(|limited: Limited| {
            Reconnect::new(service_fn(move |()| ready(Ok::<_, Infallible>(limited.clone()))), ())
        });
        spawn_ready: SpawnReadyLayer::new();
        unsync_boxed: layer_fn(UnsyncBoxService::<Request<Body>, _, _>::new);
    }
}

/// What the guide says of routes that must not be limited, and of `merge`.
#[tokio::test]
async fn in_axum_a_route_after_the_layer_is_free_and_merge_frees_unmatched_paths() {
    let limited = || Router::new().route("/call", get(async || "called"));
    let layered = || limited().layer(BolnaRateLimitLayer::new());
    let metrics = || Router::new().route("/metrics", get(async || "metrics"));
    let with_fallback = limited().fallback(async || StatusCode::NOT_FOUND);
    let with_fallback = with_fallback.layer(BolnaRateLimitLayer::new());
    for (app, unmatched) in [
        (layered().route("/metrics", get(async || "metrics")), 401),
        (layered().merge(metrics()), 404),
        (with_fallback.merge(metrics()), 401),
    ] {
        let mut statuses = Vec::new();
        for path in ["/call", "/metrics", "/nothing", "/%63all"] {
            let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
            statuses.push(app.clone().oneshot(request).await.unwrap().status().as_u16());
        }
        assert_eq!(statuses, [401, 200, unmatched, unmatched]);
    }
}
