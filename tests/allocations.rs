//! How often a request allocates memory.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::convert::Infallible;
use std::future::ready;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use bolna_rate_limit::clock::ManualClock;
use bolna_rate_limit::observe::MostRefused;
use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Enforcement, Limiter, Policy, Quota};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use tower::{Layer, Service};

/// A response that was made before the measurement, with room for two more header fields.
fn prepared() -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.headers_mut() = HeaderMap::with_capacity(4);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn request(path: &str, account: Account) -> Request<Response<Empty<Bytes>>> {
    let mut request = Request::get(path).body(prepared()).unwrap();
    request.extensions_mut().insert(account);
    request
}

struct Fixture<F> {
    /// Sends a request. Returns the status of the response and the number of allocations.
    send: F,
    clock: ManualClock,
}

fn fixture(
    set_up: impl FnOnce(
        BolnaRateLimitLayer<MemoryStore<ManualClock>>,
    ) -> BolnaRateLimitLayer<MemoryStore<ManualClock>>,
) -> Fixture<impl FnMut(&str, Account) -> (StatusCode, u64)> {
    let clock = ManualClock::default();
    let limiter = Limiter::with_store(Policy::default(), MemoryStore::with_clock(clock.clone()));
    let echo = |request: Request<_>| ready(Ok::<_, Infallible>(request.into_body()));
    let mut service =
        set_up(BolnaRateLimitLayer::with_limiter(limiter)).layer(tower::service_fn(echo));
    let send = move |path: &str, account| {
        let request = request(path, account);
        let mut context = Context::from_waker(Waker::noop());
        let mut response = None;
        let allocated = measure(|| {
            let _ = Service::<Request<_>>::poll_ready(&mut service, &mut context);
            let Poll::Ready(Ok(ready)) = pin!(service.call(request)).poll(&mut context) else {
                panic!("nothing waits")
            };
            response = Some(ready);
        });
        (response.unwrap().status(), allocated.count_total)
    };
    Fixture { send, clock }
}

fn caller() -> Account {
    Account::user("5bc97541-e320-4d95-a3a5-242cfe45621d")
        .in_organization("28f9c34b-8eb0-4af5-8689-c2f6c4daec22")
}

#[test]
fn an_admitted_request_allocates_nothing() {
    let Fixture { mut send, clock } = fixture(|layer| layer);
    for path in ["/call", "/v2/agent/5bc97541-e320-4d95-a3a5-242cfe45621d", "/v2/agent/all", "/"] {
        // The first request of a caller makes the bucket. The first response for each remainder
        // renders the header fields.
        for _ in 0..1000 {
            send(path, caller());
        }
        clock.advance(Duration::from_secs(60));
        for _ in 0..500 {
            assert_eq!(send(path, caller()), (StatusCode::OK, 0), "{path}");
        }
    }
}

#[test]
fn an_accounts_plan_allocates_nothing() {
    let plan = Policy::bolna().quota("call", Quota::per_minute(600)).build().unwrap();
    let Fixture { mut send, clock } = fixture(|layer| layer);
    let caller = caller().with_policy(plan);
    for _ in 0..1000 {
        send("/call", caller.clone());
    }
    clock.advance(Duration::from_secs(60));
    for _ in 0..600 {
        assert_eq!(send("/call", caller.clone()), (StatusCode::OK, 0));
    }
    assert_eq!(send("/call", caller).0, StatusCode::TOO_MANY_REQUESTS);
}

#[test]
fn shadow_mode_shares_candidates_and_observers_allocate_nothing_once_they_have_seen_the_first_requests()
 {
    let candidate = Policy::bolna().quota("call", Quota::per_minute(700)).build().unwrap();
    for enforcement in [Enforcement::FULL, Enforcement::percent(50).unwrap(), Enforcement::SHADOW] {
        let Fixture { mut send, clock } = fixture(|layer| {
            layer.limiter().set_candidate(candidate.clone()).unwrap();
            layer.limiter().observe(MostRefused::new(10));
            layer.enforcement(enforcement)
        });
        for _ in 0..1000 {
            send("/call", caller());
        }
        clock.advance(Duration::from_secs(60));
        for _ in 0..500 {
            assert_eq!(send("/call", caller()), (StatusCode::OK, 0), "{enforcement}");
        }
    }
}

#[test]
fn a_refused_request_allocates_its_header_fields_and_nothing_else() {
    let Fixture { mut send, .. } = fixture(|layer| layer);
    while send("/call", caller()).0 == StatusCode::OK {}
    for _ in 0..500 {
        // A header map takes two allocations: an index and a list.
        assert_eq!(send("/call", caller()), (StatusCode::TOO_MANY_REQUESTS, 2));
    }
}

#[test]
fn a_refusal_of_another_form_allocates_no_more_than_fits_in_a_line() {
    let Fixture { mut send, .. } = fixture(|layer| {
        layer.legacy_headers(bolna_rate_limit::LegacyReset::DeltaSeconds).retry_after_ms()
    });
    while send("/call", caller()).0 == StatusCode::OK {}
    let (status, allocated) = send("/call", caller());
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(allocated <= 20, "{allocated} allocations");
}

#[test]
fn a_refusal_leaves_no_decision_for_a_handler_that_is_not_called() {
    let Fixture { mut send, .. } = fixture(BolnaRateLimitLayer::ruling_in_extensions);
    while send("/call", caller()).0 == StatusCode::OK {}
    assert_eq!(send("/call", caller()), (StatusCode::TOO_MANY_REQUESTS, 2));
}
