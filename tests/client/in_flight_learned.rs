//! Limits of requests in flight that the server reports, and its refusals because of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, RetryPolicy};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{Policy, Quota};
use futures_util::FutureExt;
use http::StatusCode;
use tokio::time::{advance, sleep, timeout};
use tower::{Layer, Service, ServiceExt};

use crate::lines::{Answer, Dialled, Lines, serve};
use crate::support::{Log, assert_at, patient, request, settle, usage_of_call};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn at_once(calls: u32) -> Policy {
    Policy::bolna().concurrent("call", calls).build().unwrap()
}

/// A report about a limit of requests in flight.
fn reports(answer: Answer, name: &str, most: u32, remaining: usize) -> Answer {
    let policy = format!("\"{name}\";q={most};qu=\"concurrent-requests\"");
    let answer = answer.field("ratelimit-policy", policy);
    answer.field("ratelimit", format!("\"{name}\";r={remaining}"))
}

/// A server that reports what the test says, for ever.
fn says(log: &Log, name: &'static str, most: &Arc<Mutex<Option<u32>>>) -> Dialled {
    let most = Arc::clone(most);
    serve(log, move |_| {
        let answer = Answer::default();
        let most = *most.lock().unwrap();
        (most.map_or_else(|| answer.clone(), |most| reports(answer.clone(), name, most, 0)), vec![])
    })
}

fn most(pacer: &Pacer, path: &str) -> Option<u64> {
    Some(pacer.peek(path).unwrap().concurrency()?.most())
}

#[tokio::test(start_paused = true)]
async fn the_smaller_limit_counts_and_the_servers_is_forgotten_after_an_hour() {
    for name in ["call-concurrent", "another"] {
        let (log, told) = (Log::new(), Arc::default());
        let pacer = patient().policy(at_once(10)).build().unwrap();
        let client = PaceLayer::new(pacer.clone()).layer(says(&log, name, &told));
        let open = async || drop(client.clone().oneshot(request("/call")).await.unwrap());
        for (says, expected) in [(None, 10), (Some(4), 4), (Some(7), 7), (Some(99), 10)] {
            *told.lock().unwrap() = says;
            open().await;
            assert_eq!(most(&pacer, "/call"), Some(expected), "{name}: {says:?}");
            assert_eq!(usage_of_call(&pacer).remaining(), u32::try_from(expected).unwrap());
        }
        *told.lock().unwrap() = Some(4);
        open().await;
        *told.lock().unwrap() = None;
        advance(HOUR - SECOND).await;
        open().await;
        assert_eq!(most(&pacer, "/call"), Some(4), "{name}");
        advance(SECOND * 2).await;
        assert_eq!(most(&pacer, "/call"), Some(10), "{name}: no request is needed to notice it");
        open().await;
        assert_eq!(most(&pacer, "/call"), Some(10), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_the_policy_does_not_have_is_that_of_the_endpoint() {
    let (log, told) = (Log::new(), Arc::new(Mutex::new(None)));
    let pacer = patient().policy(Policy::default()).build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(says(&log, "lines", &told));
    let open = async || client.clone().oneshot(request("/call")).await.unwrap();
    let mut held = vec![open().await];
    assert_eq!(most(&pacer, "/call"), None);
    // These two have no response when the limit becomes known.
    let mut service = client.clone();
    let (first, second) = (service.call(request("/call")), service.call(request("/call")));
    *told.lock().unwrap() = Some(4);
    held.push(open().await);
    let usage = usage_of_call(&pacer).concurrency().unwrap();
    assert_eq!((usage.limit(), usage.most(), usage.in_flight()), (None, 4, 3));
    assert_eq!(most(&pacer, "/v2/agent/7"), None);
    held.push(first.await.unwrap());
    held.push(open().await);
    let waits = tokio::spawn(timeout(HOUR, client.clone().oneshot(request("/call"))));
    settle().await;
    assert_eq!((usage_of_call(&pacer).waiting(), log.len()), (1, 5));
    drop(second);
    held.push(waits.await.unwrap().unwrap().unwrap());
    assert_eq!(usage_of_call(&pacer).concurrency().unwrap().in_flight(), 4);
    drop(held);
    assert_eq!(usage_of_call(&pacer).concurrency().unwrap().in_flight(), 0);

    let pacer = patient().max_wait(SECOND).policy(Policy::default()).build().unwrap();
    *told.lock().unwrap() = Some(1);
    let client = PaceLayer::new(pacer).layer(says(&log, "lines", &told));
    let _held = client.clone().oneshot(request("/call")).await.unwrap();
    let error = client.oneshot(request("/call")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "not sent: a request to \"call\" would have to wait until the 1 request in flight ends by a \
         limit of the server, and this client allows at most 1.0s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_or_below_the_cost_allows_one_request_at_a_time() {
    let (log, told) = (Log::new(), Arc::new(Mutex::new(Some(0))));
    let limit = LimitBuilder::account("lines", Quota::concurrent(9)).cost(3);
    let policy = Policy::bolna().also("call", limit).build().unwrap();
    let pacer = patient().policy(policy).build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(says(&log, "lines", &told));
    for (says, expected) in [(0, 9), (1, 3), (2, 3), (7, 7)] {
        *told.lock().unwrap() = Some(says);
        drop(timeout(HOUR, client.clone().oneshot(request("/call"))).await.unwrap().unwrap());
        assert_eq!(most(&pacer, "/call"), Some(expected), "{says}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_units_are_ignored() {
    let log = Log::new();
    let server = serve(&log, |_| {
        let answer = Answer::default()
            .field("ratelimit-policy", "\"call\";q=1;w=60;qu=\"content-bytes\", \"x\";q=1;qu=lines")
            .field("ratelimit", "\"call\";r=0;t=60, \"x\";r=0;t=60");
        (answer, vec![])
    });
    let pacer = Pacer::new();
    let client = PaceLayer::new(pacer.clone()).layer(server);
    for _ in 0..50 {
        drop(client.clone().oneshot(request("/call")).await.unwrap());
    }
    let usage = usage_of_call(&pacer);
    assert_eq!(
        (usage.remaining(), usage.concurrency(), usage.paused()),
        (445, None, Duration::ZERO)
    );
}

/// A server that has `most` lines for calls, with this crate's fields. Some are taken by others.
fn limited(log: &Log, lines: &Lines, others: &Lines, most: usize, takes: Duration) -> Dialled {
    let (lines, others) = (lines.clone(), others.clone());
    serve(log, move |request| {
        let answer = Answer::after(takes).field("ratelimit-policy", "\"call\";q=500;w=60");
        let answer = answer.field("ratelimit", "\"call\";r=300;t=36");
        let taken = lines.now() + others.now();
        let number = u32::try_from(most).unwrap();
        let answer = if request.uri().path() != "/call" {
            answer
        } else if taken >= most {
            let answer = reports(answer, "call-concurrent", number, 0).refused();
            Answer { head: SECOND / 100, ..answer.field("retry-after", "1") }
        } else {
            reports(answer, "call-concurrent", number, most - taken - 1)
        };
        (answer, vec![lines.clone()])
    })
}

#[tokio::test(start_paused = true)]
async fn a_refusal_lowers_what_is_in_flight_and_does_not_pause_the_endpoint() {
    let (log, lines, others) = (Log::new(), Lines::default(), Lines::default());
    // Another client has six of ten.
    let mut taken: Vec<_> = (0..6).map(|_| others.enter()).collect();
    let pacer = patient().policy(at_once(10)).build().unwrap();
    let retry = RetryPolicy::builder().attempts(50).total_time(HOUR).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).retry(retry).layer(limited(
        &log,
        &lines,
        &others,
        10,
        SECOND / 2,
    ));
    let calls: Vec<_> = (0..40)
        .map(|number| {
            let call = client.clone().oneshot(request(&format!("/call?{number}")));
            tokio::spawn(timeout(HOUR, call).map(|answer| answer.unwrap().unwrap().status()))
        })
        .collect();
    sleep(SECOND / 10).await;
    // Four are in flight, six were refused: as many as there are more in flight.
    assert_eq!((log.refused(), lines.now(), most(&pacer, "/call")), (6, 4, Some(4)));
    let usage = usage_of_call(&pacer);
    assert_eq!((usage.paused(), usage.concurrency().unwrap().in_flight()), (Duration::ZERO, 4));
    // Others are sent when these end, and no retry before the time that was asked for.
    sleep(SECOND / 2).await;
    assert_eq!((log.refused(), log.len(), lines.now()), (6, 14, 4));
    let targets = log.targets();
    assert_eq!(targets[10..], ["/call?10", "/call?11", "/call?12", "/call?13"]);
    // It tries one more now and then, and has all when the others are gone.
    sleep(SECOND * 2).await;
    let refused = log.refused();
    assert!((7..=9).contains(&refused), "{refused}");
    taken.clear();
    for call in calls {
        assert_eq!(call.await.unwrap(), StatusCode::OK);
    }
    assert!(log.refused() <= refused + 1 && lines.most() <= 10, "{}", log.refused());
    assert!(log.elapsed() < SECOND * 8, "{:?}", log.elapsed());
    drop(client.oneshot(request("/call")).await.unwrap());
    assert_eq!(usage_of_call(&pacer).concurrency().unwrap().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn if_nothing_is_in_flight_it_waits_as_the_refusal_says_and_longer_each_time() {
    let (log, lines, others) = (Log::new(), Lines::default(), Lines::default());
    let taken: Vec<_> = (0..3).map(|_| others.enter()).collect();
    let all = LimitBuilder::account("shared", Quota::per_minute(500));
    let policy = Policy::bolna().concurrent("call", 3).shared(all, ["call", "agent"]);
    let pacer = patient().policy(policy.build().unwrap()).build().unwrap();
    let retry = RetryPolicy::builder().attempts(50).total_time(HOUR).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).retry(retry).layer(limited(
        &log,
        &lines,
        &others,
        3,
        SECOND / 2,
    ));
    let calls: Vec<_> = (0..9)
        .map(|number| {
            let call = client.clone().oneshot(request(&format!("/call?{number}")));
            tokio::spawn(timeout(HOUR, call).map(|answer| answer.unwrap().unwrap().status()))
        })
        .collect();
    sleep(SECOND / 50).await;
    let usage = usage_of_call(&pacer);
    assert_eq!((log.refused(), usage.waiting(), usage.remaining()), (3, 6, 0));
    // Since the refusals, 10 ms ago, and up to 120 ms more.
    let paused = usage.paused() + SECOND / 50;
    assert!(paused >= SECOND && paused <= SECOND * 2, "{paused:?}");
    assert_eq!(most(&pacer, "/call"), Some(0));
    // Other endpoints are not paused.
    drop(timeout(SECOND, client.clone().oneshot(request("/v2/agent/7"))).await.unwrap().unwrap());
    sleep(SECOND * 60).await;
    let times = log.times("/call");
    // The three at first, and then one after 1, 1, 2, 4, 8, 16 ... seconds, and up to a second more.
    assert!((7..=9).contains(&times.len()), "{times:?}");
    assert!(times[3] >= SECOND, "{times:?}");
    let gaps: Vec<_> = times[3..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (number, gap) in (0..).zip(&gaps[1..]) {
        assert!(*gap >= SECOND * (1 << number), "{times:?}");
    }
    drop(taken);
    for call in calls {
        assert_eq!(call.await.unwrap(), StatusCode::OK);
    }
    assert_eq!((most(&pacer, "/call"), lines.most() <= 3), (Some(3), true));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_refusal_holds_up_for_too_long_fails_at_once() {
    let log = Log::new();
    let server = serve(&log, |_| {
        let answer = reports(Answer::after(SECOND), "lines", 1, 0);
        (answer.refused().field("retry-after", "3000"), vec![])
    });
    let lines = LimitBuilder::account("lines", Quota::concurrent(1));
    let policy = Policy::bolna().shared(lines, ["call", "agent"]).build().unwrap();
    let pacer = Pacer::builder().max_wait(SECOND * 60).policy(policy).build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(server);
    let first = tokio::spawn(client.clone().oneshot(request("/call")));
    settle().await;
    let waits = ["/call", "/v2/agent/7"].map(|path| {
        let pacer = pacer.clone();
        tokio::spawn(async move { pacer.acquire(path).await })
    });
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    let mut errors = Vec::new();
    for wait in waits {
        errors.push(wait.await.unwrap().unwrap_err());
    }
    for path in ["/call", "/v2/agent/7"] {
        errors.push(pacer.acquire(path).await.unwrap_err());
        let usage = pacer.peek(path).unwrap();
        assert!(usage.wait() == usage.paused() && usage.wait() > SECOND * 2_999, "{usage:?}");
    }
    assert_at(log.elapsed(), SECOND);
    for error in errors {
        assert_eq!(error.limit().map(|limit| limit.name()), Some("lines"));
        assert!(error.wait() > SECOND * 2_999 && !error.is_concurrent(), "{error}");
    }
    sleep(SECOND * 3_001).await;
    drop(pacer.acquire("/v2/agent/7").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_because_of_a_rate_pauses_the_endpoint_as_ever() {
    let log = Log::new();
    let server = serve(&log, {
        let log = log.clone();
        move |_| {
            let answer = reports(Answer::default(), "call-concurrent", 9, 0);
            let answer = answer.field("ratelimit-policy", "\"call\";q=500;w=60");
            let answer = answer.field("ratelimit", "\"call\";r=0;t=1").field("retry-after", "5");
            (if log.len() == 1 { answer.refused() } else { Answer::default() }, vec![])
        }
    });
    let pacer = patient().policy(at_once(9)).build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(server);
    let _held = client.clone().oneshot(request("/call")).await.unwrap();
    drop(client.clone().oneshot(request("/call")).await.unwrap());
    assert!(usage_of_call(&pacer).paused() >= SECOND * 5 && most(&pacer, "/call") == Some(9));
    drop(client.oneshot(request("/call")).await.unwrap());
    assert!(log.elapsed() >= SECOND * 5 && log.elapsed() <= SECOND * 6, "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lower_limit_holds_for_requests_that_are_dispatched_and_not_sent() {
    let (log, told) = (Log::new(), Arc::new(Mutex::new(Some(1))));
    let pacer = patient().policy(at_once(2)).build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(says(&log, "call-concurrent", &told));
    let running = [pacer.occupy("/call"), pacer.occupy("/call")];
    let mut waits = tokio_test::task::spawn(client.clone().oneshot(request("/call")));
    tokio_test::assert_pending!(waits.poll());
    let mut service = client.clone();
    drop(running);
    settle().await;
    // It is dispatched. Before it is polled, another response reports a lower limit.
    let other = service.call(request("/call"));
    settle().await;
    let other = timeout(HOUR, other).await.unwrap().unwrap();
    assert_eq!(most(&pacer, "/call"), Some(1));
    tokio_test::assert_pending!(waits.poll());
    assert_eq!(log.len(), 1);
    drop(other);
    drop(timeout(HOUR, waits).await.unwrap().unwrap());
    assert_at(log.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_forgotten_after_an_hour() {
    let (log, lines, others) = (Log::new(), Lines::default(), Lines::default());
    let _taken: Vec<_> = (0..3).map(|_| others.enter()).collect();
    let pacer = patient().policy(at_once(3)).build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(limited(&log, &lines, &others, 3, SECOND));
    let refused = client.oneshot(request("/call")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(most(&pacer, "/call"), Some(0));
    sleep(SECOND * 3).await;
    assert_eq!((most(&pacer, "/call"), usage_of_call(&pacer).paused()), (Some(1), Duration::ZERO));
    sleep(HOUR).await;
    assert_eq!(most(&pacer, "/call"), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_is_sent_when_a_refusal_is_forgotten() {
    let (log, lines, others) = (Log::new(), Lines::default(), Lines::default());
    let _taken: Vec<_> = (0..3).map(|_| others.enter()).collect();
    let pacer = patient().policy(at_once(4)).build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(limited(&log, &lines, &others, 3, SECOND));
    let _calls = [pacer.occupy("/call"), pacer.occupy("/call")];
    drop(client.oneshot(request("/call")).await.unwrap());
    // After the pause there is one place more, which a third call takes. All of them last.
    sleep(SECOND * 3).await;
    let _third = pacer.occupy("/call");
    let _fourth = timeout(HOUR * 2, pacer.acquire("/call")).await.expect("it hangs").unwrap();
    assert!(log.elapsed() <= HOUR + SECOND * 3, "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn beside_a_client_that_keeps_its_places_refusals_become_rare() {
    let (log, lines, others) = (Log::new(), Lines::default(), Lines::default());
    let _taken: Vec<_> = (0..2).map(|_| others.enter()).collect();
    let pacer = patient().policy(at_once(3)).build().unwrap();
    let retry = RetryPolicy::builder().attempts(50).total_time(HOUR).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).retry(retry).layer(limited(
        &log,
        &lines,
        &others,
        3,
        SECOND / 2,
    ));
    let calls: Vec<_> = (0..200)
        .map(|_| tokio::spawn(client.clone().oneshot(request("/call")).map(drop)))
        .collect();
    sleep(SECOND * 60).await;
    // After 1, 1, 2, 4, 8, 16 and 32 seconds, and two at first.
    assert!((4..=10).contains(&log.refused()), "{}", log.refused());
    // There is always one in flight.
    assert!(log.count(StatusCode::OK) >= 118, "{}", log.count(StatusCode::OK));
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_lets_those_go_that_wait() {
    let (log, told) = (Log::new(), Arc::new(Mutex::new(Some(1))));
    let pacer = patient().policy(at_once(5)).build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(says(&log, "call-concurrent", &told));
    drop(client.clone().oneshot(request("/call")).await.unwrap());
    *told.lock().unwrap() = Some(3);
    let mut service = client.clone();
    let first = service.call(request("/call"));
    let waits = [0; 4].map(|_| tokio::spawn(client.clone().oneshot(request("/call"))));
    settle().await;
    assert_eq!((most(&pacer, "/call"), log.len()), (Some(1), 2));
    let _held = first.await.unwrap();
    settle().await;
    assert_eq!((most(&pacer, "/call"), log.len()), (Some(3), 4));
    waits.iter().for_each(tokio::task::JoinHandle::abort);
}
