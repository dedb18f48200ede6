//! Calls, which outlive the requests that start them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::Policy;
use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, Permit};
use http::Extensions;
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt};

use crate::lines::{Answer, Busy, Lines, answers, serve};
use crate::support::{Log, assert_at, patient, request, settle, usage_of_call};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn pacer(calls: u32) -> Pacer {
    let policy = Policy::bolna().concurrent("call", calls).exempt(["/healthz"]).build().unwrap();
    patient().policy(policy).build().unwrap()
}

/// How many requests and calls are in flight, and how many requests wait for one of them to end.
fn counts(pacer: &Pacer) -> (u64, usize) {
    let concurrency = usage_of_call(pacer).concurrency().unwrap();
    (concurrency.in_flight(), concurrency.waiting())
}

#[tokio::test(start_paused = true)]
async fn ten_calls_at_once_and_a_webhook_ends_each() {
    // The calls that run, as the dialler knows them, and as the server does.
    type Calls = Arc<Mutex<HashMap<usize, (Busy, Option<Permit>)>>>;
    let (log, requests, lines) = (Log::new(), Lines::default(), Lines::default());
    let pacer = pacer(10);
    let layer = BolnaClientLayer::with_pacer(pacer.clone());
    let client = layer.layer(answers(&log, &requests, Answer::after(SECOND / 10)));
    let calls = Calls::default();
    let mut diallers = JoinSet::new();
    for number in 0..50 {
        let call = client.clone().oneshot(request(&format!("/call?{number}")));
        let call = tokio::spawn(timeout(HOUR, call));
        let (calls, lines) = (Arc::clone(&calls), lines.clone());
        diallers.spawn(async move {
            let response = call.await.unwrap().unwrap().unwrap();
            let permit = Permit::of(response.extensions());
            assert!(permit.is_some());
            calls.lock().unwrap().insert(number, (lines.enter(), permit));
            response.into_body().collect().await.unwrap();
            // Another task hears that the call has ended.
            tokio::spawn(async move {
                sleep(SECOND * 60).await;
                calls.lock().unwrap().remove(&number);
            });
        });
    }
    sleep(SECOND * 30).await;
    assert_eq!((log.len(), lines.now(), requests.now(), counts(&pacer)), (10, 10, 0, (10, 40)));
    while diallers.join_next().await.transpose().unwrap().is_some() {}
    sleep(SECOND * 61).await;
    assert_eq!((log.len(), lines.most(), lines.now(), counts(&pacer)), (50, 10, 0, (0, 0)));
    let times = log.times("");
    for (number, at) in (0..).zip(times) {
        assert_at(at + SECOND / 500, (SECOND * 60 + SECOND / 10) * (number / 10));
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_keeps_one_place_until_the_last_of_permits_and_body_is_gone() {
    let (log, lines) = (Log::new(), Lines::default());
    let pacer = pacer(2);
    let server = answers(&log, &lines, Answer::streams(SECOND, crate::lines::Ends::Known));
    let client = PaceLayer::new(pacer.clone()).layer(server);
    let (parts, body) = client.clone().oneshot(request("/call")).await.unwrap().into_parts();
    let one = Permit::of(&parts.extensions).unwrap();
    let other = Permit::of(&parts.extensions).unwrap();
    assert_eq!(counts(&pacer), (1, 0));
    drop(one);
    body.collect().await.unwrap();
    assert_eq!(counts(&pacer), (1, 0));
    drop(other);
    assert_eq!(counts(&pacer), (0, 0));
    // The body has ended: the place is counted again, and only once.
    let late = [0; 2].map(|_| Permit::of(&parts.extensions).unwrap());
    assert_eq!(counts(&pacer), (1, 0));
    drop(late);
    drop(parts);
    assert_eq!(counts(&pacer), (0, 0));

    // The permit goes first.
    let response = client.oneshot(request("/call")).await.unwrap();
    drop(Permit::of(response.extensions()));
    assert_eq!(counts(&pacer), (1, 0));
    drop(response);
    assert_eq!(counts(&pacer), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_permit_keeps_a_place_in_each_client_around_the_other() {
    let (log, lines) = (Log::new(), Lines::default());
    let (key, organization) = (pacer(2), pacer(10));
    let server = answers(&log, &lines, Answer::default());
    let client = PaceLayer::new(key.clone()).layer(server);
    let client = PaceLayer::new(organization.clone()).layer(client);
    let both = || (counts(&key).0, counts(&organization).0);
    let (parts, body) = client.oneshot(request("/call")).await.unwrap().into_parts();
    let permit = Permit::of(&parts.extensions).unwrap();
    assert_eq!(both(), (1, 1));
    drop(body);
    assert_eq!(both(), (1, 1));
    drop(permit);
    assert_eq!(both(), (0, 0));
    let late = Permit::of(&parts.extensions);
    assert_eq!(both(), (1, 1));
    drop(late);
    assert_eq!(both(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_late_permit_counts_though_the_place_is_taken() {
    let (log, lines) = (Log::new(), Lines::default());
    let pacer = pacer(1);
    let client = PaceLayer::new(pacer.clone()).layer(answers(&log, &lines, Answer::default()));
    let (parts, body) = client.clone().oneshot(request("/call")).await.unwrap().into_parts();
    drop(body);
    let second = client.clone().oneshot(request("/call")).await.unwrap();
    let late = Permit::of(&parts.extensions).unwrap();
    assert_eq!(counts(&pacer), (2, 0));
    let third = tokio::spawn(client.oneshot(request("/call")));
    settle().await;
    drop(second);
    settle().await;
    assert_eq!((counts(&pacer), log.len()), ((1, 1), 2), "one is still one too many");
    drop(late);
    drop(timeout(HOUR, third).await.unwrap().unwrap().unwrap());
    assert_eq!(counts(&pacer), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn there_is_no_permit_where_there_is_nothing_to_keep() {
    let (log, lines) = (Log::new(), Lines::default());
    let client = PaceLayer::new(pacer(1)).layer(answers(&log, &lines, Answer::default()));
    for path in ["/v2/agent/7", "/healthz"] {
        let response = client.clone().oneshot(request(path)).await.unwrap();
        assert!(Permit::of(response.extensions()).is_none(), "{path}");
    }
    assert!(Permit::of(&Extensions::new()).is_none());
    let server = serve(&log, |_| (Answer::default().refused(), vec![]));
    let pacer = pacer(1);
    let client = PaceLayer::new(pacer.clone()).layer(server);
    let refused = client.oneshot(request("/call")).await.unwrap();
    assert!(Permit::of(refused.extensions()).is_none());
    assert_eq!(counts(&pacer), (0, 0), "a refused request is not in flight");
}

#[tokio::test(start_paused = true)]
async fn what_is_acquired_waits_in_the_order_of_requests_and_takes_units() {
    let (log, lines) = (Log::new(), Lines::default());
    let pacer = pacer(1);
    let client = PaceLayer::new(pacer.clone()).layer(answers(&log, &lines, Answer::default()));
    let first = timeout(HOUR, pacer.acquire("/call")).await.unwrap().unwrap();
    assert_eq!(usage_of_call(&pacer).sent(), 1);
    let request = tokio::spawn(timeout(HOUR, client.oneshot(request("/call"))));
    settle().await;
    let acquirer = pacer.clone();
    let acquired = tokio::spawn(async move { acquirer.acquire("/call").await });
    let quitter = pacer.clone();
    let given_up = tokio::spawn(async move { quitter.acquire("/call").await });
    settle().await;
    assert_eq!((log.len(), counts(&pacer)), (0, (1, 3)));
    given_up.abort();
    sleep(SECOND * 3).await;
    assert_eq!(counts(&pacer), (1, 2));
    drop(first);
    let response = request.await.unwrap().unwrap().unwrap();
    settle().await;
    assert!(!acquired.is_finished());
    drop(response);
    let permit = acquired.await.unwrap().unwrap();
    assert_eq!(counts(&pacer), (1, 0));
    assert!(format!("{permit:?}").contains("call"));
    drop(permit);
    let usage = usage_of_call(&pacer);
    assert_eq!((counts(&pacer), usage.sent(), usage.unanswered()), ((0, 0), 3, 0));

    // Errors are those of requests, and an exempt path never waits.
    let hasty = Pacer::builder()
        .policy(Policy::bolna().concurrent("call", 1).exempt(["/healthz"]).build().unwrap())
        .max_wait(SECOND)
        .build()
        .unwrap();
    let _held = [hasty.occupy("/call"), hasty.acquire("/healthz").await.unwrap()];
    let error = hasty.acquire("/call").await.unwrap_err();
    assert!(error.is_concurrent(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_run_already_count_and_may_be_too_many() {
    let (log, lines) = (Log::new(), Lines::default());
    let pacer = pacer(2);
    let client = PaceLayer::new(pacer.clone()).layer(answers(&log, &lines, Answer::default()));
    let mut running: Vec<_> = (0..4).map(|_| pacer.occupy("/call")).collect();
    drop(pacer.occupy("/healthz"));
    assert_eq!((counts(&pacer), usage_of_call(&pacer).sent()), ((4, 0), 0));
    let waits = tokio::spawn(timeout(HOUR, client.oneshot(request("/call"))));
    for left in [3, 2] {
        settle().await;
        running.pop();
        settle().await;
        assert_eq!((log.len(), counts(&pacer)), (0, (left, 1)));
    }
    // In another thread, without a runtime.
    std::thread::spawn(move || drop(running)).join().unwrap();
    drop(waits.await.unwrap().unwrap().unwrap());
    assert_eq!(counts(&pacer), (0, 0));
    assert!(usage_of_call(&pacer).remaining() == 2);
}

#[tokio::test(start_paused = true)]
async fn a_permit_outlives_the_client_and_its_pacer() {
    let permit = pacer(1).occupy("/call");
    let task = tokio::spawn(async move { drop(permit) });
    task.await.unwrap();
}

/// A permit and a body can be moved to any task and be shared by reference.
#[test]
fn they_can_be_sent_between_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Permit>();
    check::<bolna_rate_limit::client::ResponseBody<String>>();
}
