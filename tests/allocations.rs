//! How often a request allocates memory.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use allocation_counter::measure;
use bolna_rate_limit::layer::ResponseBody;
use bolna_rate_limit::observe::MostRefused;
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::{AnyStore, Charge, Entry, MemoryStore, Store};
use bolna_rate_limit::values::QuotaBuilder;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{
    Account, BolnaRateLimitLayer, Endpoint, Enforcement, Limiter, Policy, Principal, Quota,
};
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
    /// Sends a request. Returns the response, or its status, and the number of allocations.
    send: F,
    clock: ManualClock,
    limiter: Limiter<MemoryStore<ManualClock>>,
}

/// A name of the greatest length.
const LONG: &str = "a-name-that-is-as-long-as-a-name-can-be-and-not-a-letter-longer_";
const QUOTAS: [(&str, QuotaBuilder); 4] = [
    ("call", Quota::per_minute(5000)),
    ("call", Quota::per_second(1_000_000).burst(u32::MAX)),
    (LONG, Quota::per_second(1_000_000).burst(u32::MAX)),
    (LONG, Quota::per(7000, Duration::from_millis(12_345))),
];

fn policy(endpoint: &str, quota: QuotaBuilder) -> Policy {
    Policy::builder().endpoint(endpoint, quota, ["/call"]).build().unwrap()
}

/// Many policies, which differ in their quotas.
fn policies(count: u32) -> impl Iterator<Item = Policy> {
    (0..count).map(|number| policy("call", Quota::per_second(1_000_000 + number).burst(1000)))
}

type TestLayer = BolnaRateLimitLayer<MemoryStore<ManualClock>>;
type Admitted = Response<ResponseBody<Empty<Bytes>>>;

fn fixture(
    set_up: impl FnOnce(TestLayer) -> TestLayer,
) -> Fixture<impl FnMut(&str, Account) -> (StatusCode, u64)> {
    let Fixture { mut send, clock, limiter } = fixture_of_responses(set_up);
    let send = move |path: &str, account| {
        let (response, allocated) = send(path, account);
        (response.status(), allocated)
    };
    Fixture { send, clock, limiter }
}

fn fixture_of_responses(
    set_up: impl FnOnce(TestLayer) -> TestLayer,
) -> Fixture<impl FnMut(&str, Account) -> (Admitted, u64) + Clone> {
    let clock = ManualClock::default();
    let limiter =
        Limiter::with_store(Policy::default(), MemoryStore::with_clock(clock.clone())).unwrap();
    // As in release builds: to look for advice, some requests are marked.
    limiter.print_advice(false);
    let echo = |request: Request<_>| ready(Ok::<_, Infallible>(request.into_body()));
    let layer = set_up(BolnaRateLimitLayer::with_limiter(limiter.clone()));
    let mut service = layer.layer(tower::service_fn(echo));
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
        (response.unwrap(), allocated.count_total)
    };
    Fixture { send, clock, limiter }
}

fn caller() -> Account {
    Account::user("5bc97541-e320-4d95-a3a5-242cfe45621d")
        .in_organization("28f9c34b-8eb0-4af5-8689-c2f6c4daec22")
}

#[test]
fn an_admitted_request_allocates_nothing() {
    let Fixture { mut send, clock, .. } = fixture(|layer| layer);
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

/// However long the path is, and however many ways there are to read it.
#[test]
fn finding_the_endpoints_of_an_odd_path_allocates_nothing() {
    let policy = Policy::default();
    for part in
        ["../", "%2e%2e%2f", "..;/", "%2563", "%u0063", "%ff", r"\", "x.json/", "index.php/"]
    {
        for times in [1, 100, 10_000] {
            let path = format!("/v2/agent/x/{}/call", part.repeat(times));
            let mut endpoint = None;
            let allocated = measure(|| endpoint = policy.endpoint_of(&path));
            assert_eq!(allocated.count_total, 0, "{part} {times} times");
            assert!(endpoint.is_some());
        }
    }
}

/// A request to several endpoints is one charge of their limits.
#[test]
fn a_refused_odd_path_allocates_what_a_plain_one_of_two_limits_does() {
    let second = LimitBuilder::account("hourly", Quota::per_hour(5000));
    let plan = Policy::bolna().also("call", second).build().unwrap();
    let Fixture { mut send, .. } = fixture(|layer| layer);
    let accounts = [caller(), Account::user("other").with_policy(plan)];
    let [odd, plain] = ["/%63all", "/call"]
        .into_iter()
        .zip(accounts)
        .map(|(path, account)| {
            while send(path, account.clone()).0 == StatusCode::OK {}
            (0..10).map(|_| send(path, account.clone())).last().unwrap()
        })
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    assert_eq!(plain.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(odd, plain);
}

#[test]
fn an_accounts_plan_allocates_nothing() {
    let plan = Policy::bolna().quota("call", Quota::per_minute(600)).build().unwrap();
    let Fixture { mut send, clock, .. } = fixture(|layer| layer);
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
fn shadow_mode_shares_and_candidates_allocate_nothing() {
    let candidate = Policy::bolna().quota("call", Quota::per_minute(700)).build().unwrap();
    for enforcement in [Enforcement::FULL, Enforcement::percent(50).unwrap(), Enforcement::SHADOW] {
        let Fixture { mut send, clock, .. } = fixture(|layer| {
            layer.limiter().set_candidate(candidate.clone()).unwrap();
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

/// The mark of a request is in a box, and in the request's extensions, which grow now and then.
#[test]
fn with_observers_one_request_in_127_allocates_its_mark_and_the_others_nothing() {
    let Fixture { mut send, clock, .. } = fixture(|layer| {
        layer.limiter().observe(MostRefused::new(10));
        layer
    });
    for _ in 0..1000 {
        send("/call", caller());
    }
    clock.advance(Duration::from_secs(60));
    let (mut marked, mut allocations) = (0, 0);
    for _ in 0..4 * 127 {
        clock.advance(Duration::from_millis(120));
        let (status, allocated) = send("/call", caller());
        assert_eq!(status, StatusCode::OK);
        marked += u64::from(allocated > 0);
        allocations += allocated;
    }
    assert_eq!(marked, 4);
    assert!(allocations <= 4 * 3, "{allocations} allocations");
}

#[test]
fn a_refused_request_allocates_its_header_fields_and_nothing_else() {
    for counts in [false, true] {
        let Fixture { mut send, .. } = fixture(|layer| {
            if counts {
                layer.limiter().observe(MostRefused::new(10));
            }
            layer
        });
        while send("/call", caller()).0 == StatusCode::OK {}
        for _ in 0..500 {
            // A header map takes two allocations: an index and a list.
            assert_eq!(send("/call", caller()), (StatusCode::TOO_MANY_REQUESTS, 2));
        }
    }
}

#[test]
fn a_refusal_of_another_form_allocates_no_more_than_fits_in_a_line() {
    let Fixture { mut send, .. } = fixture(|layer| {
        layer.legacy_headers(bolna_rate_limit::layer::LegacyReset::DeltaSeconds).retry_after_ms()
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

/// The allocations of so many calls, of which one in a thousand may allocate once.
fn assert_seldom(what: &str, calls: u64, mut call: impl FnMut(u64) -> u64) {
    let allocated: u64 = (0..calls).map(&mut call).sum();
    assert!(allocated * 1000 <= calls, "{what}: {allocated} allocations in {calls} calls");
}

#[test]
fn less_than_one_admission_in_a_thousand_allocates_whatever_the_quota() {
    for (endpoint, quota) in QUOTAS {
        let Fixture { mut send, clock, limiter } = fixture(|layer| layer);
        limiter.set_policy(policy(endpoint, quota)).unwrap();
        send("/call", caller());
        assert_seldom(&format!("{quota:?}"), 20_000, |call| {
            // Each number of remaining units occurs.
            if call % 4990 == 0 {
                clock.advance(Duration::from_secs(60));
            }
            let (status, allocated) = send("/call", caller());
            assert_eq!(status, StatusCode::OK);
            allocated
        });
    }
}

#[test]
fn less_than_one_admission_in_a_thousand_allocates_however_many_policies_there_have_been() {
    let Fixture { mut send, clock, limiter } = fixture(|layer| layer);
    for policy in policies(5000) {
        limiter.set_policy(policy).unwrap();
        send("/call", caller());
    }
    for (endpoint, quota) in QUOTAS {
        limiter.set_policy(policy(endpoint, quota)).unwrap();
        send("/call", caller());
        clock.advance(Duration::from_secs(60));
        assert_seldom(&format!("{quota:?}"), 20_000, |_| {
            clock.advance(Duration::from_millis(12));
            let (status, allocated) = send("/call", caller());
            assert_eq!(status, StatusCode::OK);
            allocated
        });
    }
}

#[test]
fn less_than_one_admission_in_a_thousand_allocates_if_the_policy_changes_all_the_time() {
    for calls_of_a_policy in [100, 1] {
        let Fixture { mut send, clock, limiter } = fixture(|layer| layer);
        send("/call", caller());
        clock.advance(Duration::from_secs(60));
        let mut policies = policies(20_000);
        assert_seldom("new policies", 20_000, |call| {
            if call % calls_of_a_policy == 0 {
                limiter.set_policy(policies.next().unwrap()).unwrap();
            }
            clock.advance(Duration::from_millis(1));
            let (status, allocated) = send("/call", caller());
            assert_eq!(status, StatusCode::OK);
            allocated
        });
    }
}

#[test]
fn less_than_one_admission_in_a_thousand_allocates_in_each_of_several_threads() {
    let Fixture { send, limiter, .. } = fixture_of_responses(|layer| layer);
    limiter.set_policy(policy("call", Quota::per_second(1_000_000).burst(u32::MAX))).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut send = send.clone();
            scope.spawn(move || {
                send("/call", caller());
                assert_seldom("a thread", 20_000, |_| send("/call", caller()).1);
            });
        }
    });
}

/// Responses are in use while they are sent.
#[test]
fn less_than_one_admission_in_a_thousand_allocates_while_hundreds_of_responses_are_in_use() {
    let Fixture { mut send, limiter, .. } = fixture_of_responses(|layer| layer);
    limiter.set_policy(policy(LONG, Quota::per_second(1_000_000).burst(u32::MAX))).unwrap();
    let mut in_use = VecDeque::with_capacity(1000);
    let mut send = |_| {
        let (response, allocated) = send("/call", caller());
        in_use.push_back(response);
        if in_use.len() > 300 {
            in_use.pop_front();
        }
        allocated
    };
    (0..2000).for_each(|call| {
        send(call);
    });
    assert_seldom("responses in use", 20_000, send);
}

#[test]
fn a_refusal_allocates_no_more_than_its_header_fields_however_many_policies_there_have_been() {
    let Fixture { mut send, clock, limiter } = fixture(|layer| layer);
    for policy in policies(5000) {
        limiter.set_policy(policy).unwrap();
        send("/call", caller());
    }
    let hourly = Quota::per_hour(1);
    for (endpoint, quota) in
        [("call", hourly), (LONG, hourly), (LONG, Quota::per(2, Duration::from_secs(86_400)))]
    {
        limiter.set_policy(policy(endpoint, quota)).unwrap();
        clock.advance(Duration::from_secs(86_400));
        for _ in 0..1000 {
            send("/call", caller());
        }
        assert_seldom(endpoint, 20_000, |_| {
            // Each wait of whole seconds occurs.
            clock.advance(Duration::from_millis(170));
            match send("/call", caller()) {
                (StatusCode::TOO_MANY_REQUESTS, allocated) => allocated - 2,
                (_, allocated) => allocated,
            }
        });
    }
}

#[test]
fn the_texts_of_100_000_quotas_take_half_a_mebibyte() {
    let Fixture { mut send, clock, .. } = fixture(|layer| layer);
    let retained = measure(|| {
        for number in 0..100_000 {
            let quota = Quota::per_second(100_000 + number).burst(1);
            let account = caller().with_policy(policy(LONG, quota));
            clock.advance(Duration::from_secs(1));
            assert_eq!(send("/call", account.clone()).0, StatusCode::OK);
            assert_eq!(send("/call", account).0, StatusCode::TOO_MANY_REQUESTS);
        }
    });
    assert!(retained.bytes_current <= 512 * 1024, "{retained:?}");
}

/// A cache of responses stores some of them, for instance.
#[test]
fn a_response_that_is_stored_keeps_eight_kibibytes_at_most() {
    const STORED: usize = 200;
    let Fixture { mut send, limiter, .. } = fixture_of_responses(|layer| layer);
    limiter.set_policy(policy(LONG, Quota::per_second(1_000_000).burst(u32::MAX))).unwrap();
    let mut stored = Vec::with_capacity(STORED);
    let retained = measure(|| {
        for call in 0..100 * STORED {
            let (response, _) = send("/call", caller());
            if call % 100 == 0 {
                stored.push(response);
            }
        }
    });
    let most = (STORED * (8192 + 1024) + 512 * 1024).try_into().unwrap();
    assert!(retained.bytes_current <= most, "{retained:?}");
}

#[test]
fn a_store_that_is_chosen_at_run_time_allocates_nothing_for_an_answer_that_is_there() {
    let store = AnyStore::from(MemoryStore::with_clock(ManualClock::default()));
    let caller = Principal::organization("28f9c34b-8eb0-4af5-8689-c2f6c4daec22").unwrap();
    let entry = Entry::new(Endpoint::CALL, Quota::per_minute(100).build().unwrap());
    let check = || store.check(Charge::of_one(&caller, &entry)).now().unwrap().unwrap();
    // The first request makes the bucket.
    assert!(check().outcome().is_admitted());
    for count in 0..200 {
        let mut admitted = false;
        let allocated = measure(|| admitted = check().outcome().is_admitted());
        assert_eq!((admitted, allocated.count_total), (count < 99, 0), "request {count}");
    }
}
