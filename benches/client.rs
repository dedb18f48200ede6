//! What the client's layers add to a request that need not wait, and what 10,000 take that do:
//! `cargo bench --bench client --features client`.
//!
//! One process, interleaved rounds, medians. Requests are made outside the timed part; dropping them and the response is in
//! it, for the bare service too. Those that wait do so in time that tokio moves on when nothing else is left to do.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use allocation_counter::measure;
use bolna_rate_limit::client::{BolnaClientLayer, PaceFuture, PaceLayer, Pacer, RetryPolicy};
use bolna_rate_limit::{Policy, Quota};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{Empty, Full};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceExt};

const BATCH: usize = 100;
const ROUNDS: usize = 5_000;
const WAITERS: usize = 10_000;
const URI: &str = "http://127.0.0.1:3000/v2/agent/5bc97541-e320-4d95-a3a5-242cfe45621d";

type Body = Full<Bytes>;
type Answer = Ready<Result<Response<Empty<Bytes>>, Infallible>>;

fn request() -> Request<Body> {
    let mut request = Request::get(URI).body(Body::from("{}")).expect("the address is valid");
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer bn-5bc97541e3204d95a3a5242cfe45621d"));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}

fn answer(_: Request<Body>) -> Answer {
    let mut response = Response::new(Empty::new());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ready(Ok(response))
}

/// An answer of a server with this crate's limiter.
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

/// Nanoseconds a call, over one batch.
fn time<S: Service<Request<Body>>>(service: &mut S) -> u64 {
    let requests: Vec<_> = (0..BATCH).map(|_| request()).collect();
    let mut context = Context::from_waker(Waker::noop());
    let start = Instant::now();
    for request in requests {
        let _ = service.poll_ready(&mut context);
        let mut response = pin!(service.call(request));
        let Poll::Ready(response) = response.as_mut().poll(&mut context) else { unreachable!("nothing waits") };
        let _ = black_box(response);
    }
    u64::try_from(start.elapsed().as_nanos()).expect("a batch is short") / BATCH as u64
}

fn median(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times[times.len() / 2]
}

/// More than can be used.
fn boundless() -> Pacer {
    let quota = Quota::per_second(1_000_000).burst(u32::MAX);
    let policy = Policy::bolna().quota("agent", quota).build().expect("the quota is valid");
    Pacer::builder().policy(policy).build().expect("the bounds are not zero")
}

fn unpaced() {
    let bare = tower::service_fn(answer as fn(_) -> _);
    let limited = tower::service_fn(limited_answer as fn(_) -> _);
    let once = RetryPolicy::builder().attempts(1).build().expect("one attempt is allowed");
    let (mut bare_service, mut limited_service) = (bare, limited);
    let mut paced = PaceLayer::new(boundless()).layer(bare);
    let mut paced_limited = PaceLayer::new(boundless()).layer(limited);
    let mut all = BolnaClientLayer::new().pacer(boundless()).layer(bare);
    let mut all_limited = BolnaClientLayer::new().pacer(boundless()).layer(limited);
    let mut all_once = BolnaClientLayer::new().pacer(boundless()).retry(once).layer(limited);
    let mut rounds = [const { Vec::new() }; 7];
    for _ in 0..ROUNDS {
        rounds[0].push(time(&mut bare_service));
        rounds[1].push(time(&mut limited_service));
        rounds[2].push(time(&mut paced));
        rounds[3].push(time(&mut paced_limited));
        rounds[4].push(time(&mut all));
        rounds[5].push(time(&mut all_limited));
        rounds[6].push(time(&mut all_once));
    }
    let [bare, limited, paced, paced_limited, all, all_limited, all_once] = rounds.map(median);
    println!("bare service                                    {bare:>6} ns");
    println!("bare service, responses with RateLimit fields   {limited:>6} ns");
    for (name, time, bare) in [
        ("PaceLayer", paced, bare),
        ("PaceLayer, fields read", paced_limited, limited),
        ("BolnaClientLayer", all, bare),
        ("BolnaClientLayer, fields read", all_limited, limited),
        ("BolnaClientLayer, one attempt, fields read", all_once, limited),
    ] {
        println!("{name:<43} over bare {:>6} ns", time.saturating_sub(bare));
    }
}

/// Counts how often a future is polled.
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

/// One request a minute: everybody waits.
fn slow() -> Pacer {
    let policy = Policy::bolna().quota("agent", Quota::per_minute(1)).build().expect("the quota is valid");
    let pacer = Pacer::builder().policy(policy).max_wait(Duration::from_secs(100_000_000));
    pacer.max_waiting(WAITERS).build().expect("the bounds are not zero")
}

fn memory() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("there is a runtime");
    let _guard = runtime.enter();
    let mut client = PaceLayer::new(slow()).layer(tower::service_fn(answer as fn(_) -> _));
    // The one that goes at once.
    drop(client.call(request()));
    let mut context = Context::from_waker(Waker::noop());
    let requests: Vec<_> = (0..WAITERS).map(|_| request()).collect();
    let mut futures = Vec::with_capacity(WAITERS);
    let allocated = measure(|| {
        for request in requests {
            let mut future = Box::pin(client.call(request));
            assert!(future.as_mut().poll(&mut context).is_pending(), "it has to wait");
            futures.push(future);
        }
    });
    // The list of requests is given back meanwhile.
    let list = WAITERS * size_of::<Request<Body>>();
    let bytes = (allocated.bytes_current + i64::try_from(list).expect("it is short")) / WAITERS as i64;
    let own = bytes - i64::try_from(size_of::<Request<Body>>()).expect("it is small");
    println!(
        "{WAITERS} waiting: {bytes} bytes each, the request's own {} included; so {own} more",
        size_of::<Request<Body>>()
    );
    println!("  of which the future takes {}", size_of_val(&*futures[0]));
    let _: &Pin<Box<PaceFuture<_, Body>>> = &futures[0];
}

fn wake_ups() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("there is a runtime");
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
    // The first poll of each is its caller's.
    let woken = polls.load(Ordering::Relaxed) - (WAITERS + 1);
    println!("{WAITERS} waiting: {woken} wake-ups until all had gone, {took} ns of the processor each, tasks and all");
}

fn main() {
    unpaced();
    memory();
    wake_ups();
}
