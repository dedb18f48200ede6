//! What the client learns from refusals: the window of requests without an answer, the probe, and
//! the rate that the server really gives. `foreign` holds whole jobs against many servers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, RetryPolicy, WaitError};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{Policy, Quota};
use http::{Request, Response};
use tokio::time::{Instant, sleep, timeout};
use tower::{BoxError, Layer, ServiceExt, service_fn};

use crate::support::{
    Log, Remote, assert_all_ok, assert_at, distant, generous, mock, patient, refusal, send,
    send_calls, settle, usage_of_call,
};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// A server that never answers.
fn silent(log: &Log) -> Remote {
    let log = log.clone();
    Remote::new(service_fn(move |request: Request<String>| {
        log.add(request.uri().to_string(), http::StatusCode::OK);
        std::future::pending::<Result<Response<String>, BoxError>>()
    }))
}

/// A server that admits one request in each period, and names no time. It is a token bucket of one.
fn one_in(log: &Log, period: Duration) -> Remote {
    let free_at = Arc::new(Mutex::new(Instant::now()));
    mock(log, move |_| {
        let (mut free_at, now) = (free_at.lock().unwrap(), Instant::now());
        if now < *free_at {
            return refusal(&[]);
        }
        *free_at = now + period;
        Response::new(String::new())
    })
}

#[tokio::test(start_paused = true)]
async fn a_tenth_of_the_burst_is_sent_before_the_first_answer() {
    let log = Log::new();
    let client = BolnaClientLayer::new().layer(silent(&log));
    let _calls: Vec<_> = (0..1000).map(|_| send(&client, "/call")).collect();
    settle().await;
    assert_eq!(log.len(), 50);
    // A server that takes long is not made to answer one after another.
    sleep(Duration::from_millis(10)).await;
    for sent in [100, 200, 400, 495] {
        sleep(SECOND).await;
        assert!((sent..sent + 50).contains(&log.len()), "{} instead of {sent}", log.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_small_burst_is_sent_at_once() {
    let log = Log::new();
    let policy = Policy::bolna().quota("call", Quota::per_minute(10)).build().unwrap();
    let pacer = patient().policy(policy).jitter(Duration::ZERO).build().unwrap();
    let client = PaceLayer::new(pacer).layer(silent(&log));
    let _calls: Vec<_> = (0..20).map(|_| send(&client, "/call")).collect();
    settle().await;
    assert_eq!(log.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn the_first_burst_takes_a_few_round_trips() {
    let log = Log::new();
    let trip = Duration::from_millis(50);
    let client = BolnaClientLayer::new().layer(distant(generous(&log), move |_| trip));
    assert_all_ok(&send_calls(&client, 495).await);
    assert!(log.elapsed() <= 7 * 2 * trip, "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_first_burst_leaves_something_to_clients_that_are_farther_off() {
    let log = Log::new();
    let near = Duration::from_millis(1);
    let client = BolnaClientLayer::new().layer(distant(generous(&log), move |_| near));
    let calls: Vec<_> = (0..495).map(|number| send(&client, &format!("/call?{number}"))).collect();
    sleep(Duration::from_millis(99)).await;
    assert_eq!(log.len(), 50);
    for call in calls {
        assert!(call.await.unwrap().unwrap().is_success());
    }
    assert!(log.elapsed() <= Duration::from_millis(500), "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn calls_one_after_another_are_not_held_up_at_first() {
    let log = Log::new();
    let near = Duration::from_millis(1);
    let client = BolnaClientLayer::new().layer(distant(generous(&log), move |_| near));
    for number in 0..200 {
        assert!(send(&client, &format!("/call?{number}")).await.unwrap().unwrap().is_success());
    }
    assert!(log.elapsed() <= 200 * 2 * near, "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_the_next_request_is_sent_when_the_probe_is_answered() {
    let log = Log::new();
    let server = mock(&log, |number| match number {
        1..=10 => refusal(&[("retry-after", "2")]),
        _ => Response::new(String::new()),
    });
    // The eleventh request, the probe, takes 5 s, and so does its answer.
    let server = distant(server, |number| Duration::from_secs(if number > 21 { 5 } else { 0 }));
    let client = BolnaClientLayer::with_pacer(patient().build().unwrap()).layer(server);
    let calls: Vec<_> = (0..10).map(|_| send(&client, "/call")).collect();
    for call in calls {
        assert!(call.await.unwrap().unwrap().is_success());
    }
    let times = log.times("/call");
    assert!(times[11] - times[10] >= Duration::from_secs(10), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_without_an_answer_stops_nothing_for_longer_than_30_s() {
    let log = Log::new();
    let (refused, lost) = (mock(&log, |_| refusal(&[])), silent(&log));
    let log_of_all = log.clone();
    let server = Remote::new(service_fn(move |request: Request<String>| {
        let is_first = log_of_all.len() == 0;
        let service = if is_first { refused.clone() } else { lost.clone() };
        service.oneshot(request)
    }));
    let client = PaceLayer::new(patient().build().unwrap()).layer(server);
    let _calls: Vec<_> = (0..3).map(|_| send(&client, "/call")).collect();
    // The three are sent together, and the first is refused.
    sleep(2 * SECOND).await;
    let _more: Vec<_> = (0..2).map(|_| send(&client, "/call")).collect();
    sleep(Duration::from_secs(120)).await;
    assert!(log.len() >= 5, "{} were sent", log.len());
}

/// The first request is refused after a tenth of a second. The answers to the next `calls` take
/// `time`, and later ones come at once.
fn slow_after_a_refusal(log: &Log, calls: u32, time: Duration) -> Remote {
    let server = mock(log, |number| match number {
        1 => refusal(&[("retry-after", "2")]),
        _ => Response::new(String::new()),
    });
    distant(server, move |number| match number {
        3 => SECOND / 10,
        4.. if number % 2 == 1 && number <= 2 * calls + 3 => time,
        _ => Duration::ZERO,
    })
}

#[tokio::test(start_paused = true)]
async fn a_probe_does_not_wait_for_requests_that_were_sent_before_the_refusal() {
    let log = Log::new();
    let server = slow_after_a_refusal(&log, 49, 600 * SECOND);
    let client = BolnaClientLayer::with_pacer(patient().build().unwrap()).layer(server);
    let calls: Vec<_> = (0..60).map(|_| send(&client, "/call")).collect();
    sleep(10 * SECOND).await;
    let times = log.times("");
    assert_eq!(times.len(), 61, "{times:?}");
    assert!((2 * SECOND..3 * SECOND).contains(&times[50]), "{times:?}");
    for call in calls {
        assert!(call.await.unwrap().unwrap().is_success());
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_request_before_the_refusal_does_not_stand_for_that_to_the_probe() {
    // Three are sent, and the first is refused. The probe follows 2 s later, and takes 20 s, as the
    // others that were sent before.
    let log = Log::new();
    let server = slow_after_a_refusal(&log, 3, 20 * SECOND);
    let client = BolnaClientLayer::with_pacer(patient().build().unwrap()).layer(server);
    let mut calls: Vec<_> = (0..3).map(|_| send(&client, "/call")).collect();
    sleep(SECOND).await;
    calls.extend((0..3).map(|_| send(&client, "/call")));
    for call in calls {
        assert!(call.await.unwrap().unwrap().is_success());
    }
    let times = log.times("");
    assert!((2 * SECOND..3 * SECOND).contains(&times[3]), "{times:?}");
    assert!(times[4] >= times[3] + 20 * SECOND, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_a_minute_to_answer_is_sent_as_many_as_the_policy_allows() {
    let log = Log::new();
    let policy = Policy::bolna().quota("call", Quota::per_second(10).burst(100)).build().unwrap();
    let pacer = patient().policy(policy).jitter(Duration::ZERO).build().unwrap();
    let server = slow_after_a_refusal(&log, u32::MAX / 4, 60 * SECOND);
    let client = BolnaClientLayer::with_pacer(pacer).layer(server);
    assert_all_ok(&send_calls(&client, 3000).await);
    // The last one is sent after 290 s at the earliest.
    assert!(log.times("")[3000] <= 400 * SECOND, "{:?}", log.times("")[3000]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_refuses_few_requests_of_a_job() {
    // One call in 2 s, where the policy allows 500 a minute.
    let log = Log::new();
    let retry = RetryPolicy::builder().total_time(HOUR).build().unwrap();
    let server = distant(one_in(&log, 2 * SECOND), |_| Duration::from_millis(20));
    let pacer = patient().build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).retry(retry).layer(server);
    assert_all_ok(&timeout(HOUR, send_calls(&client, 300)).await.unwrap());
    // Some at first, and then about one in twenty.
    assert!(log.refused() <= 75, "{}", log.refused());
    assert!(log.elapsed() <= Duration::from_secs(598).mul_f64(1.2), "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_is_forgotten_an_hour_after_the_last_refusal() {
    let log = Log::new();
    let retry = RetryPolicy::builder().total_time(HOUR).build().unwrap();
    let strict = one_in(&log, 2 * SECOND);
    let pacer = patient().build().unwrap();
    let is_strict = Arc::new(Mutex::new(true));
    let (generous, knows) = (generous(&log), Arc::clone(&is_strict));
    let server = Remote::new(service_fn(move |request: Request<String>| {
        let is_strict = *knows.lock().unwrap();
        if is_strict { strict.clone() } else { generous.clone() }.oneshot(request)
    }));
    let client = BolnaClientLayer::with_pacer(pacer.clone()).retry(retry).layer(server);
    assert_all_ok(&timeout(HOUR, send_calls(&client, 50)).await.unwrap());
    *is_strict.lock().unwrap() = false;
    sleep(HOUR + SECOND).await;
    let started = Instant::now();
    assert_all_ok(&timeout(HOUR, send_calls(&client, 495)).await.unwrap());
    assert!(started.elapsed() <= SECOND, "{:?}", started.elapsed());
    assert_eq!(usage_of_call(&pacer).paused(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_gets_faster_is_noticed_within_minutes() {
    let log = Log::new();
    let retry = RetryPolicy::builder().total_time(HOUR).build().unwrap();
    let strict = one_in(&log, 2 * SECOND);
    let is_strict = Arc::new(Mutex::new(true));
    let (generous, knows) = (generous(&log), Arc::clone(&is_strict));
    let server = Remote::new(service_fn(move |request: Request<String>| {
        let is_strict = *knows.lock().unwrap();
        if is_strict { strict.clone() } else { generous.clone() }.oneshot(request)
    }));
    let client =
        BolnaClientLayer::with_pacer(patient().build().unwrap()).retry(retry).layer(server);
    assert_all_ok(&timeout(HOUR, send_calls(&client, 50)).await.unwrap());
    *is_strict.lock().unwrap() = false;
    let started = Instant::now();
    // At one in 2 s they would take 50 minutes; at the policy's rate 3.
    assert_all_ok(&timeout(HOUR, send_calls(&client, 1500)).await.unwrap());
    assert!(started.elapsed() <= Duration::from_secs(8 * 60), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_learned_rate_makes_no_request_fail_before_its_longest_wait() {
    let log = Log::new();
    let longest = Duration::from_secs(60);
    let pacer = Pacer::builder().max_wait(longest).build().unwrap();
    let retry = RetryPolicy::builder().total_time(HOUR).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer).retry(retry).layer(one_in(&log, 5 * SECOND));
    let started = Instant::now();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let call = send(&client, "/call");
            tokio::spawn(async move { (call.await.unwrap(), started.elapsed()) })
        })
        .collect();
    let mut failed = 0;
    for call in calls {
        if let (Err(error), after) = call.await.unwrap() {
            let error = error.downcast::<WaitError>().unwrap();
            assert!(error.wait() > Duration::ZERO, "{error}");
            assert!(error.to_string().contains("for another"), "{error}");
            // A pause that ends too late is known a few seconds before.
            assert!(after + Duration::from_secs(10) >= longest, "{error} after {after:?}");
            failed += 1;
        }
    }
    assert!(failed > 0, "the server is too slow for all of them");
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_sent_in_another_way_do_not_wait_for_an_answer_that_none_sees() {
    let log = Log::new();
    let server = mock(&log, |_| refusal(&[("retry-after", "1")]));
    // Units are there for all of them when the pause of a second ends.
    let policy = Policy::bolna().quota("call", Quota::per_second(10_000)).build().unwrap();
    let pacer = patient().policy(policy).build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(server);
    assert!(send(&client, "/call").await.unwrap().unwrap().as_u16() == 429);
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let pacer = pacer.clone();
            tokio::spawn(async move { pacer.acquire("/call").await })
        })
        .collect();
    // A permit that is dropped would let the next one go.
    let mut permits = Vec::new();
    for acquired in waiting {
        permits.push(acquired.await.unwrap().unwrap());
    }
    assert!(log.elapsed() <= 2 * SECOND, "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_was_ended_by_hand_teaches_nothing() {
    // One call in 2 s, and once a nonsense wait.
    let log = Log::new();
    let (strict, seen) = (one_in(&log, 2 * SECOND), log.clone());
    let nonsense = mock(&log, |_| refusal(&[("retry-after", "3600")]));
    let server = Remote::new(service_fn(move |request: Request<String>| {
        let service = if seen.len() == 100 { nonsense.clone() } else { strict.clone() };
        service.oneshot(request)
    }));
    let pacer = patient().build().unwrap();
    let retry = RetryPolicy::builder().total_time(2 * HOUR).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).retry(retry).layer(server);
    let calls: Vec<_> = (0..300).map(|_| send(&client, "/call")).collect();
    while log.len() <= 100 {
        sleep(SECOND).await;
    }
    pacer.resume("/call");
    let resumed = Instant::now();
    for call in calls {
        assert!(timeout(HOUR, call).await.unwrap().unwrap().unwrap().is_success());
    }
    // Of the 300 calls, at most 100 were placed before. The server takes 400 s for the others.
    assert!(resumed.elapsed() <= 700 * SECOND, "{:?}", resumed.elapsed());
    let rate = usage_of_call(&pacer).learned_rate().expect("the server is stricter");
    assert!((SECOND..4 * SECOND).contains(&rate.plateau_interval()), "{rate:?}");
    assert!(log.refused() <= 75, "{}", log.refused());
}

#[tokio::test(start_paused = true)]
async fn a_rate_of_one_endpoint_is_not_that_of_a_limit_of_the_same_name_that_others_share() {
    let log = Log::new();
    let quota = Quota::per_minute(500);
    let pacer = patient().policy(Policy::builder().endpoint("a", quota, ["/a"]).build().unwrap());
    let pacer = pacer.build().unwrap();
    let retry = RetryPolicy::builder().total_time(HOUR).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).retry(retry);
    let client = client.layer(one_in(&log, 2 * SECOND));
    for call in (0..20).map(|_| send(&client, "/a")).collect::<Vec<_>>() {
        assert!(timeout(HOUR, call).await.unwrap().unwrap().unwrap().is_success());
    }
    assert!(pacer.peek("/a").unwrap().learned_rate().is_some());
    let shared = Policy::builder().endpoint("b", quota, ["/b"]).endpoint("c", quota, ["/c"]);
    let shared = shared.shared(LimitBuilder::account("a", quota), ["b", "c"]);
    pacer.set_policy(shared.build().unwrap());
    assert_eq!(pacer.peek("/b").unwrap().learned_rate(), None);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_learned_rate_is_sent_when_that_is_forgotten() {
    // The job learns a rate that is much slower than the policy's 500 a minute.
    let log = Log::new();
    let pacer = patient().build().unwrap();
    let retry = RetryPolicy::builder().total_time(HOUR).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).retry(retry);
    assert_all_ok(&send_calls(&client.layer(one_in(&log, 60 * SECOND)), 5).await);
    let mut refused = log.got().into_iter().filter(|got| !got.status.is_success());
    let forgotten = refused.next_back().unwrap().at + HOUR;
    // What these teach is unknown, so the rate stays.
    let mut times = Vec::new();
    while log.elapsed() < forgotten {
        pacer.acquire("/call").await.map(drop).unwrap();
        times.push(log.elapsed());
    }
    let [.., one, next, last] = times[..] else { panic!("few: {times:?}") };
    assert!(next - one >= SECOND, "the rate was not learned: {times:?}");
    assert_at(last, forgotten);
}
