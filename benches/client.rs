//! The time that the client's layers add to a request that need not wait, and the time that 10,000
//! waiting requests take: `cargo bench --bench client --features client`.
//!
//! The rounds of all services are interleaved in one process. The figure of a layer is the median
//! of its difference to the bare service in the same round. Requests are made outside the timed
//! part. Dropping them and the responses is in the timed part, for the bare service too. Requests
//! that wait do so in tokio's paused time, which moves on when there is nothing else to do.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, RetryPolicy};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy, Quota};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tower::retry::RetryLayer;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};

const BATCH: usize = 100;
const ROUNDS: usize = 5_000;
const WAITERS: usize = 10_000;
const PATH: &str = "/v2/agent/5bc97541-e320-4d95-a3a5-242cfe45621d";
const URI: &str = "http://127.0.0.1:3000/v2/agent/5bc97541-e320-4d95-a3a5-242cfe45621d";

type Body = Full<Bytes>;
type Answer = Ready<Result<Response<Empty<Bytes>>, Infallible>>;

fn request() -> Request<Body> {
    let mut request = Request::get(URI).body(Body::from("{}")).expect("the address is valid");
    request.headers_mut().insert(
        AUTHORIZATION,
        HeaderValue::from_static("Bearer bn-5bc97541e3204d95a3a5242cfe45621d"),
    );
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}

fn answer(_: Request<Body>) -> Answer {
    let mut response = Response::new(Empty::new());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ready(Ok(response))
}

/// The answer of a server with this crate's limiter.
fn limited_answer(request: Request<Body>) -> Answer {
    let mut answer = answer(request).into_inner();
    let headers = answer.as_mut().map(Response::headers_mut);
    let field = |headers: &mut HeaderMap, name, value| {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    };
    if let Ok(headers) = headers {
        field(headers, "ratelimit-policy", "\"agent\";q=4294967295;w=4295");
        field(headers, "ratelimit", "\"agent\";r=4294967000;t=4295");
    }
    ready(answer)
}

/// A policy with more units than the benchmark can spend.
fn boundless() -> Policy {
    let quota = Quota::per_second(1_000_000).burst(u32::MAX);
    Policy::bolna().quota("agent", quota).build().expect("the quota is valid")
}

fn boundless_pacer() -> Pacer {
    Pacer::builder().policy(boundless()).build().expect("the bounds are not zero")
}

/// The same with a limit of requests in flight.
fn concurrent_pacer() -> Pacer {
    let quota = Quota::per_second(1_000_000).burst(u32::MAX);
    let policy = Policy::bolna().quota("agent", quota).concurrent("agent", 10);
    Pacer::with_policy(policy.build().expect("the quotas are valid"))
}

/// Nanoseconds per call, over one batch.
fn time<S: Service<Request<Body>>>(service: &mut S) -> i64 {
    let requests: Vec<_> = (0..BATCH).map(|_| request()).collect();
    let mut context = Context::from_waker(Waker::noop());
    let start = Instant::now();
    for request in requests {
        let _ = service.poll_ready(&mut context);
        let mut response = pin!(service.call(request));
        let Poll::Ready(response) = response.as_mut().poll(&mut context) else {
            unreachable!("nothing waits")
        };
        let _ = black_box(response);
    }
    nanos(start) / BATCH as i64
}

/// Nanoseconds to clone a request and drop the clone, over one batch.
fn time_clone() -> i64 {
    let request = request();
    let start = Instant::now();
    for _ in 0..BATCH {
        drop(black_box(black_box(&request).clone()));
    }
    nanos(start) / BATCH as i64
}

fn nanos(start: Instant) -> i64 {
    i64::try_from(start.elapsed().as_nanos()).expect("a batch is short")
}

fn median(mut times: Vec<i64>) -> i64 {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The median of the differences of `times` to `bare` in the same round.
fn over(times: &[i64], bare: &[i64]) -> i64 {
    median(times.iter().zip(bare).map(|(time, bare)| time - bare).collect())
}

fn unpaced() {
    let bare = tower::service_fn(answer as fn(_) -> _);
    let limited = tower::service_fn(limited_answer as fn(_) -> _);
    let once = || RetryPolicy::builder().attempts(1).build().expect("one attempt is allowed");
    let paces = PaceLayer::new(boundless_pacer());
    let all = BolnaClientLayer::with_pacer(boundless_pacer());
    let (mut bare_service, mut limited_service) = (bare, limited);
    let (mut paced, mut paced_limited) = (paces.layer(bare), paces.layer(limited));
    let mut retried = RetryLayer::new(RetryPolicy::new()).layer(bare);
    let (mut all_bare, mut all_limited) = (all.layer(bare), all.layer(limited));
    let mut all_once = all.retry(once()).layer(limited);
    let mut concurrent = PaceLayer::new(concurrent_pacer()).layer(bare);
    let mut rounds = [const { Vec::new() }; 10];
    for _ in 0..ROUNDS {
        rounds[0].push(time(&mut bare_service));
        rounds[1].push(time(&mut limited_service));
        rounds[2].push(time(&mut paced));
        rounds[3].push(time(&mut paced_limited));
        rounds[4].push(time(&mut retried));
        rounds[5].push(time(&mut all_bare));
        rounds[6].push(time(&mut all_limited));
        rounds[7].push(time(&mut all_once));
        rounds[8].push(time_clone());
        rounds[9].push(time(&mut concurrent));
    }
    let [
        bare,
        limited,
        paced,
        paced_limited,
        retried,
        all,
        all_limited,
        all_once,
        clone,
        concurrent,
    ] = rounds;
    for (name, time) in [
        ("bare service", median(bare.clone())),
        ("bare service, RateLimit fields", median(limited.clone())),
        ("PaceLayer, over bare", over(&paced, &bare)),
        ("PaceLayer, fields read, over bare", over(&paced_limited, &limited)),
        ("PaceLayer, requests in flight limited, over bare", over(&concurrent, &bare)),
        ("RetryLayer<RetryPolicy>, over bare", over(&retried, &bare)),
        ("BolnaClientLayer, over bare", over(&all, &bare)),
        ("BolnaClientLayer, fields read, over bare", over(&all_limited, &limited)),
        ("the same with one attempt, over bare", over(&all_once, &limited)),
        ("cloning a request, and dropping the clone", median(clone)),
    ] {
        println!("{name:<48} {time:>6} ns");
    }
}

type Http = Client<HttpConnector, Body>;

/// A server with this crate's limiter, on a thread of its own until the process ends.
fn serve() -> SocketAddr {
    let app = Router::new().route("/v2/agent/{agent_id}", get("{}"));
    let app = app.layer(BolnaRateLimitLayer::with_policy(boundless())).layer(
        axum::middleware::map_request(async |mut request: axum::extract::Request| {
            request.extensions_mut().insert(Account::user("u-17"));
            request
        }),
    );
    let runtime = Builder::new_current_thread().enable_all().build().expect("there is a runtime");
    let listener =
        runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || runtime.block_on(async { axum::serve(listener, app).await }));
    address
}

/// Nanoseconds per request, over one batch on a connection that stays open.
async fn time_over_tcp<S, B>(client: &S, uri: &str) -> i64
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>> + Clone,
    B: hyper::body::Body<Error: std::fmt::Debug>,
{
    let start = Instant::now();
    for _ in 0..BATCH {
        let request = Request::get(uri).body(Body::default()).expect("the address is valid");
        let response =
            client.clone().oneshot(request).await.map_err(Into::into).expect("it is answered");
        assert!(response.status().is_success());
        black_box(response.into_body().collect().await.expect("it is whole"));
    }
    nanos(start) / BATCH as i64
}

fn over_tcp() {
    const TCP_ROUNDS: usize = 200;
    let uri = format!("http://{}{PATH}", serve());
    let bare: Http = Client::builder(TokioExecutor::new()).build_http();
    let paced =
        ServiceBuilder::new().layer(PaceLayer::new(boundless_pacer())).service(bare.clone());
    let all = ServiceBuilder::new()
        .layer(BolnaClientLayer::with_pacer(boundless_pacer()))
        .service(bare.clone());
    let runtime = Builder::new_current_thread().enable_all().build().expect("there is a runtime");
    let [bare, paced, all] = runtime.block_on(async {
        let mut rounds = [const { Vec::new() }; 3];
        for _ in 0..TCP_ROUNDS {
            rounds[0].push(time_over_tcp(&bare, &uri).await);
            rounds[1].push(time_over_tcp(&paced, &uri).await);
            rounds[2].push(time_over_tcp(&all, &uri).await);
        }
        rounds
    });
    for (name, time) in [
        ("hyper's client over loopback", median(bare.clone())),
        ("PaceLayer around it, over that", over(&paced, &bare)),
        ("BolnaClientLayer around it, over that", over(&all, &bare)),
    ] {
        println!("{name:<48} {time:>6} ns");
    }
}

/// Counts the polls of a future.
struct Counted<F> {
    future: Pin<Box<F>>,
    polls: Arc<AtomicUsize>,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.future.as_mut().poll(cx)
    }
}

/// A pacer of one request a minute, so that nearly all requests wait.
fn slow() -> Pacer {
    let policy =
        Policy::bolna().quota("agent", Quota::per_minute(1)).build().expect("the quota is valid");
    let pacer = Pacer::builder().policy(policy).max_wait(Duration::from_secs(100_000_000));
    pacer.max_waiting(WAITERS).build().expect("the bounds are not zero")
}

fn wake_ups() {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("there is a runtime");
    let polls = Arc::new(AtomicUsize::new(0));
    let client = PaceLayer::new(slow()).layer(tower::service_fn(answer as fn(_) -> _));
    let start = Instant::now();
    runtime.block_on(async {
        let mut waiting = JoinSet::new();
        for _ in 0..=WAITERS {
            let future = Box::pin(client.clone().oneshot(request()));
            waiting.spawn(Counted { future, polls: Arc::clone(&polls) });
        }
        waiting.join_all().await
    });
    let took = start.elapsed().as_nanos() / WAITERS as u128;
    // The first poll of each future is not a wake-up.
    let woken = polls.load(Ordering::Relaxed) - (WAITERS + 1);
    println!(
        "{WAITERS} waiting: {woken} wake-ups until all had gone, {took} ns of the processor each, \
         tasks and all"
    );
}

fn main() {
    unpaced();
    over_tcp();
    wake_ups();
}
