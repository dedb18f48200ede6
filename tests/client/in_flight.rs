//! Limits of requests in flight.

use std::time::Duration;

use bolna_rate_limit::client::{
    BolnaClientLayer, Concurrency, Pace, PaceLayer, Pacer, ResponseBody, RetryPolicy, WaitError,
};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{Policy, Quota};
use futures_util::FutureExt;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower::{BoxError, Layer, Service, ServiceExt};

use crate::lines::{Answer, Dialled, Ends, Lines, Slow, answers, serve};
use crate::support::{Log, assert_at, patient, request, settle, usage_of_call};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

type Client = Pace<Dialled>;
type Answered = Result<Response<ResponseBody<Slow>>, BoxError>;

fn at_once(calls: u32) -> Policy {
    Policy::bolna().concurrent("call", calls).build().unwrap()
}

fn client(policy: Policy, server: Dialled) -> (Client, Pacer) {
    let pacer = patient().policy(policy).build().unwrap();
    (PaceLayer::new(pacer.clone()).layer(server), pacer)
}

/// Sends a request in a task, which returns the response without reading it.
fn open(client: &Client, target: &str) -> JoinHandle<Answered> {
    let call = timeout(HOUR * 24, client.clone().oneshot(request(target)));
    tokio::spawn(call.map(|answer| answer.expect("the call hangs")))
}

/// Sends requests in tasks that read the responses to their ends.
fn send_all(client: &Client, requests: usize) -> Vec<JoinHandle<StatusCode>> {
    let send = |number| {
        let call = open(client, &format!("/call?{number}"));
        tokio::spawn(async move {
            let response = call.await.unwrap().unwrap();
            let status = response.status();
            let _ = response.into_body().collect().await;
            status
        })
    };
    (0..requests).map(send).collect()
}

fn concurrency(pacer: &Pacer) -> Concurrency {
    usage_of_call(pacer).concurrency().unwrap()
}

/// How many are in flight, of how many, and how many wait.
fn counts(pacer: &Pacer) -> (u64, u64, usize) {
    let concurrency = concurrency(pacer);
    (concurrency.in_flight(), concurrency.most(), concurrency.waiting())
}

#[tokio::test(start_paused = true)]
async fn no_more_are_in_flight_than_the_policy_allows_and_all_come_in_their_order() {
    for ends in [Ends::Known, Ends::Unknown, Ends::Broken] {
        let (log, lines) = (Log::new(), Lines::default());
        let answer = Answer { head: SECOND, ..Answer::streams(SECOND * 2, ends) };
        let (client, pacer) = client(at_once(3), answers(&log, &lines, answer));
        let calls = send_all(&client, 10);
        settle().await;
        assert_eq!((log.len(), counts(&pacer)), (3, (3, 3, 7)));
        assert_eq!((usage_of_call(&pacer).waiting(), usage_of_call(&pacer).remaining()), (7, 0));
        // Its response is there, and its body has not ended.
        sleep(SECOND * 2).await;
        assert_eq!((log.len(), counts(&pacer)), (3, (3, 3, 7)));
        assert_eq!(usage_of_call(&pacer).unanswered(), 0, "all have a response");
        for call in calls {
            assert_eq!(call.await.unwrap(), StatusCode::OK);
        }
        assert_eq!((lines.most(), lines.now()), (3, 0));
        let targets: Vec<_> = (0..10).map(|number| format!("/call?{number}")).collect();
        assert_eq!(log.targets(), targets);
        for (number, at) in (0..).zip(log.times("")) {
            assert_at(at + Duration::from_millis(1), SECOND * 3 * (number / 3));
        }
        assert_eq!((counts(&pacer), usage_of_call(&pacer).remaining()), ((0, 3, 0), 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_ends_with_its_body_however_that_ends() {
    let (log, lines) = (Log::new(), Lines::default());
    let server = serve(&log, {
        let lines = lines.clone();
        move |request| {
            let ends = match request.uri().query() {
                Some("unknown") => Ends::Unknown,
                Some("broken") => Ends::Broken,
                Some("failed") => Ends::Failed,
                _ => Ends::Known,
            };
            (Answer::streams(SECOND, ends), vec![lines.clone()])
        }
    });
    let (client, pacer) = client(at_once(1), server);
    let in_flight = || (concurrency(&pacer).in_flight(), lines.now());

    // Read to the end, without dropping it.
    for query in ["known", "unknown", "broken"] {
        let mut response = open(&client, &format!("/call?{query}")).await.unwrap().unwrap();
        assert_eq!(in_flight(), (1, 1), "{query}");
        let frame = response.body_mut().frame().await.unwrap();
        assert!(frame.is_ok());
        let (left, is_known) = (usize::from(query != "known"), query == "known");
        assert_eq!(in_flight(), (left as u64, left), "{query}: a reader may stop here");
        assert_eq!(http_body::Body::is_end_stream(response.body()), is_known);
        assert_eq!(response.body_mut().frame().await.is_some(), query == "broken");
        assert_eq!(in_flight(), (0, 0), "{query}");
        drop(response);
        assert_eq!(in_flight(), (0, 0), "{query}: once only");
    }
    // Dropped, with the body or without it.
    let response = open(&client, "/call").await.unwrap().unwrap();
    drop(response);
    assert_eq!(in_flight(), (0, 0));
    let (parts, body) = open(&client, "/call").await.unwrap().unwrap().into_parts();
    assert_eq!(in_flight(), (1, 1));
    drop(body);
    assert_eq!(in_flight(), (0, 0), "the head keeps nothing in flight");
    drop(parts);
    let body = open(&client, "/call").await.unwrap().unwrap().into_body().into_inner().unwrap();
    assert_eq!(in_flight(), (0, 1));
    drop(body);
    // An error.
    assert!(open(&client, "/call?failed").await.unwrap().is_err());
    assert_eq!(in_flight(), (0, 0));
    // A future that is dropped before the response is there.
    let mut service = client.clone();
    let call = service.call(request("/call"));
    assert_eq!(in_flight(), (1, 1));
    drop(call);
    assert_eq!(in_flight(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_next_request_is_sent_as_soon_as_one_ends() {
    let (log, lines) = (Log::new(), Lines::default());
    let (client, _) = client(at_once(1), answers(&log, &lines, Answer::after(SECOND / 2)));
    let first = open(&client, "/call?1");
    let second = open(&client, "/call?2");
    let response = first.await.unwrap().unwrap();
    sleep(SECOND * 7).await;
    assert_eq!(log.len(), 1);
    drop(response);
    settle().await;
    assert_eq!(log.len(), 2);
    drop(second.await.unwrap());
    assert_eq!(lines.most(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_another_to_end_takes_no_unit() {
    let (log, lines) = (Log::new(), Lines::default());
    let policy = Policy::bolna().concurrent("call", 1).quota("call", Quota::per_minute(10));
    let server = answers(&log, &lines, Answer::default());
    let pacer = patient().policy(policy.build().unwrap()).jitter(Duration::ZERO).build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(server);
    let held = open(&client, "/call").await.unwrap().unwrap();
    let waiting = [0; 20].map(|_| open(&client, "/call"));
    sleep(SECOND / 2).await;
    assert_eq!((usage_of_call(&pacer).waiting(), log.len()), (20, 1));
    waiting.iter().for_each(JoinHandle::abort);
    drop(held);
    // The other nine units are there.
    for _ in 0..9 {
        drop(open(&client, "/call").await.unwrap().unwrap());
    }
    assert_at(log.elapsed(), SECOND / 2);
    drop(open(&client, "/call").await.unwrap().unwrap());
    assert_at(log.elapsed(), SECOND * 6);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_units_takes_no_place() {
    let (log, lines) = (Log::new(), Lines::default());
    let both = LimitBuilder::account("both", Quota::concurrent(1));
    let policy = Policy::bolna()
        .quota("call", Quota::per(1, HOUR))
        .shared(both, ["call", "agent"])
        .build()
        .unwrap();
    let (client, pacer) = client(policy, answers(&log, &lines, Answer::after(SECOND)));
    drop(open(&client, "/call").await);
    let second = open(&client, "/call");
    settle().await;
    for _ in 0..5 {
        drop(open(&client, "/v2/agent/7").await.unwrap().unwrap());
    }
    assert_at(log.elapsed(), SECOND * 6);
    assert_eq!(concurrency(&pacer).waiting(), 0, "it waits for a unit");
    drop(second.await);
    assert_at(log.elapsed(), HOUR + SECOND);
    assert_eq!(lines.most(), 1);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_share_a_limit_have_their_places_together() {
    let (log, lines) = (Log::new(), Lines::default());
    // Of users and of everyone: a caller is one of each.
    let all = LimitBuilder::everyone("all", Quota::concurrent(3));
    let user = LimitBuilder::user("agent-user", Quota::concurrent(2));
    let policy = Policy::bolna().also("agent", user).shared(all, ["call", "agent"]);
    let server = answers(&log, &lines, Answer::after(SECOND));
    let (client, pacer) = client(policy.build().unwrap(), server);
    let open = |target: &str, requests: usize| {
        (0..requests).map(|_| open(&client, target)).collect::<Vec<_>>()
    };
    let agents = open("/v2/agent/7", 3);
    settle().await;
    let calls = open("/call", 3);
    settle().await;
    assert_eq!(log.targets(), ["/v2/agent/7", "/v2/agent/7", "/call"]);
    let usage = |path| pacer.peek(path).unwrap().concurrency().unwrap();
    let (agent, call) = (usage("/v2/agent/7"), usage("/call"));
    assert_eq!(agent.limit().map(|limit| limit.name()), Some("agent-user"));
    assert_eq!((agent.in_flight(), agent.most(), agent.waiting()), (2, 2, 1));
    assert_eq!(call.limit().map(|limit| limit.name()), Some("all"));
    assert_eq!((call.in_flight(), call.most(), call.waiting()), (3, 3, 2));
    assert_eq!(pacer.peek("/user/me").unwrap().concurrency(), None);
    for call in agents.into_iter().chain(calls) {
        drop(call.await.unwrap().unwrap());
    }
    assert_eq!(lines.most(), 3);
    assert_eq!((usage("/v2/agent/7").in_flight(), usage("/call").in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_needs_two_places_is_not_overtaken_for_ever() {
    let (log, lines) = (Log::new(), Lines::default());
    let limit = |name: &str| LimitBuilder::account(name, Quota::concurrent(1));
    let policy = Policy::bolna()
        .shared(limit("one"), ["call", "agent"])
        .shared(limit("two"), ["agent", "executions"])
        .build()
        .unwrap();
    let (client, _) = client(policy, answers(&log, &lines, Answer::after(SECOND * 2)));
    // Two endless rows of requests, which end at different times. The next one waits already when one
    // ends, or comes then.
    for waits in [true, false] {
        let row = |path: &'static str, offset: Duration| {
            let client = client.clone();
            tokio::spawn(async move {
                sleep(offset).await;
                let mut next = open(&client, path);
                loop {
                    let this = next;
                    if waits {
                        next = open(&client, path);
                        drop(this.await);
                    } else {
                        drop(this.await);
                        next = open(&client, path);
                    }
                }
            })
        };
        let rows = [row("/call", Duration::ZERO), row("/v2/agent/7/executions", SECOND)];
        sleep(SECOND * 3 + SECOND / 2).await;
        let call = open(&client, "/v2/agent/7");
        drop(timeout(SECOND * 10, call).await.expect("it is overtaken").unwrap().unwrap());
        rows.iter().for_each(JoinHandle::abort);
        sleep(SECOND * 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_lasts_does_not_reserve_the_place_that_all_share() {
    let (log, lines) = (Log::new(), Lines::default());
    let all = LimitBuilder::account("all", Quota::concurrent(2));
    let policy = Policy::bolna().concurrent("call", 1).shared(all, ["call", "agent"]);
    let server = answers(&log, &lines, Answer::default());
    let (client, _) = client(policy.build().unwrap(), server);
    let lasts = open(&client, "/call").await.unwrap().unwrap();
    let waits = open(&client, "/call");
    settle().await;
    for _ in 0..3 {
        drop(timeout(SECOND, open(&client, "/v2/agent/7")).await.expect("it waits").unwrap());
    }
    drop(lasts);
    drop(timeout(SECOND, waits).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_request_costs_as_many_places_as_the_policy_says() {
    let (log, lines) = (Log::new(), Lines::default());
    let limit = LimitBuilder::account("lines", Quota::concurrent(5)).cost(2);
    let policy = Policy::bolna().also("call", limit).build().unwrap();
    let (client, pacer) = client(policy, answers(&log, &lines, Answer::after(SECOND)));
    assert_eq!(usage_of_call(&pacer).remaining(), 2);
    let calls = send_all(&client, 4);
    settle().await;
    assert_eq!((log.len(), counts(&pacer)), (2, (4, 5, 2)));
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!((lines.most(), counts(&pacer)), (2, (0, 5, 0)));
    // An error names the number of requests, and not of places.
    let hurried = Pacer::builder().policy(pacer.policy()).max_wait(SECOND).build().unwrap();
    let _held = [hurried.occupy("/call"), hurried.occupy("/call")];
    let error = hurried.acquire("/call").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "not sent: a request to \"call\" would have to wait until one of 2 requests in flight ends \
         by the limit \"lines\", and this client allows at most 1.0s"
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_names_the_limit_that_was_waited_for() {
    let (log, lines) = (Log::new(), Lines::default());
    let pacer = Pacer::builder().policy(at_once(2)).max_wait(SECOND * 5).max_waiting(3);
    let pacer = pacer.build().unwrap();
    let layer = BolnaClientLayer::with_pacer(pacer.clone());
    let client = layer.layer(answers(&log, &lines, Answer::default()));
    let open = |target: &str| tokio::spawn(client.clone().oneshot(request(target)));
    let held = [open("/call").await.unwrap().unwrap(), open("/call").await.unwrap().unwrap()];
    let waits = [0; 3].map(|_| open("/call"));
    settle().await;
    let error = |error: BoxError| *error.downcast::<WaitError>().unwrap();
    let full = error(open("/call").await.unwrap().unwrap_err());
    assert_at(log.elapsed(), Duration::ZERO);
    assert_eq!(
        full.to_string(),
        "not sent: a request to \"call\" would have to wait until one of 2 requests in flight ends \
         by the limit \"call-concurrent\", and 3 requests wait already, the most that this client \
         allows"
    );
    assert!(full.is_full() && full.is_concurrent() && !full.is_retry());
    for wait in waits {
        let late = error(wait.await.unwrap().unwrap_err());
        assert_at(log.elapsed(), SECOND * 5);
        assert_eq!(
            late.to_string(),
            "not sent: a request to \"call\" would have to wait until one of 2 requests in flight \
             ends by the limit \"call-concurrent\", and this client allows at most 5.0s"
        );
        assert!(!late.is_full() && late.is_concurrent());
        assert_eq!(late.limit().map(|limit| limit.name()), Some("call-concurrent"));
    }
    let usage = usage_of_call(&pacer);
    assert_eq!((usage.unsent(), usage.waiting(), usage.sent()), (4, 0, 2));
    drop(held);
    drop(open("/call").await.unwrap().unwrap());

    // A further limit of a rate is named too.
    let day = LimitBuilder::account("call-day", Quota::per_day(1));
    let policy = Policy::bolna().also("call", day).build().unwrap();
    let pacer = Pacer::builder().policy(policy).build().unwrap();
    let client = PaceLayer::new(pacer).layer(answers(&log, &lines, Answer::default()));
    drop(client.clone().oneshot(request("/call")).await.unwrap());
    let late = error(client.oneshot(request("/call")).await.unwrap_err());
    assert_eq!(
        late.to_string(),
        "not sent: a request to \"call\" would have to wait for 1d by the limit \
         \"call-day\", and this client allows at most 5min"
    );
    assert!(!late.is_concurrent());
}

#[tokio::test(start_paused = true)]
async fn an_error_names_the_limit_whose_place_an_earlier_request_waits_for() {
    let limit = |name: &str| LimitBuilder::account(name, Quota::concurrent(1));
    let policy = Policy::bolna()
        .shared(limit("one"), ["call", "agent"])
        .shared(limit("two"), ["agent", "executions"])
        .build()
        .unwrap();
    let pacer = Pacer::builder().max_wait(SECOND * 5).policy(policy).build().unwrap();
    let acquire = |path: &'static str| {
        let pacer = pacer.clone();
        tokio::spawn(async move { pacer.acquire(path).await })
    };
    let _held = acquire("/v2/agent/7/executions").await.unwrap().unwrap();
    // The place of `one` is for the first of these, though that waits for the place of `two` too.
    let (earlier, call) = (acquire("/v2/agent/7"), acquire("/call"));
    for (wait, name) in [(earlier, "two"), (call, "one")] {
        let error = wait.await.unwrap().unwrap_err();
        assert_eq!(error.limit().map(|limit| limit.name()), Some(name));
        assert!(error.is_concurrent(), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_waits_for_a_place_fails_when_its_time_is_over() {
    let (log, lines) = (Log::new(), Lines::default());
    let server = serve(&log, {
        let (log, lines) = (log.clone(), lines.clone());
        move |_| {
            let answer = Answer::after(SECOND);
            let is_first = log.len() == 0;
            let answer = if is_first { answer.refused().field("retry-after", "2") } else { answer };
            (answer, vec![lines.clone()])
        }
    });
    let pacer = patient().policy(at_once(1)).build().unwrap();
    let retry = RetryPolicy::builder().total_time(SECOND * 20).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).retry(retry).layer(server);
    let open = |target: &str| tokio::spawn(client.clone().oneshot(request(target)));
    let refused = open("/call?refused");
    sleep(SECOND * 2).await;
    // It comes after the refusal, and has the place before the retry is due.
    let permit = pacer.occupy("/call");
    let error = timeout(HOUR, refused).await.unwrap().unwrap().unwrap_err();
    let error = error.downcast::<WaitError>().unwrap();
    assert!(error.is_retry() && error.is_concurrent(), "{error}");
    assert_at(log.elapsed(), SECOND * 21);
    drop(permit);
    drop(open("/call").await.unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn retries_have_places_before_new_requests() {
    let (log, lines) = (Log::new(), Lines::default());
    let server = serve(&log, {
        let (log, lines) = (log.clone(), lines.clone());
        move |_| {
            let answer = Answer::after(SECOND);
            let is_first = log.len() == 0;
            let answer = if is_first { answer.refused().field("retry-after", "2") } else { answer };
            (answer, vec![lines.clone()])
        }
    });
    let pacer = patient().policy(at_once(1)).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer).layer(server);
    let open = |target: &str| {
        tokio::spawn(client.clone().oneshot(request(target)).map(|answer| drop(answer.unwrap())))
    };
    let calls: Vec<_> = (0..4).map(|number| open(&format!("/call?{number}"))).collect();
    for call in calls {
        timeout(HOUR, call).await.unwrap().unwrap();
    }
    let targets = log.targets();
    // It is refused, and gives its place back at once, so the next one may be sent after the pause.
    assert_eq!(targets.len(), 5);
    assert_eq!((targets[0].as_str(), lines.most()), ("/call?0", 1));
    assert!(targets[1..3].contains(&"/call?0".to_owned()), "{targets:?}");
}

/// Others take the unit of its rate while it lacks a place, and its place while it lacks a unit.
#[tokio::test(start_paused = true)]
async fn a_request_that_shares_its_rate_with_some_and_its_place_with_others_does_not_starve() {
    let (log, lines) = (Log::new(), Lines::default());
    let rate = LimitBuilder::account("rate", Quota::per(1, SECOND));
    let place = LimitBuilder::account("place", Quota::concurrent(1));
    let policy = Policy::bolna()
        .shared(rate, ["call", "agent"])
        .shared(place, ["agent", "executions"])
        .build()
        .unwrap();
    let (client, _pacer) = client(policy, answers(&log, &lines, Answer::after(SECOND * 7 / 10)));
    // Three endless rows of each: one sends again as soon as it is answered.
    for path in ["/call", "/v2/agent/7/executions"].repeat(3) {
        let client = client.clone();
        tokio::spawn(async move {
            loop {
                drop(tokio::spawn(client.clone().oneshot(request(path))).await);
            }
        });
    }
    sleep(SECOND * 7 / 2).await;
    let call = client.clone().oneshot(request("/v2/agent/7"));
    let answer = timeout(SECOND * 10, call).await.expect("it starves");
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
}
