//! Which requests are retried, how often, and which response the caller gets.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bolna_rate_limit::client::{
    BolnaClientLayer, CloneBody, Pacer, RetryPolicy, RetryPolicyError, SendOnce,
};
use futures_util::future::join_all;
use http::{Method, Request, Response, StatusCode, Version};
use proptest::prelude::*;
use tokio::time::advance;
use tower::retry::RetryLayer;
use tower::retry::budget::{Budget, TpsBudget};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::server::{Server, exchange, post, refusal, refusal_once, response};

const DAY: Duration = Duration::from_secs(86_400);

const ALL_METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::TRACE,
    Method::PUT,
    Method::DELETE,
    Method::POST,
    Method::PATCH,
    Method::CONNECT,
];

fn attempts(attempts: u32) -> RetryPolicy {
    RetryPolicy::builder().attempts(attempts).build().unwrap()
}

fn request(method: Method) -> Request<String> {
    Request::builder().method(method).uri("/v2/agent/7").body(String::new()).unwrap()
}

/// Sends many requests at once; returns how many of them were not refused in the end.
async fn storm<S>(client: &S, requests: usize) -> usize
where
    S: Service<Request<String>, Response = Response<String>, Error = io::Error> + Clone,
{
    let responses = join_all((0..requests).map(|_| client.clone().oneshot(post()))).await;
    responses
        .into_iter()
        .filter(|response| response.as_ref().unwrap().status().is_success())
        .count()
}

// Which.

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_sent_again_whatever_its_method() {
    for method in ALL_METHODS {
        let (response, times, _) =
            exchange(RetryPolicy::new(), request(method.clone()), |number| {
                refusal_once(&[], number)
            })
            .await;
        assert_eq!((response.status(), times.len()), (StatusCode::OK, 2), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again_is_the_same_request() {
    #[derive(Clone, PartialEq, Debug)]
    struct Mine(u8);

    let request = Request::post("https://api.example/call?x=1")
        .version(Version::HTTP_2)
        .header("authorization", "Bearer key")
        .header("x-twice", "1")
        .header("x-twice", "2")
        .extension(Mine(7))
        .body("{\"agent_id\":\"7\"}".to_owned())
        .unwrap();
    let server = Server::start();
    let client = server.client(attempts(5), |number| Ok(refusal(&[], number)));
    client.oneshot(request.clone()).await.unwrap();

    let sent = server.take();
    assert_eq!(sent.len(), 5);
    for sent in sent {
        assert_eq!(sent.method(), request.method());
        assert_eq!(sent.uri(), request.uri());
        assert_eq!(sent.version(), request.version());
        assert_eq!(sent.headers(), request.headers());
        assert_eq!(sent.extensions().get(), Some(&Mine(7)));
        assert_eq!(sent.body(), request.body());
    }
}

#[tokio::test(start_paused = true)]
async fn any_other_response_is_handed_back() {
    let policy = RetryPolicy::builder().retry_unavailable().build().unwrap();
    for status in [200, 204, 301, 400, 401, 403, 404, 408, 409, 425, 500, 502, 504] {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = |number| response(status, &[("retry-after", "1")], number);
        let (response, times, end) = exchange(policy.clone(), request(Method::GET), answer).await;
        assert_eq!(response.status(), status);
        assert_eq!((times.len(), end), (1, Duration::ZERO), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_handed_back() {
    let server = Server::start();
    let client = server.client(RetryPolicy::new(), |_| Err(io::Error::other("connection reset")));
    let error = client.oneshot(request(Method::GET)).await.unwrap_err();
    assert_eq!(error.to_string(), "connection reset");
    assert_eq!(server.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_after_a_refusal_is_handed_back() {
    let server = Server::start();
    let client = server.client(RetryPolicy::new(), |number| match number {
        1 => Ok(refusal(&[], number)),
        _ => Err(io::Error::other("connection reset")),
    });
    assert_eq!(client.oneshot(post()).await.unwrap_err().to_string(), "connection reset");
    assert_eq!(server.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn unavailable_is_not_retried_unless_it_is_wanted() {
    let answer =
        |number| response(StatusCode::SERVICE_UNAVAILABLE, &[("retry-after", "1")], number);
    for method in ALL_METHODS {
        let (response, times, _) =
            exchange(RetryPolicy::new(), request(method.clone()), answer).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(times.len(), 1, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn unavailable_is_retried_by_choice_if_the_method_is_idempotent() {
    let policy = RetryPolicy::builder().retry_unavailable().build().unwrap();
    for method in ALL_METHODS {
        let answer = |number| match number {
            1 => response(StatusCode::SERVICE_UNAVAILABLE, &[("retry-after", "3")], number),
            _ => response(StatusCode::OK, &[], number),
        };
        let (response, times, _) = exchange(policy.clone(), request(method.clone()), answer).await;
        if [Method::POST, Method::PATCH, Method::CONNECT].contains(&method) {
            assert_eq!(
                (response.status(), times.len()),
                (StatusCode::SERVICE_UNAVAILABLE, 1),
                "{method}"
            );
        } else {
            assert_eq!((response.status(), times.len()), (StatusCode::OK, 2), "{method}");
            assert!(times[1] >= Duration::from_secs(3), "{method} after {:?}", times[1]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unavailable_is_retried_only_if_the_server_says_when() {
    let policy = RetryPolicy::builder().retry_unavailable().build().unwrap();
    for fields in [&[][..], &[("retry-after", "soon")], &[("retry-after", "-1")]] {
        let answer = |number| response(StatusCode::SERVICE_UNAVAILABLE, fields, number);
        let (response, times, _) = exchange(policy.clone(), request(Method::GET), answer).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(times.len(), 1, "{fields:?}");
    }
}

// How often.

#[tokio::test(start_paused = true)]
async fn endless_refusals_end_with_the_last_one() {
    for most in [1, 2, 9, 100] {
        let answer = |number| refusal(&[("retry-after", "1")], number);
        let policy = RetryPolicy::builder().attempts(most).total_time(DAY).build().unwrap();
        let (response, times, _) = exchange(policy, post(), answer).await;
        assert_eq!(response.body(), &most.to_string());
        assert_eq!(times.len(), most as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn by_default_a_request_is_sent_again_until_its_time_is_over() {
    let second = Duration::from_secs(1);
    for (policy, total) in [
        (RetryPolicy::new(), second * 300),
        (RetryPolicy::builder().total_time(second * 60).build().unwrap(), second * 60),
        (RetryPolicy::builder().total_time(second * 36_000).build().unwrap(), second * 36_000),
    ] {
        let answer = |number| refusal(&[("retry-after", "1")], number);
        let (response, times, end) = exchange(policy, post(), answer).await;
        assert_eq!(response.body(), &times.len().to_string());
        // The next one would be up to 11 s later.
        assert!(end <= total && end + second * 12 > total, "{end:?} of {total:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_request_has_attempts_of_its_own() {
    let server = Server::start();
    let mut client = server.client(attempts(5), |number| Ok(refusal(&[], number)));
    for sent in 1..=3 {
        client.ready().await.unwrap().call(post()).await.unwrap();
        assert_eq!(server.requests(), 5 * sent);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_handed_back_is_as_it_came() {
    let answer = |number| {
        let mut response =
            refusal(&[("retry-after", "1"), ("x-twice", "a"), ("x-twice", "b")], number);
        *response.version_mut() = Version::HTTP_2;
        response.extensions_mut().insert(number);
        response
    };
    let (response, _, _) = exchange(attempts(5), post(), answer).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(response.headers(), answer(5).headers());
    assert_eq!(response.extensions().get(), Some(&5_usize));
    assert_eq!(response.body(), "5");
}

/// A refusal after which only the random part of the wait is left.
fn at_once(number: usize) -> Response<String> {
    refusal(&[("retry-after", "0")], number)
}

#[tokio::test(start_paused = true)]
async fn the_random_waits_become_longer() {
    let policy = RetryPolicy::builder()
        .attempts(5)
        .backoff(Duration::from_millis(100), Duration::from_millis(300))
        .build()
        .unwrap();
    let mut longest = [Duration::ZERO; 4];
    for _ in 0..500 {
        let (_, times, _) = exchange(policy.clone(), post(), at_once).await;
        for (longest, pair) in longest.iter_mut().zip(times.windows(2)) {
            *longest = (*longest).max(pair[1] - pair[0]);
        }
    }
    // The timer rounds up to milliseconds. The chance that none of 500 is in the upper half is
    // 2^-500.
    for (longest, limit) in longest.into_iter().zip([100, 200, 300, 300]) {
        let limit = Duration::from_millis(limit);
        assert!(
            longest > limit / 2 && longest <= limit + Duration::from_millis(1),
            "{longest:?} of {limit:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn by_default_the_random_waits_become_up_to_ten_seconds() {
    let policy = RetryPolicy::builder().attempts(11).build().unwrap();
    let mut longest = [Duration::ZERO; 10];
    for _ in 0..500 {
        let (_, times, _) = exchange(policy.clone(), post(), at_once).await;
        for (longest, pair) in longest.iter_mut().zip(times.windows(2)) {
            *longest = (*longest).max(pair[1] - pair[0]);
        }
    }
    let limits =
        [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000].map(Duration::from_millis);
    for (longest, limit) in longest.into_iter().zip(limits) {
        assert!(
            longest > limit.mul_f64(0.95) && longest <= limit + Duration::from_millis(1),
            "{longest:?} of {limit:?}"
        );
    }
}

// How long.

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_total_time_is_not_begun() {
    let policy = RetryPolicy::builder().total_time(Duration::from_secs(20)).build().unwrap();
    let (response, times, end) =
        exchange(policy, post(), |number| refusal(&[("retry-after", "7")], number)).await;
    // Sent at 0, 7 and 14 s; the fourth time would be at 21 s.
    assert_eq!((response.body().as_str(), times.len()), ("3", 3));
    assert_eq!(end, times[2]);
}

#[tokio::test(start_paused = true)]
async fn the_total_time_begins_with_the_first_refusal() {
    let policy = RetryPolicy::builder().total_time(Duration::from_secs(2)).build().unwrap();
    let slow = service_fn(|_: Request<String>| async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        Ok::<_, io::Error>(refusal(&[("retry-after", "1")], 0))
    });
    let server = Server::start();
    let client = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(slow);
    client.oneshot(post()).await.unwrap();
    // The first response takes 30 s and so does the second, after which it is too late.
    let end = server.elapsed();
    assert!(end >= Duration::from_secs(61) && end < Duration::from_secs(62), "{end:?}");
}

/// The result of a request whose first retry waits when the process is stopped for an hour.
async fn stopped_for_an_hour<S, B>(client: S) -> StatusCode
where
    S: Service<Request<String>, Response = Response<B>, Error: Debug> + Clone,
{
    let mut call = tokio_test::task::spawn(client.oneshot(post()));
    assert!(call.poll().is_pending());
    advance(Duration::from_secs(3600)).await;
    call.await.unwrap().status()
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_the_process_did_not_run_does_not_count() {
    for refusals in [3, 1000] {
        let answer = move |number| match number {
            number if number <= refusals => Ok(refusal(&[("retry-after", "90")], number)),
            _ => Ok(response(StatusCode::OK, &[], number)),
        };
        // Sent after 0, 90, 180 and 270 s of the 5 minutes, not counting the hour.
        let expected = if refusals == 3 { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        let server = Server::start();
        let client = server.client(RetryPolicy::new(), answer);
        assert_eq!(stopped_for_an_hour(client).await, expected);
        assert_eq!(server.requests(), 4);

        let server = Server::start();
        let client = BolnaClientLayer::new().layer(server.client(attempts(1), answer));
        assert_eq!(stopped_for_an_hour(client).await, expected);
        assert_eq!(server.requests(), 4);
    }
}

proptest! {
    #[test]
    fn no_retry_begins_too_early_or_too_late(asked in 0_u64..9000, total in 1_u64..20_000, attempts in 1_u32..20) {
        let total = Duration::from_millis(total);
        let policy = RetryPolicy::builder().attempts(attempts).total_time(total).build().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let asked_ms = asked.to_string();
        let answer = |number| refusal(&[("retry-after-ms", &asked_ms)], number);
        let (response, times, end) = runtime.block_on(exchange(policy, post(), answer));

        prop_assert!(times.len() <= attempts as usize);
        prop_assert!(times.iter().all(|at| *at <= total), "{:?}", times);
        prop_assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(asked)), "{:?}", times);
        prop_assert_eq!(response.body(), &times.len().to_string());
        prop_assert_eq!(Some(&end), times.last());
    }
}

// All requests together.

#[tokio::test(start_paused = true)]
async fn a_budget_stops_a_storm() {
    // Ten retries in ten seconds.
    let policy = RetryPolicy::builder()
        .budget(TpsBudget::new(Duration::from_secs(10), 1, 0.1))
        .build()
        .unwrap();
    let server = Server::start();
    let client = server.client(policy, |number| Ok(refusal(&[], number)));
    assert_eq!(storm(&client, 1000).await, 0);
    assert_eq!(server.requests(), 1010);
}

#[tokio::test(start_paused = true)]
async fn by_default_the_largest_burst_may_be_sent_again_and_then_a_fifth_of_what_succeeds() {
    let server = Server::start();
    let refusing = server.client(RetryPolicy::new(), |number| Ok(refusal(&[], number)));
    storm(&refusing, 1000).await;
    assert_eq!(server.requests(), 1500);

    let policy = RetryPolicy::new();
    let (up, down) = (Server::start(), Server::start());
    let accepting = up.client(policy.clone(), |number| Ok(response(StatusCode::OK, &[], number)));
    let refusing = down.client(policy, |number| Ok(refusal(&[], number)));
    storm(&refusing, 1000).await;
    assert_eq!(storm(&accepting, 100).await, 100);
    storm(&refusing, 1000).await;
    assert_eq!(down.requests(), 2500 + 20);

    // Withdrawals expire after 10 to 11 s.
    advance(Duration::from_secs(12)).await;
    storm(&refusing, 1000).await;
    assert_eq!(down.requests(), 3500 + 20 + 500);
}

#[tokio::test(start_paused = true)]
async fn a_burst_that_is_refused_at_once_comes_through() {
    let server = Server::start();
    let client = server.client(RetryPolicy::new(), |number| {
        let status = if number <= 500 { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
        Ok(response(status, &[], number))
    });
    assert_eq!(storm(&client, 500).await, 500);
}

/// A budget that counts its calls.
#[derive(Clone, Default)]
struct Counting(Arc<[AtomicUsize; 2]>);

impl Budget for Counting {
    fn deposit(&self) {
        self.0[0].fetch_add(1, Ordering::Relaxed);
    }

    fn withdraw(&self) -> bool {
        self.0[1].fetch_add(1, Ordering::Relaxed);
        true
    }
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_charged_for_retries_and_filled_by_what_is_not_refused() {
    let counting = Counting::default();
    let count = || [0, 1].map(|index| counting.0[index].swap(0, Ordering::Relaxed));
    let policy = RetryPolicy::builder().attempts(5).budget(counting.clone()).build().unwrap();

    exchange(policy.clone(), post(), |number| response(StatusCode::OK, &[], number)).await;
    assert_eq!(count(), [1, 0]);
    exchange(policy.clone(), post(), |number| {
        response(StatusCode::INTERNAL_SERVER_ERROR, &[], number)
    })
    .await;
    assert_eq!(count(), [1, 0]);
    exchange(policy.clone(), post(), |number| {
        response(StatusCode::SERVICE_UNAVAILABLE, &[], number)
    })
    .await;
    assert_eq!(count(), [0, 0]);
    exchange(policy.clone(), post(), |number| refusal_once(&[], number)).await;
    assert_eq!(count(), [1, 1]);
    exchange(policy.clone(), post(), |number| refusal(&[], number)).await;
    assert_eq!(count(), [0, 4]);
    // A retry that is not made withdraws nothing.
    exchange(policy, post(), |number| refusal(&[("retry-after", "3600")], number)).await;
    assert_eq!(count(), [0, 0]);
}

/// A server that refuses everything for an hour gets few requests in that time, and no request is
/// lost for want of attempts or budget.
#[tokio::test(start_paused = true)]
async fn a_paced_job_loses_nothing_while_its_time_lasts() {
    const CALLS: usize = 1500;
    let hour = Duration::from_secs(3600);
    let retry = RetryPolicy::builder().total_time(hour * 24).build().unwrap();
    let pacer = Pacer::builder().max_wait(hour * 24).build().unwrap();
    let server = Server::start();
    let opens = tokio::time::Instant::now() + hour;
    let refused = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&refused);
    let client = BolnaClientLayer::with_pacer(pacer).retry(retry).layer(server.client(
        RetryPolicy::builder().attempts(1).build().unwrap(),
        move |number| {
            if tokio::time::Instant::now() >= opens {
                return Ok(response(StatusCode::OK, &[], number));
            }
            counts.fetch_add(1, Ordering::Relaxed);
            Ok(refusal(&[], number))
        },
    ));
    let responses = join_all((0..CALLS).map(|_| client.clone().oneshot(post()))).await;
    assert!(responses.iter().all(|response| response.as_ref().unwrap().status() == StatusCode::OK));
    // The first burst, and then one at a time.
    let refused = refused.load(Ordering::Relaxed);
    assert!(refused <= 500 + 100, "{refused}");
}

/// A budget of one retry in all.
#[derive(Clone, Default)]
struct One(Arc<AtomicUsize>);

impl Budget for One {
    fn deposit(&self) {}

    fn withdraw(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) == 0
    }
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_draw_on_one_budget() {
    let policy = RetryPolicy::builder().budget(One::default()).build().unwrap();
    let layer = BolnaClientLayer::new().retry(policy);
    let servers = [Server::start(), Server::start()];
    for server in &servers {
        let server = server.clone();
        let client = layer.layer(
            server.client(RetryPolicy::builder().attempts(1).build().unwrap(), |number| {
                Ok(refusal(&[], number))
            }),
        );
        assert_eq!(client.oneshot(post()).await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(servers.map(|server| server.requests()), [2, 1]);
}

// Bodies.

/// A body that can't be cloned.
struct Stream;

/// How often a stream is sent to a server that refuses all requests.
async fn streams<C: CloneBody<Stream>>(policy: RetryPolicy<C>) -> usize {
    let sent = AtomicUsize::new(0);
    let refusing = service_fn(|_: Request<Stream>| {
        let number = sent.fetch_add(1, Ordering::Relaxed) + 1;
        async move { Ok::<_, io::Error>(refusal(&[("retry-after", "1")], number)) }
    });
    let client = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(refusing);
    let response = client.oneshot(Request::post("/call").body(Stream).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.body(), &sent.load(Ordering::Relaxed).to_string());
    sent.into_inner()
}

#[tokio::test(start_paused = true)]
async fn a_body_that_can_not_be_cloned_is_sent_once() {
    assert_eq!(streams(RetryPolicy::builder().send_once().build().unwrap()).await, 1);
    assert_eq!(
        streams(RetryPolicy::builder().clone_bodies_with(SendOnce).build().unwrap()).await,
        1
    );
    assert_eq!(
        streams(RetryPolicy::builder().clone_bodies_with(|_: &Stream| None).build().unwrap()).await,
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_closure_clones_what_it_can() {
    assert_eq!(
        streams(
            RetryPolicy::builder()
                .attempts(5)
                .clone_bodies_with(|_: &Stream| Some(Stream))
                .build()
                .unwrap()
        )
        .await,
        5
    );
    let function: fn(&Stream) -> Option<Stream> = |_| Some(Stream);
    assert_eq!(
        streams(RetryPolicy::builder().attempts(5).clone_bodies_with(function).build().unwrap())
            .await,
        5
    );
}

#[tokio::test(start_paused = true)]
async fn no_body_is_cloned_where_nothing_is_sent_again() {
    let clones = AtomicUsize::new(0);
    let counting = |_: &Stream| {
        clones.fetch_add(1, Ordering::Relaxed);
        Some(Stream)
    };
    assert_eq!(
        streams(RetryPolicy::builder().attempts(1).clone_bodies_with(counting).build().unwrap())
            .await,
        1
    );
    assert_eq!(clones.into_inner(), 0);
}

// Settings.

#[test]
fn settings_that_make_no_sense_are_errors_which_name_the_value() {
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    let builder = RetryPolicy::builder;
    for (builder, error, names) in [
        (builder().attempts(0), RetryPolicyError::ZeroAttempts, &["attempts is 0"][..]),
        (
            builder().total_time(Duration::ZERO),
            RetryPolicyError::ZeroTotalTime,
            &["total time is 0 s"],
        ),
        (
            builder().backoff(Duration::ZERO, second),
            RetryPolicyError::ZeroBackoff,
            &["backoff base is 0 s"],
        ),
        (
            builder().backoff(Duration::ZERO, Duration::ZERO),
            RetryPolicyError::ZeroBackoff,
            &["backoff base is 0 s"],
        ),
        (
            builder().backoff(minute, second),
            RetryPolicyError::BackoffAboveMax { base: minute, max: second },
            &["backoff base 60s", "1s"],
        ),
    ] {
        let built = builder.build().unwrap_err();
        assert_eq!(built, error);
        for name in names {
            assert!(built.to_string().contains(name), "{built}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_extremes_of_all_settings_work() {
    let ends = [Duration::from_nanos(1), Duration::MAX];
    for (total, base, max) in
        ends.iter().flat_map(|a| ends.iter().flat_map(move |b| ends.map(|c| (*a, *b, c))))
    {
        let builder =
            RetryPolicy::builder().attempts(u32::MAX).total_time(total).backoff(base, max);
        let Ok(policy) = builder.budget(Counting::default()).build() else {
            assert!(base > max);
            continue;
        };
        let (response, _, _) =
            exchange(policy, post(), |number| refusal_once(&[("retry-after", "1")], number)).await;
        let expected =
            if total == Duration::MAX { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        assert_eq!(response.status(), expected, "{total:?}, {base:?}, {max:?}");
    }
}
