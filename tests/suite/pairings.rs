//! The combinations of layers, services and stores that are advertised compile.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use bolna_rate_limit::layer::{
    Dialect, LegacyReset, OnStoreFailure, OnUnidentified, Reason, Refusal, ResponseBody,
    ResponseFuture,
};
use bolna_rate_limit::policy::PolicyBuilder;
use bolna_rate_limit::store::{
    Answer, AnyStore, Breaker, Capabilities, Charge, ChargeError, ChargeOutcome, Command,
    Decisions, DenialCache, Entry, Immediate, LocalFallback, MemoryStore, Reply, Store, StoreError,
    StoreEvent, StoreListener, StoreReport,
};
use bolna_rate_limit::values::clock::{ManualClock, MonotonicClock};
use bolna_rate_limit::values::{Id, QuotaBuilder, QuotaError};
use bolna_rate_limit::{
    Account, BolnaRateLimit, BolnaRateLimitLayer, Decision, Endpoint, Limiter, Policy, PolicyError,
    Principal, Quota,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use tower::util::{BoxCloneService, BoxCloneSyncService};
use tower::{Layer, Service, ServiceBuilder};
use tower_http::cors::CorsLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use crate::deferred::{Answers, DeferredStore};
use crate::support::ok;

fn plain_value<T: Send + Sync + Debug + Unpin + 'static>() {}
fn cloneable<T: Clone>() {}
fn sendable<T: Send>(value: T) -> T {
    value
}

#[test]
fn public_types_can_be_sent_shared_and_printed() {
    plain_value::<Account>();
    plain_value::<Answer<Immediate>>();
    plain_value::<AnyStore>();
    plain_value::<Capabilities>();
    plain_value::<Charge<'static>>();
    plain_value::<ChargeError>();
    plain_value::<ChargeOutcome>();
    plain_value::<Command<'static>>();
    plain_value::<Decisions>();
    plain_value::<Entry>();
    plain_value::<Reply>();
    plain_value::<Decision>();
    plain_value::<Dialect>();
    plain_value::<Endpoint>();
    plain_value::<Id>();
    plain_value::<LegacyReset>();
    plain_value::<ManualClock>();
    plain_value::<MonotonicClock>();
    plain_value::<MemoryStore>();
    plain_value::<Policy>();
    plain_value::<PolicyBuilder>();
    plain_value::<PolicyError>();
    plain_value::<Principal>();
    plain_value::<Quota>();
    plain_value::<QuotaBuilder>();
    plain_value::<QuotaError>();
    plain_value::<Reason<'static>>();
    plain_value::<Refusal<'static>>();
    plain_value::<ResponseBody<Bytes>>();
    plain_value::<StoreError>();
    plain_value::<StoreEvent>();
    plain_value::<StoreReport>();
    cloneable::<StoreListener>();
    sendable(StoreListener::new(|_| {}));
    plain_value::<OnStoreFailure>();
    plain_value::<OnUnidentified>();
    plain_value::<Limiter>();
    plain_value::<Limiter<DeferredStore>>();
    plain_value::<BolnaRateLimitLayer>();
    plain_value::<BolnaRateLimitLayer<DeferredStore>>();
    plain_value::<BolnaRateLimit<Router>>();
    plain_value::<BolnaRateLimit<Router, DeferredStore>>();
    cloneable::<Limiter<DeferredStore>>();
    cloneable::<BolnaRateLimitLayer<DeferredStore>>();
    cloneable::<BolnaRateLimit<Router, DeferredStore>>();

    fn future<T: Send + Debug>() {}
    type Inner = BoxCloneService<Request<String>, Response<String>, Infallible>;
    future::<ResponseFuture<Inner, MemoryStore, String>>();
    future::<ResponseFuture<Inner, DeferredStore, String>>();
}

#[test]
fn a_service_that_is_neither_send_nor_sync_can_be_wrapped_too() {
    let shared = std::rc::Rc::new(());
    let body = Full::from("body").map_frame({
        let shared = std::rc::Rc::clone(&shared);
        move |frame: Frame<Bytes>| {
            let _ = &shared;
            frame
        }
    });
    let inner = tower::service_fn(move |_: Request<_>| {
        let _ = std::rc::Rc::clone(&shared);
        std::future::ready(Ok::<_, std::rc::Rc<()>>(Response::new(Empty::<Bytes>::new())))
    });
    let mut service = BolnaRateLimitLayer::new().layer(inner);
    drop(service.call(Request::new(body)));
}

fn with_axum<St: Store>(layer: &BolnaRateLimitLayer<St>) -> Router {
    let nested = Router::new().route("/call", post(async || "called")).layer(layer.clone());
    Router::new()
        .route("/user/me", get(async || "me").layer(layer.clone()))
        .route("/v2/agent/{agent_id}", get(async || "agent"))
        .route_layer(layer.clone())
        .nest("/nested", nested)
        .fallback_service(layer.layer(tower::service_fn(async |_: Request<axum::body::Body>| {
            Ok::<_, Infallible>(Response::new(axum::body::Body::empty()))
        })))
        .layer(ServiceBuilder::new().layer(layer.clone()))
        // Layers that make responses of their own need a body with a default.
        .layer(
            ServiceBuilder::new()
                .layer(TraceLayer::new_for_http())
                .layer(CorsLayer::new())
                .layer(TimeoutLayer::with_status_code(
                    StatusCode::GATEWAY_TIMEOUT,
                    Duration::from_secs(1),
                ))
                .layer(layer.clone()),
        )
}

#[test]
fn every_store_of_this_crate_can_be_any_store() {
    let store = || DeferredStore::that(Answers::Decision, &ManualClock::default());
    let _: [AnyStore; 6] = [
        MemoryStore::new().into(),
        Arc::new(MemoryStore::new()).into(),
        Breaker::new(store()).into(),
        LocalFallback::new(Breaker::new(store())).into(),
        DenialCache::new(LocalFallback::new(Breaker::new(store()))).into(),
        AnyStore::new(store()),
    ];
}

#[test]
fn it_fits_axum_wherever_a_layer_does() {
    let _ = with_axum(&BolnaRateLimitLayer::new());
    let _ =
        with_axum(&BolnaRateLimitLayer::with_limiter(DeferredStore::limiter(Policy::default())));
    let any = AnyStore::from(MemoryStore::new());
    let _ = with_axum(&BolnaRateLimitLayer::with_limiter(
        Limiter::with_store(Policy::default(), any).unwrap(),
    ));
}

#[test]
fn it_fits_hyper_with_any_body() {
    fn served<S, B>(service: S) -> TowerToHyperService<S>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        TowerToHyperService::new(service)
    }
    async fn answer<B: Default>(_: Request<Incoming>) -> Result<Response<B>, Infallible> {
        Ok(Response::new(B::default()))
    }
    let layer = BolnaRateLimitLayer::new();
    let _ = served(layer.layer(tower::service_fn(answer::<Full<Bytes>>)));
    let _ = served(layer.layer(tower::service_fn(answer::<Empty<Bytes>>)));
    let _ = served(layer.layer(tower::service_fn(answer::<axum::body::Body>)));
    let _ = served(layer.layer(tower::service_fn(async |request: Request<Incoming>| {
        Ok(Response::new(request.into_body()))
    })));
    let _ = served(layer.layer(tower::service_fn(answer::<BoxBody<Bytes, Infallible>>)));
}

#[tokio::test]
async fn it_can_be_boxed_and_stacked() {
    let layer = BolnaRateLimitLayer::new();
    let boxed: BoxCloneSyncService<Request<String>, _, Infallible> =
        BoxCloneSyncService::new(layer.layer(tower::service_fn(ok::<String>)));
    let boxed_again = sendable(BoxCloneService::new(layer.layer(boxed.clone())));
    // A service that is `Send` and not `Sync`.
    let _ = sendable(layer.layer(boxed_again));
    let _ = ServiceBuilder::new().layer(layer).buffer(4).concurrency_limit(4).service(boxed);
}
