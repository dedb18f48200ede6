//! Interactive requests before a bulk job, which keeps a share.

use std::time::Duration;

use bolna_rate_limit::client::{
    BolnaClientLayer, MaxWait, PaceLayer, Pacer, PacerBuilder, PacerError, Priority, RetryPolicy,
    WaitError,
};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{Policy, Quota};
use futures_util::TryFutureExt;
use http::{Request, Response};
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt};

use crate::support::{
    Log, assert_at, distant, generous, mock, refusal, request, settle, usage_of_call,
};

const BULK: Priority = Priority::Bulk;
const INTERACTIVE: Priority = Priority::Interactive;

/// One call every 100 ms.
fn ten_a_second() -> PacerBuilder {
    let quota = Quota::per_second(10).burst(1);
    Pacer::builder().policy(Policy::bolna().quota("call", quota).build().unwrap())
}

fn with(priority: Priority, target: &str) -> Request<String> {
    let mut request = request(target);
    request.extensions_mut().insert(priority);
    request
}

/// Sends `/call?b0`, `/call?b1` and so on in bulk, and then `/call?i0` and so on, all at once.
async fn job(pacer: Pacer, bulk: usize, interactive: usize) -> Vec<String> {
    let log = Log::new();
    let mut client = PaceLayer::new(pacer).layer(generous(&log));
    let mut set = JoinSet::new();
    client.call(request("/call?first")).await.unwrap();
    for number in 0..bulk {
        set.spawn(client.call(with(BULK, &format!("/call?b{number}"))));
    }
    for number in 0..interactive {
        set.spawn(client.call(with(INTERACTIVE, &format!("/call?i{number}"))));
    }
    while let Some(answer) = set.join_next().await {
        assert!(answer.unwrap().is_ok());
    }
    log.targets().split_off(1).into_iter().map(|target| target[6..].to_owned()).collect()
}

/// The first letters.
fn kinds(targets: &[String]) -> String {
    targets.iter().filter_map(|target| target.chars().next()).collect()
}

#[tokio::test(start_paused = true)]
async fn interactive_requests_go_first_and_one_of_ten_is_of_the_bulk_job() {
    let sent = job(ten_a_second().build().unwrap(), 5, 25).await;
    assert_eq!(kinds(&sent), "iiiiiiiiibiiiiiiiiibiiiiiiibbb");
    // Each in the order of arrival.
    let numbers =
        |kind: char| sent.iter().filter_map(move |it| it.strip_prefix(kind)?.parse::<usize>().ok());
    assert!(numbers('b').eq(0..5) && numbers('i').eq(0..25), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn the_share_of_the_bulk_job_can_be_set() {
    for (percent, expected) in
        [(0, "iiiiiiiibbbb"), (25, "iiibiiibiibb"), (50, "ibibibibiiii"), (99, "ibbbbiiiiiii")]
    {
        let pacer = ten_a_second().bulk_share(percent).build().unwrap();
        assert_eq!(kinds(&job(pacer, 4, 8).await), expected, "{percent} %");
    }
    let error = ten_a_second().bulk_share(100).build().unwrap_err();
    assert_eq!(error, PacerError::BulkShare(100));
    assert!(error.to_string().contains("must be at most 99 %"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_says_nothing_is_interactive() {
    let log = Log::new();
    let mut client = PaceLayer::new(ten_a_second().build().unwrap()).layer(generous(&log));
    client.call(request("/call?first")).await.unwrap();
    let bulk = tokio::spawn(client.call(with(BULK, "/call?bulk")));
    settle().await;
    client.call(request("/call?silent")).await.unwrap();
    bulk.await.unwrap().unwrap();
    assert_eq!(log.targets(), ["/call?first", "/call?silent", "/call?bulk"]);
}

#[tokio::test(start_paused = true)]
async fn acquire_has_a_priority_too() {
    let pacer = ten_a_second().build().unwrap();
    let log = Log::new();
    let acquire = |name: &'static str, priority| {
        let (pacer, log) = (pacer.clone(), log.clone());
        tokio::spawn(async move {
            let _permit = pacer.acquire_with("/call", priority).await.unwrap();
            log.add(name.to_owned(), http::StatusCode::OK);
        })
    };
    acquire("first", BULK).await.unwrap();
    let bulk = acquire("bulk", BULK);
    settle().await;
    let interactive = acquire("interactive", INTERACTIVE);
    let _ = tokio::join!(bulk, interactive);
    assert_eq!(log.targets(), ["first", "interactive", "bulk"]);
}

#[tokio::test(start_paused = true)]
async fn a_bulk_job_leaves_room_and_time_for_interactive_requests() {
    let log = Log::new();
    let pacer = ten_a_second().max_waiting(20).max_wait(Duration::from_secs(1)).build().unwrap();
    let mut client = PaceLayer::new(pacer.clone()).layer(generous(&log));
    client.call(request("/call")).await.unwrap();
    let mut calls: Vec<_> = (0..11).map(|_| client.call(with(BULK, "/call?bulk"))).collect();
    let late = calls.pop().unwrap().await.unwrap_err();
    assert_eq!(late.downcast::<WaitError>().unwrap().wait(), Duration::from_millis(1100));
    let usage = usage_of_call(&pacer);
    assert_eq!(
        (usage.waiting(), usage.waiting_of(BULK), usage.waiting_of(INTERACTIVE)),
        (10, 10, 0)
    );
    assert_eq!(usage.wait(), Duration::from_millis(100));
    assert_eq!(usage.wait_of(BULK), Duration::from_millis(1100));
    // It goes before the others, of which the last is too late now.
    let calls: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    settle().await;
    let interactive = tokio::spawn(client.call(with(INTERACTIVE, "/call?interactive")));
    settle().await;
    assert_eq!(usage_of_call(&pacer).waiting_of(INTERACTIVE), 1);
    interactive.await.unwrap().unwrap();
    assert_at(log.elapsed(), Duration::from_millis(100));
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap().is_ok());
    }
    assert_eq!(answers, [vec![true; 9], vec![false]].concat());

    // By number.
    let pacer = ten_a_second().max_waiting(3).build().unwrap();
    let mut client = PaceLayer::new(pacer).layer(generous(&log));
    client.call(request("/call")).await.unwrap();
    let _bulk: Vec<_> = (0..3).map(|_| client.call(with(BULK, "/call"))).collect();
    let full = client.call(with(BULK, "/call")).await.unwrap_err();
    assert!(full.downcast::<WaitError>().unwrap().is_full());
    client.call(with(INTERACTIVE, "/call")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_deadlines_of_a_large_job_are_not_all_checked_whenever_a_request_goes_before_it() {
    let log = Log::new();
    let quota = Quota::per_second(1000).burst(1);
    let policy = Policy::bolna().quota("call", quota).build().unwrap();
    let pacer = Pacer::builder().policy(policy).max_wait(Duration::from_secs(5)).build().unwrap();
    let mut client = PaceLayer::new(pacer.clone()).layer(generous(&log));
    client.call(request("/call")).await.unwrap();
    // The last one is due at its deadline.
    let mut set = JoinSet::new();
    for _ in 0..5000 {
        set.spawn(client.call(with(BULK, "/call")));
    }
    sleep(Duration::from_millis(10)).await;
    let unsent = || usage_of_call(&pacer).unsent();
    assert_eq!(unsent(), 0);
    // It is known at once that it is too late, and of the next one after 5 ms.
    set.spawn(client.call(with(INTERACTIVE, "/call")));
    settle().await;
    assert_eq!(unsent(), 1);
    set.spawn(client.call(with(INTERACTIVE, "/call")));
    settle().await;
    assert_eq!(unsent(), 1);
    sleep(Duration::from_millis(6)).await;
    assert_eq!(unsent(), 2);
    let sent = set.join_all().await.into_iter().filter(Result::is_ok).count();
    assert_eq!(sent, 5000);
}

#[tokio::test(start_paused = true)]
async fn the_retries_of_a_job_go_first_within_the_job() {
    let log = Log::new();
    let server = mock(&log, |number| match number {
        1 => refusal(&[("retry-after", "1")]),
        _ => Response::new(String::new()),
    });
    let retry = RetryPolicy::builder().build().unwrap();
    let client = BolnaClientLayer::with_pacer(ten_a_second().build().unwrap()).retry(retry);
    let client = client.layer(server);
    let refused = tokio::spawn(client.clone().oneshot(with(BULK, "/call?refused")));
    settle().await;
    let mut set = JoinSet::new();
    for number in 0..3 {
        set.spawn(client.clone().oneshot(with(BULK, &format!("/call?b{number}"))));
        settle().await;
    }
    // The refused one comes back after the pause, and these come just before that.
    sleep(Duration::from_millis(900)).await;
    for number in 0..30 {
        set.spawn(client.clone().oneshot(with(INTERACTIVE, &format!("/call?i{number}"))));
        settle().await;
    }
    assert!(refused.await.unwrap().is_ok());
    set.join_all().await;
    let targets = log.targets();
    let at = |target: &str| targets[1..].iter().position(|it| it == target).unwrap();
    assert!(at("/call?i0") == 0, "{targets:?}");
    assert!(at("/call?refused") < at("/call?b1"), "{targets:?}");
    assert!(at("/call?refused") > 3, "{targets:?}");
}

#[tokio::test(start_paused = true)]
async fn the_share_holds_for_all_endpoints_that_have_a_limit_in_common() {
    let log = Log::new();
    let shared = LimitBuilder::account("all", Quota::per_second(10).burst(1));
    let policy = Policy::bolna().shared(shared, ["call", "agent", "executions"]).build().unwrap();
    let pacer = Pacer::builder().policy(policy).build().unwrap();
    let mut client = PaceLayer::new(pacer).layer(generous(&log));
    client.call(request("/call?f")).await.unwrap();
    let paths = ["/call", "/v2/agent/7", "/v2/agent/7/executions"];
    let mut set = JoinSet::new();
    for number in 0..30 {
        // Two endpoints have both, and one has bulk requests only.
        let path = paths[number % 3];
        set.spawn(client.call(with(BULK, &format!("{path}?b"))));
        set.spawn(client.call(with(INTERACTIVE, &format!("{}?i", paths[number % 2]))));
    }
    set.join_all().await;
    let sent: String =
        log.targets().split_off(1).iter().map(|target| target.chars().last().unwrap()).collect();
    let contested = "iiiiiiiiib".repeat(3);
    assert!(sent.starts_with(&contested), "{sent}");
    assert_eq!(sent.len(), 60);
}

/// Requests come at any time, 50 ms before or after a call is sent.
async fn merge(percent: u8, plans: Vec<(u64, Priority)>) -> Result<(), TestCaseError> {
    let plans = &plans;
    let log = Log::new();
    let pacer = ten_a_second().bulk_share(percent).jitter(Duration::ZERO).build().unwrap();
    let mut client = PaceLayer::new(pacer).layer(generous(&log));
    client.call(request("/call?first")).await.unwrap();
    let mut set = JoinSet::new();
    // Half of them come at the beginning, so that requests wait until all have come.
    let half = (plans.len() as u64 / 2).max(1);
    let comes = |number: usize| {
        let slot = if number % 2 == 0 { 0 } else { plans[number].0 % half };
        Duration::from_millis(50 + 100 * slot)
    };
    for (number, (_, priority)) in plans.iter().copied().enumerate() {
        let (mut client, comes) = (client.clone(), comes(number));
        set.spawn(async move {
            sleep(comes).await;
            client.call(with(priority, &format!("/call?{number}"))).await.is_ok()
        });
    }
    let all = timeout(Duration::from_secs(3600), set.join_all()).await;
    prop_assert!(all.is_ok_and(|all| all.into_iter().all(|is_ok| is_ok)));
    let sent: Vec<(Duration, usize)> =
        log.got()[1..].iter().map(|got| (got.at, got.target[6..].parse().unwrap())).collect();
    prop_assert_eq!(sent.len(), plans.len());

    // While both wait, so many were dispatched, and so many of them in bulk.
    let (mut waiting, mut contested) = (Vec::from_iter(0..plans.len()), vec![]);
    for (at, number) in sent {
        let there = waiting.iter().copied().filter(|other| comes(*other) < at);
        let of = |priority| there.clone().filter(move |other| plans[*other].1 == priority);
        let priority = plans[number].1;
        // The first of its priority: those that come at one time may do so in any order.
        let first = of(priority).map(comes).min();
        prop_assert_eq!(first, Some(comes(number)));
        if of(BULK).count() > 0 && of(INTERACTIVE).count() > 0 {
            contested.push(priority == BULK);
        }
        waiting.retain(|other| *other != number);
    }
    for from in 0..contested.len() {
        for to in from + 1..=contested.len() {
            let bulk = contested[from..to].iter().filter(|is_bulk| **is_bulk).count();
            let exact = (to - from) * usize::from(percent);
            prop_assert!(100 * bulk + 100 > exact && 100 * bulk < exact + 100, "{contested:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn interactive_requests_go_first_and_the_job_keeps_its_share(
        percent in 0..100_u8,
        plans in prop::collection::vec(
            (0..60_u64, prop::sample::select(vec![BULK, INTERACTIVE])),
            0..120,
        ),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(merge(percent, plans))?;
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_a_place_have_their_priorities_and_bounds() {
    let second = Duration::from_secs(1);
    let all = ["call", "agent", "executions", "default"];
    let places = LimitBuilder::account("connections", Quota::concurrent(5));
    let policy = Policy::bolna().shared(places, all).build().unwrap();
    let pacer = Pacer::builder().policy(policy).max_waiting(100).build().unwrap();
    let log = Log::new();
    // Ten seconds there and back.
    let server = distant(generous(&log), move |_| 5 * second);
    let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(server);
    let mut bulk = JoinSet::new();
    for number in 0..200 {
        let request = with(BULK, &format!("/call?b{number}"));
        bulk.spawn(client.clone().oneshot(request).map_ok(drop));
    }
    sleep(second).await;
    let usage = usage_of_call(&pacer);
    assert_eq!((usage.unanswered(), usage.waiting(), usage.unsent()), (5, 100, 95));

    // At once, or not at all.
    let mut at_once = with(INTERACTIVE, "/v2/agent/7");
    at_once.extensions_mut().insert(MaxWait::ZERO);
    let error = client.clone().oneshot(at_once).await.unwrap_err();
    let error = error.downcast_ref::<WaitError>().unwrap();
    assert_eq!((error.is_concurrent(), error.limit().unwrap().name()), (true, "connections"));
    let mut soon = with(INTERACTIVE, "/v2/agent/7");
    soon.extensions_mut().insert(MaxWait(second));
    assert!(client.clone().oneshot(soon).await.unwrap_err().is::<WaitError>());
    assert_at(log.elapsed(), 2 * second);

    // The next place is that of an interactive request, whichever endpoint it is for.
    drop(client.oneshot(with(INTERACTIVE, "/v2/agent/7")).await.unwrap());
    assert_at(log.elapsed(), 20 * second);
}
