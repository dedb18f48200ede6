//! Requests that would have to wait too long, or among too many, fail at once.

use std::time::Duration;

use bolna_rate_limit::client::{
    BolnaClientLayer, PaceLayer, Pacer, PacerBuilder, PacerError, RetryPolicy, RetryPolicyError,
    WaitError,
};
use bolna_rate_limit::{Policy, PolicyError, Quota};
use http::{HeaderValue, Response, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};
use tower::{BoxError, Layer, Service, ServiceExt};

use crate::support::{
    Log, Remote, assert_at, distant, generous, mock, one_call_in, refusal, request, send,
    send_calls, settle, usage_of_call,
};

const HOUR: Duration = Duration::from_secs(3600);

/// One call in ten seconds.
fn builder() -> PacerBuilder {
    Pacer::builder().policy(one_call_in(Duration::from_secs(10)))
}

#[track_caller]
fn wait_error(answer: Result<StatusCode, BoxError>) -> WaitError {
    *answer.unwrap_err().downcast_ref::<WaitError>().unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_too_many_fails_at_once() {
    let log = Log::new();
    let layer = BolnaClientLayer::with_pacer(builder().max_waiting(3).build().unwrap());
    let client = layer.layer(generous(&log));
    let calls = [0, 1, 2, 3].map(|number| send(&client, &format!("/call?{number}")));
    settle().await;

    let error = wait_error(send(&client, "/call?4").await.unwrap());
    assert_eq!(log.elapsed(), Duration::ZERO);
    assert_eq!(
        (error.endpoint().name(), error.wait(), error.is_full()),
        ("call", Duration::from_secs(40), true)
    );
    assert_eq!(
        error.to_string(),
        "not sent: a request to \"call\" would have to wait for 40.0s, and 3 requests wait \
         already, the most that this client allows"
    );
    assert_eq!(usage_of_call(layer.pacer()).unsent(), 1);

    // Each endpoint has a bound of its own.
    assert!(send(&client, "/v2/agent/7").await.unwrap().unwrap().is_success());
    // When one request leaves the queue, another one may enter.
    let [_, second, ..] = &calls;
    second.abort();
    settle().await;
    let last = send(&client, "/call?5");
    assert!(timeout(HOUR, last).await.unwrap().unwrap().unwrap().is_success());
    assert_at(log.elapsed(), Duration::from_secs(30));
    assert_eq!(log.times("/call").len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_wait_does_not_look_like_the_bound_that_it_exceeds() {
    let log = Log::new();
    let bound = Duration::from_millis(299_999);
    let client = BolnaClientLayer::with_pacer(builder().max_wait(bound).build().unwrap());
    let client = client.layer(generous(&log));
    let _calls: Vec<_> = (0..30).map(|_| send(&client, "/call")).collect();
    settle().await;
    let error = wait_error(send(&client, "/call").await.unwrap());
    assert_eq!(error.wait(), Duration::from_secs(300));
    assert_eq!(
        error.to_string(),
        "not sent: a request to \"call\" would have to wait for 5min, and this client allows at \
         most 4min 59.9s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_too_long_fails_at_once() {
    let log = Log::new();
    let client =
        BolnaClientLayer::with_pacer(builder().max_wait(Duration::from_secs(25)).build().unwrap());
    let client = client.layer(generous(&log));
    let calls = [0, 1, 2].map(|number| send(&client, &format!("/call?{number}")));
    settle().await;

    let error = wait_error(send(&client, "/call?3").await.unwrap());
    assert_eq!(log.elapsed(), Duration::ZERO);
    assert_eq!(
        (error.endpoint().name(), error.wait(), error.is_full()),
        ("call", Duration::from_secs(30), false)
    );
    assert_eq!(
        error.to_string(),
        "not sent: a request to \"call\" would have to wait for 30.0s, and this client allows at \
         most 25.0s"
    );
    for call in calls {
        assert!(call.await.unwrap().unwrap().is_success());
    }
    // After that time the bound has room again.
    sleep(Duration::from_secs(5)).await;
    assert!(send(&client, "/call?4").await.unwrap().unwrap().is_success());
    assert_eq!(log.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_wait_as_long_as_the_bound_is_waited_for() {
    let log = Log::new();
    let client =
        BolnaClientLayer::with_pacer(builder().max_wait(Duration::from_secs(10)).build().unwrap());
    let client = client.layer(generous(&log));
    let calls = [0, 1].map(|number| send(&client, &format!("/call?{number}")));
    for call in calls {
        assert!(call.await.unwrap().unwrap().is_success());
    }
    assert_at(log.elapsed(), Duration::from_secs(10));
}

/// Refuses the first request after a second, with that time to wait, and admits the others.
fn refuses_the_first(log: &Log, seconds: &'static str) -> Remote {
    let server = mock(log, move |number| match number {
        1 => refusal(&[("retry-after", seconds)]),
        _ => Response::new(String::new()),
    });
    distant(server, |number| Duration::from_secs(u64::from(number == 3)))
}

#[tokio::test(start_paused = true)]
async fn a_refusal_sends_those_away_who_cannot_be_served_in_time() {
    let log = Log::new();
    let pacer = builder().max_wait(Duration::from_secs(60)).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer).layer(refuses_the_first(&log, "45"));
    let calls = [0, 1, 2, 3, 4, 5].map(|number| send(&client, &format!("/call?{number}")));

    // At 1 s it turns out that the endpoint is paused until 46 s, and up to a second more so that
    // not all clients come back at one time.
    sleep(Duration::from_millis(1001)).await;
    settle().await;
    let done: Vec<bool> = calls.iter().map(JoinHandle::is_finished).collect();
    assert_eq!(done, [false, false, false, true, true, true], "at {:?}", log.elapsed());
    let mut answers = Vec::new();
    for call in calls {
        answers.push(timeout(HOUR, call).await.unwrap().unwrap());
    }
    let waits: Vec<_> = answers
        .split_off(3)
        .into_iter()
        .map(|answer| wait_error(answer).wait().as_secs())
        .collect();
    // They come after the requests that still wait: two, since the refused one is not back yet.
    assert!(waits.iter().all(|wait| (65..=66).contains(wait)), "{waits:?}");
    // When the refused one is back, after 45 s, it goes first, which makes the last of the two
    // late.
    let wait = wait_error(answers.pop().unwrap()).wait().as_secs();
    assert!((19..=21).contains(&wait), "{wait} s");
    for answer in answers {
        assert!(answer.unwrap().is_success());
    }
    assert!(log.elapsed() <= Duration::from_secs(58), "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_turns_out_to_be_slower_sends_those_away_who_cannot_be_served_in_time() {
    // A unit comes back in 12 s instead of 120 ms.
    let log = Log::new();
    let server = mock(&log, |number| {
        let mut response = Response::new(String::new());
        let remaining = format!("\"call\";r={}", 500_usize.saturating_sub(number));
        response.headers_mut().insert("ratelimit", HeaderValue::try_from(remaining).unwrap());
        response
            .headers_mut()
            .insert("ratelimit-policy", HeaderValue::from_static("\"call\";q=500;w=6000"));
        response
    });
    let longest = Duration::from_secs(60);
    let pacer = Pacer::builder().max_wait(longest).build().unwrap();
    let client = PaceLayer::new(pacer).layer(distant(server, |_| Duration::from_millis(20)));
    let calls: Vec<_> = (0..800).map(|number| send(&client, &format!("/call?{number}"))).collect();
    // More and more requests are sent without an answer.
    sleep(Duration::from_millis(700)).await;
    // About five can be sent within a minute, and the others have failed.
    let waiting = calls.iter().filter(|call| !call.is_finished()).count();
    assert!((4..=10).contains(&waiting), "{waiting}");
    let mut sent = 0;
    for call in calls {
        match timeout(HOUR, call).await.unwrap().unwrap() {
            Ok(_) => sent += 1,
            error => assert!(wait_error(error).wait() > Duration::ZERO),
        }
    }
    assert!((500..=510).contains(&sent), "{sent}");
    assert!(log.elapsed() <= longest + Duration::from_millis(50), "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn those_stay_who_can_be_served_in_time_and_no_others() {
    // Ten calls at once and one more later. The first is refused with a time to wait.
    let log = Log::new();
    let server = mock(&log, |number| {
        if number == 1 { refusal(&[("retry-after", "6")]) } else { Response::new(String::new()) }
    });
    let server =
        distant(server, |number| Duration::from_millis(if number == 3 { 4500 } else { 0 }));
    let pacer = Pacer::builder()
        .policy(one_call_in(Duration::from_secs(1)))
        .max_wait(Duration::from_secs(10));
    let client = PaceLayer::new(pacer.build().unwrap()).layer(server);
    let calls: Vec<_> = (0..10).map(|number| send(&client, &format!("/call?{number}"))).collect();
    sleep(Duration::from_millis(4400)).await;
    let late = send(&client, "/call?late");
    // Five are sent before the pause, which ends after 10.5 s: too late for the other five.
    sleep(Duration::from_millis(105)).await;
    let told: Vec<_> = calls.iter().map(JoinHandle::is_finished).collect();
    assert_eq!(told, [true; 10], "at {:?}", log.elapsed());
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().is_ok(), number < 5, "call {number}");
    }
    assert!(timeout(HOUR, late).await.unwrap().unwrap().unwrap().is_success());
    assert!(log.elapsed() < Duration::from_secs(12), "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_who_misses_its_turn_is_sent_away_if_the_next_comes_too_late() {
    let log = Log::new();
    let policy = one_call_in(Duration::from_secs(100));
    let pacer = Pacer::builder().policy(policy).max_wait(Duration::from_secs(110)).build().unwrap();
    let mut client = PaceLayer::new(pacer).layer(generous(&log));
    client.call(request("/call")).await.unwrap();
    let mut dawdling = spawn(client.call(request("/call?dawdling")));
    assert_pending!(dawdling.poll());
    sleep(Duration::from_secs(95)).await;
    let other = send(&client, "/call?other");
    // It is due after 100 s. If it misses that, the other one is due then.
    sleep(Duration::from_secs(6)).await;
    assert!(other.await.unwrap().is_ok());
    assert_pending!(dawdling.poll());
    settle().await;
    let error = *assert_ready!(dawdling.poll()).unwrap_err().downcast::<WaitError>().unwrap();
    assert!(error.wait() > Duration::from_secs(98) && !error.is_full(), "{error}");
    assert_eq!((log.len(), usage_of_call(client.pacer()).waiting()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_sent_again_whatever_the_bounds() {
    let log = Log::new();
    let pacer = builder().max_wait(Duration::from_secs(12)).max_waiting(1).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer).layer(refuses_the_first(&log, "30"));
    let refused = send(&client, "/call?0");
    sleep(Duration::from_secs(21)).await;
    // It may wait from now on, and no other request may.
    let waiting = send(&client, "/call?1");
    settle().await;
    assert!(wait_error(send(&client, "/call?2").await.unwrap()).is_full());
    assert!(timeout(HOUR, refused).await.unwrap().unwrap().unwrap().is_success());
    let _ = timeout(HOUR, waiting).await.unwrap().unwrap();
    let times = log.times("/call?0");
    assert!(
        times[1] >= Duration::from_secs(31) && times[1] <= Duration::from_secs(43),
        "{times:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_is_not_sent_again() {
    let log = Log::new();
    let client = BolnaClientLayer::with_pacer(builder().max_waiting(1).build().unwrap())
        .layer(generous(&log));
    client.clone().oneshot(request("/call")).await.unwrap();
    let _waiting = send(&client, "/call");
    settle().await;
    for unsent in 1..=3 {
        wait_error(send(&client, "/call").await.unwrap());
        let usage = usage_of_call(client.pacer());
        assert_eq!((usage.unsent(), usage.sent(), usage.waiting()), (unsent, 1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn by_default_ten_thousand_may_wait() {
    let log = Log::new();
    let policy = Policy::bolna().quota("call", Quota::per_second(100).burst(1)).build().unwrap();
    let mut client = BolnaClientLayer::with_policy(policy).layer(generous(&log));
    let _calls: Vec<_> = (0..10_001).map(|_| client.call(request("/call"))).collect();
    assert_eq!(
        (usage_of_call(client.pacer()).waiting(), usage_of_call(client.pacer()).unsent()),
        (10_000, 0)
    );
    assert!(wait_error(send(&client, "/call").await.unwrap()).is_full());
}

#[tokio::test(start_paused = true)]
async fn by_default_they_may_wait_for_five_minutes() {
    for (seconds, is_sent) in [(300, true), (301, false)] {
        let log = Log::new();
        let client = BolnaClientLayer::with_policy(one_call_in(Duration::from_secs(seconds)))
            .layer(generous(&log));
        assert!(send(&client, "/call").await.unwrap().is_ok());
        assert_eq!(
            timeout(HOUR, send(&client, "/call")).await.unwrap().unwrap().is_ok(),
            is_sent,
            "{seconds} s"
        );
    }
    // The figures of the documentation for Bolna's limit.
    let log = Log::new();
    let client = BolnaClientLayer::new().layer(generous(&log));
    let answers = timeout(HOUR, send_calls(&client, 5000)).await.unwrap();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2995);
}

#[test]
fn what_can_never_send_anything_is_not_built() {
    assert_eq!(Pacer::builder().max_waiting(0).build().unwrap_err(), PacerError::ZeroWaiting);
    assert_eq!(
        Pacer::builder().max_wait(Duration::ZERO).build().unwrap_err(),
        PacerError::ZeroWait
    );
    assert_eq!(
        RetryPolicy::builder().attempts(0).build().unwrap_err(),
        RetryPolicyError::ZeroAttempts
    );
    for quota in
        [Quota::per_minute(0), Quota::per_minute(500).burst(0), Quota::per(500, Duration::ZERO)]
    {
        let error = Policy::bolna().quota("call", quota).build().unwrap_err();
        assert!(matches!(error, PolicyError::Quota { .. }), "{error:?}");
    }
    for error in [PacerError::ZeroWaiting.to_string(), PacerError::ZeroWait.to_string()] {
        assert!(error.contains("must be at least 1"), "{error}");
    }
}
