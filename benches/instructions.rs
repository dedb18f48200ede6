//! Runs one part of a call a given number of times, for `scripts/instructions` to count its
//! instructions.
//!
//! `instructions list` prints the names of the parts. `instructions count PART TIMES` runs one of
//! them. Work that is not to be counted, such as making requests, does not depend on `TIMES`, so
//! that it cancels out between two runs.
//!
//! A limiter's clock is set by hand, so the figures of limiters do not contain reading the clock.
//! Those of the client do: valgrind has no vDSO, and counts a system call instead.

use std::convert::Infallible;
use std::env;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::mem;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, ResponseBody};
use bolna_rate_limit::layer::Dialect;
use bolna_rate_limit::observe::{MostRefused, Observer};
use bolna_rate_limit::store::{Charge, Entry, MemoryStore, Store};
use bolna_rate_limit::values::QuotaBuilder;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Endpoint, Limiter, Policy, Principal, Quota};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use tower::util::ServiceFn;
use tower::{Layer, Service};

/// The most times that a part can be run.
const MOST: usize = 2_000;
/// The calls before the counted ones. They are enough to render every text that is kept for reuse,
/// and to end the diagnoses that only look at the first requests.
const WARM_UP: usize = 1_010;

const PATH: &str = "/v2/agent/5bc97541-e320-4d95-a3a5-242cfe45621d";
const ODD_PATH: &str = "/x/..;/call";
/// Every kind of part that takes long to read: 96 bytes.
const ODD_PARTS: &str = r"/v2/agent/..;/%2e%2e%2f//%5c..\%3f%23%00;/v2/agent/x;/%2563/x/../a/\;%u002f%ff/../v2/agent/all;\";
const ORGANIZATION: &str = "28f9c34b-8eb0-4af5-8689-c2f6c4daec22";

/// A unit comes back every time the clock is moved. The clock moves too little for the store to
/// sweep, which would be counted too.
const ADMITTING: QuotaBuilder = Quota::per_second(100_000_000).burst(500);
const TICK: Duration = Duration::from_nanos(10);

type Limited = BolnaRateLimitLayer<MemoryStore<ManualClock>>;
type Answer = Ready<Result<Response<Empty<Bytes>>, Infallible>>;
type Part = (&'static str, fn(usize));

const PARTS: [Part; 17] = [
    ("classify-agent-path", |times| classify(times, PATH, Endpoint::AGENT)),
    ("classify-odd-path", |times| classify(times, ODD_PATH, Endpoint::DEFAULT)),
    ("classify-odd-parts", |times| classify(times, ODD_PARTS, Endpoint::DEFAULT)),
    ("store-check-hit", check),
    ("call-bare-service", |times| {
        call(times, &mut tower::service_fn(inner), caller, StatusCode::OK, || {});
    }),
    ("call-admit", |times| admit(times, |layer| layer)),
    ("call-admit-without-fields", |times| admit(times, |layer| layer.dialect(Dialect::Off))),
    ("call-admit-observed", |times| admit(times, |layer| observed(layer, MostRefused::new(100)))),
    ("call-admit-in-flight", |times| {
        admit(times, |layer| {
            let policy = Policy::bolna().quota("agent", ADMITTING).concurrent("agent", 10).build();
            let policy = policy.expect("the policy is valid");
            layer.limiter().set_policy(policy).expect("the store can do all of it");
            layer
        });
    }),
    ("call-admit-refundable", |times| admit(times, |layer| layer.refund_on(|_| false))),
    ("call-refuse-one-second", |times| {
        answer(times, Quota::per_second(1), caller, StatusCode::TOO_MANY_REQUESTS);
    }),
    ("call-refuse-longer", |times| {
        answer(times, Quota::per_hour(1), caller, StatusCode::TOO_MANY_REQUESTS);
    }),
    ("call-refuse-odd-path", |times| {
        answer(times, Quota::per_second(1), odd_caller, StatusCode::TOO_MANY_REQUESTS);
    }),
    ("call-unidentified-401", |times| answer(times, ADMITTING, stranger, StatusCode::UNAUTHORIZED)),
    ("client-pace", |times| send(times, PaceLayer::new(boundless()), inner)),
    ("client-pace-fields-read", |times| send(times, PaceLayer::new(boundless()), limited)),
    ("client-all-fields-read", |times| {
        send(times, BolnaClientLayer::with_pacer(boundless()), limited);
    }),
];

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => PARTS.iter().for_each(|(name, _)| println!("{name}")),
        ["count", part, times] => {
            let (_, run) =
                PARTS.iter().find(|(name, _)| *name == part).expect("the part is one of `list`");
            run(times
                .parse()
                .ok()
                .filter(|times| *times <= MOST)
                .expect("TIMES is a number, at most 2,000"));
        }
        // With the arguments of `cargo bench` and `cargo test`: only checks that each part works.
        _ => PARTS.iter().for_each(|(_, run)| run(1)),
    }
}

fn classify(times: usize, path: &str, endpoint: Endpoint) {
    let policy = Policy::default();
    assert_eq!(policy.endpoint_of(path), Some(endpoint));
    for _ in 0..times {
        black_box(policy.endpoint_of(black_box(path)));
    }
}

fn check(times: usize) {
    let clock = ManualClock::default();
    let store = MemoryStore::with_clock(clock.clone());
    let principal = Principal::organization(ORGANIZATION).expect("the id is not empty");
    let quota = ADMITTING.build().expect("the quota is valid");
    let entry = Entry::new(Endpoint::AGENT, quota);
    let charge = Charge::of_one(&principal, &entry);
    for _ in 0..WARM_UP + times {
        clock.advance(TICK);
        let decisions = store.check(black_box(charge)).now().and_then(Result::ok);
        assert!(decisions.is_some_and(|decisions| decisions.outcome().is_admitted()));
    }
}

fn admit(times: usize, set_up: fn(Limited) -> Limited) {
    let clock = ManualClock::default();
    let mut service = set_up(layer(ADMITTING, clock.clone())).layer(tower::service_fn(inner));
    call(times, &mut service, caller, StatusCode::OK, || clock.advance(TICK));
}

/// Calls a service whose answers must have that status, but for the first one, which may be
/// admitted.
fn answer(
    times: usize,
    quota: QuotaBuilder,
    make: fn() -> Request<Empty<Bytes>>,
    status: StatusCode,
) {
    let mut service = layer(quota, ManualClock::default()).layer(tower::service_fn(inner));
    call(times, &mut service, make, status, || {});
}

fn layer(quota: QuotaBuilder, clock: ManualClock) -> Limited {
    let policy = Policy::bolna().quota("agent", quota).build().expect("the quota is valid");
    let store = MemoryStore::with_clock(clock);
    let limiter = Limiter::with_store(policy, store).expect("the store can do all of it");
    BolnaRateLimitLayer::with_limiter(limiter)
}

fn inner(_: Request<Empty<Bytes>>) -> Answer {
    let mut response = Response::new(Empty::new());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ready(Ok(response))
}

/// Most servers take the path for that of an agent, and some for `default`.
fn odd_caller() -> Request<Empty<Bytes>> {
    let mut request = caller();
    *request.uri_mut() = Uri::from_static("/v2/%61gent/5bc97541-e320-4d95-a3a5-242cfe45621d");
    request
}

fn stranger() -> Request<Empty<Bytes>> {
    Request::get(PATH).body(Empty::new()).expect("the path is valid")
}

fn caller() -> Request<Empty<Bytes>> {
    let mut request = stranger();
    request.extensions_mut().insert(Account::user("u").in_organization(ORGANIZATION));
    request
}

/// The answer of a server with this crate's limiter.
fn limited(request: Request<Empty<Bytes>>) -> Answer {
    let mut response = inner(request).into_inner();
    if let Ok(response) = &mut response {
        let headers = response.headers_mut();
        headers
            .append("ratelimit-policy", HeaderValue::from_static("\"agent\";q=4294967295;w=4295"));
        headers.append("ratelimit", HeaderValue::from_static("\"agent\";r=4294967000;t=4295"));
    }
    ready(response)
}

/// A pacer with more units than the benchmark can spend.
fn boundless() -> Pacer {
    let quota = Quota::per_second(1_000_000).burst(u32::MAX);
    let policy = Policy::bolna().quota("agent", quota).build().expect("the quota is valid");
    Pacer::builder().policy(policy).build().expect("the bounds are not zero")
}

/// A client with the layer sends requests to the server.
fn send<L>(times: usize, layer: L, server: fn(Request<Empty<Bytes>>) -> Answer)
where
    L: Layer<ServiceFn<fn(Request<Empty<Bytes>>) -> Answer>>,
    L::Service: Service<Request<Empty<Bytes>>, Response = Response<ResponseBody<Empty<Bytes>>>>,
{
    call(times, &mut layer.layer(tower::service_fn(server)), stranger, StatusCode::OK, || {});
}

fn call<S, B>(
    times: usize,
    service: &mut S,
    make: fn() -> Request<Empty<Bytes>>,
    status: StatusCode,
    before: impl Fn(),
) where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>>,
{
    let mut context = Context::from_waker(Waker::noop());
    let mut send = |request| {
        before();
        let _ = service.poll_ready(&mut context);
        let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut context) else {
            unreachable!("nothing waits or fails")
        };
        black_box(response).status()
    };
    (0..WARM_UP).for_each(|_| {
        send(make());
    });
    let mut requests = (0..MOST).map(|_| make()).collect::<Vec<_>>().into_iter();
    for request in requests.by_ref().take(times) {
        assert_eq!(send(request), status);
    }
    // The requests that were not sent are not dropped: their number depends on `TIMES`, so dropping
    // them would be counted.
    mem::forget(requests);
}

fn observed<St: Store>(
    layer: BolnaRateLimitLayer<St>,
    observer: impl Observer,
) -> BolnaRateLimitLayer<St> {
    layer.limiter().observe(observer);
    layer
}
