//! After a refusal the endpoint is paused for all callers.

use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, WaitError};
use http::{Response, StatusCode};
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt};

use crate::support::{
    Log, Remote, assert_all_ok, assert_at, distant, mock, one_call_in, patient, refusal, request,
    send, send_calls, settle, usage_of_call,
};

const HOUR: Duration = Duration::from_secs(3600);

/// How long a request takes to the server, and a response back.
const TRIP: Duration = Duration::from_millis(20);

/// By how much a pause is longer at most, so that clients do not come back together: one interval,
/// and the milliseconds of the timers.
const SPREAD: Duration = Duration::from_millis(123);

type Fields = &'static [(&'static str, &'static str)];

/// Refuses the first request with those fields, and admits the others.
fn refuses_once(log: &Log, fields: Fields) -> Remote {
    mock(
        log,
        move |number| if number == 1 { refusal(fields) } else { Response::new(String::new()) },
    )
}

fn refuses_always(log: &Log, fields: Fields) -> Remote {
    mock(log, move |_| refusal(fields))
}

/// A server that is one trip away, so that requests that are sent at once are refused together.
fn far(server: Remote) -> Remote {
    distant(server, |_| TRIP)
}

/// How long a refusal with those fields pauses the endpoint.
async fn pause(fields: Fields) -> Duration {
    let log = Log::new();
    let client = PaceLayer::new(patient().build().unwrap()).layer(refuses_once(&log, fields));
    assert_eq!(
        client.clone().oneshot(request("/call")).await.unwrap().status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    let usage = usage_of_call(client.pacer());
    let paused = usage.paused();
    assert_eq!(
        (usage.remaining(), usage.refused(), usage.wait() >= paused),
        (0, 1, true),
        "{fields:?}"
    );

    assert_all_ok(&timeout(2 * HOUR, send_calls(&client, 20)).await.unwrap());
    let times = log.times("/call");
    // One by one.
    for pair in times[1..].windows(2) {
        let gap = pair[1] - pair[0];
        assert!(
            gap >= Duration::from_millis(118) && gap <= Duration::from_millis(123),
            "{gap:?} for {fields:?}"
        );
    }
    assert_at(times[1], paused);
    times[1]
}

#[tokio::test(start_paused = true)]
async fn for_as_long_as_the_server_asks_then_one_by_one() {
    for (fields, asked) in [
        (&[("retry-after", "7")][..], 7000),
        (&[("retry-after", "1")], 1000),
        (&[("retry-after", "0")], 0),
        (&[("retry-after", "600")], 600_000),
        (&[("retry-after-ms", "1500"), ("retry-after", "2")], 1500),
        (
            &[
                ("date", "Wed, 07 Feb 2035 10:00:00 GMT"),
                ("retry-after", "Wed, 07 Feb 2035 10:00:12 GMT"),
            ],
            12_000,
        ),
        (
            &[
                ("date", "Wed, 07 Feb 2035 10:00:00 GMT"),
                ("retry-after", "Wed, 07 Feb 2035 09:00:00 GMT"),
            ],
            0,
        ),
        // Fractions, units and lists.
        (&[("retry-after", "2.863")], 2863),
        (&[("retry-after", "1m30s")], 90_000),
        (&[("retry-after", "120 seconds")], 120_000),
        (&[("retry-after", "3"), ("retry-after", "4")], 4000),
        (&[("retry-after", "4, 3")], 4000),
        (&[("x-ratelimit-after", "3")], 3000),
        // Points in time.
        (&[("date", "Wed, 07 Feb 2035 10:00:00 GMT"), ("retry-after", "2054455212.5")], 12_500),
        (
            &[
                ("date", "Wed, 07 Feb 2035 10:00:00 GMT"),
                ("retry-after", "Wed, 07 Feb 2035 11:00:12 +0100"),
            ],
            12_000,
        ),
        // Milliseconds by mistake.
        (
            &[
                ("retry-after", "60000"),
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "58"),
            ],
            58_000,
        ),
        // Of a response from a cache, only what is left of its time.
        (&[("age", "50"), ("retry-after", "60")], 10_000),
        (&[("age", "300"), ("retry-after", "60")], 1000),
        (&[("age", "300"), ("ratelimit", "\"call\";r=0;t=50")], 1000),
        // Without a value that is understood the pause is one second.
        (&[], 1000),
        (&[("retry-after", "")], 1000),
        (&[("retry-after", "-1")], 1000),
        (&[("retry-after", "soon")], 1000),
        // The longest pause is an hour.
        (&[("retry-after", "315360000")], 3_600_000),
        (&[("retry-after", "99999999999999999999999999")], 3_600_000),
        (&[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")], 3_600_000),
    ] {
        let (asked, paused) = (Duration::from_millis(asked), pause(fields).await);
        assert!(paused >= asked && paused <= asked + SPREAD, "{paused:?} for {fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_are_refused_together_do_not_come_back_together() {
    let mut pauses = Vec::new();
    for _ in 0..200 {
        let log = Log::new();
        let client = PaceLayer::default().layer(refuses_always(&log, &[("retry-after", "7")]));
        client.clone().oneshot(request("/call")).await.unwrap();
        pauses.push(usage_of_call(client.pacer()).paused() - Duration::from_secs(7));
    }
    // Up to one interval more, in its first half as often as in its second.
    let interval = Duration::from_millis(120);
    assert!(pauses.iter().all(|more| *more <= interval), "{pauses:?}");
    let in_first_half = pauses.iter().filter(|more| **more < interval / 2).count();
    // 100, with a standard deviation of 7.
    assert!((50..=150).contains(&in_first_half), "{in_first_half} of 200");
}

#[tokio::test(start_paused = true)]
async fn the_other_endpoints_go_on() {
    let log = Log::new();
    let client = BolnaClientLayer::new().layer(refuses_once(&log, &[("retry-after", "7")]));
    let calls: Vec<_> = (0..10).map(|number| send(&client, &format!("/call?{number}"))).collect();
    settle().await;
    for number in 0..400 {
        assert!(send(&client, &format!("/v2/agent/{number}")).await.unwrap().unwrap().is_success());
        assert!(send(&client, "/v2/agent/7/executions").await.unwrap().unwrap().is_success());
        assert!(send(&client, "/v2/agent/all").await.unwrap().unwrap().is_success());
    }
    assert_eq!(log.elapsed(), Duration::ZERO);
    for call in calls {
        assert!(timeout(HOUR, call).await.unwrap().unwrap().unwrap().is_success());
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_were_refused_go_first_and_nobody_comes_before_the_time() {
    // Ten are refused at once, and fifty more arrive after them.
    let log = Log::new();
    let server = mock(&log, |number| {
        if number <= 10 { refusal(&[("retry-after", "5")]) } else { Response::new(String::new()) }
    });
    let client = BolnaClientLayer::new().layer(far(server));
    let refused: Vec<_> =
        (0..10).map(|number| send(&client, &format!("/call?r{number}"))).collect();
    sleep(2 * TRIP + Duration::from_millis(1)).await;
    let others: Vec<_> = (0..50).map(|number| send(&client, &format!("/call?n{number}"))).collect();
    for call in refused.into_iter().chain(others) {
        assert!(timeout(HOUR, call).await.unwrap().unwrap().unwrap().is_success());
    }
    let after = log.got().split_off(10);
    let early = after.iter().filter(|got| got.at < Duration::from_secs(5)).count();
    assert_eq!(early, 0);
    let gaps: Vec<_> = after.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(118)), "{gaps:?}");
    // Each of them waits for up to 100 ms more than the response asked for, and one of the others
    // may be sent in that time.
    let is_refused = |target: &str| target.starts_with("/call?r");
    assert_eq!(
        after[..11].iter().filter(|got| is_refused(&got.target)).count(),
        10,
        "{:?}",
        log.targets()
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_time_a_server_that_refuses_for_ever_is_asked_ever_less() {
    let log = Log::new();
    let client = PaceLayer::new(patient().build().unwrap()).layer(refuses_always(&log, &[]));
    for _ in 0..30 {
        let answer =
            timeout(HOUR, client.clone().oneshot(request("/call"))).await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    }
    let times = log.times("/call");
    for (number, pair) in times.windows(2).enumerate() {
        let (gap, silence) = (pair[1] - pair[0], pair[0] - times[0]);
        let expected = match number {
            0 | 1 => Duration::from_secs(1),
            _ => (silence / 4).clamp(Duration::from_secs(2), Duration::from_secs(60)),
        };
        assert!(
            gap >= expected && gap <= expected * 5 / 4 + SPREAD,
            "{gap:?} instead of {expected:?}"
        );
    }
    assert!(times[29] - times[28] >= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_longer_time_than_the_backoff_is_kept_to() {
    let log = Log::new();
    let client = PaceLayer::new(patient().build().unwrap())
        .layer(refuses_always(&log, &[("retry-after", "90")]));
    for _ in 0..12 {
        timeout(HOUR, client.clone().oneshot(request("/call"))).await.unwrap().unwrap();
    }
    for pair in log.times("/call").windows(2) {
        let gap = pair[1] - pair[0];
        assert!(
            gap >= Duration::from_secs(90) && gap <= Duration::from_secs(90) + SPREAD,
            "{gap:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_ends_the_backoff() {
    let log = Log::new();
    let server =
        mock(
            &log,
            |number| if number % 6 == 0 { Response::new(String::new()) } else { refusal(&[]) },
        );
    let client = PaceLayer::new(patient().build().unwrap()).layer(server);
    for _ in 0..12 {
        timeout(HOUR, client.clone().oneshot(request("/call"))).await.unwrap().unwrap();
    }
    let times = log.times("/call");
    for (pair, millis) in
        times.windows(2).zip([1000, 1000, 2000, 2000, 2000, 120, 1000, 1000, 2000, 4000, 8000])
    {
        let (gap, expected) = (pair[1] - pair[0], Duration::from_millis(millis));
        assert!(
            gap + Duration::from_millis(2) >= expected && gap <= expected * 5 / 4 + SPREAD,
            "{gap:?}, not {expected:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_that_is_refused_together_is_one_refusal() {
    // The pause after it counts as the first, and not as the fiftieth, which would be 60 s. Fifty
    // are sent before the first answer.
    let log = Log::new();
    let server =
        mock(&log, |number| if number <= 50 { refusal(&[]) } else { Response::new(String::new()) });
    let client = BolnaClientLayer::new().layer(far(server));
    assert_all_ok(&timeout(HOUR, send_calls(&client, 100)).await.unwrap());
    let last = log.elapsed();
    assert!(last >= Duration::from_secs(12) && last <= Duration::from_secs(14), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn one_caller_gives_up_on_a_server_that_refuses_for_ever() {
    let log = Log::new();
    let server = mock(&log, |number| {
        let mut response = refusal(&[]);
        response.extensions_mut().insert(number);
        response
    });
    let client = BolnaClientLayer::new().layer(server);
    let response = timeout(HOUR, client.oneshot(request("/call"))).await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.extensions().get(), Some(&log.len()), "the last one");
    // The last pause would have ended after the five minutes.
    assert!(log.elapsed() <= Duration::from_secs(300), "{:?}", log.elapsed());
    assert!(log.elapsed() >= Duration::from_secs(230), "{:?}", log.elapsed());
    assert!(log.len() <= 24, "{}", log.len());
}

#[tokio::test(start_paused = true)]
async fn many_callers_give_up_on_a_server_that_refuses_for_ever() {
    let log = Log::new();
    let client = BolnaClientLayer::new().layer(far(refuses_always(&log, &[])));
    let answers = timeout(HOUR, send_calls(&client, 1000)).await.unwrap();
    // No request is retried later than five minutes after its first refusal, and no request has
    // waited longer to be sent at all.
    assert!(log.elapsed() <= Duration::from_secs(420), "{:?}", log.elapsed());
    for answer in answers {
        match answer {
            Ok(status) => assert_eq!(status, StatusCode::TOO_MANY_REQUESTS),
            Err(error) => {
                assert!(error.downcast_ref::<WaitError>().unwrap().wait() > Duration::ZERO);
            }
        }
    }
    // After the burst, the client sends to the server less and less often.
    assert!(log.len() <= 495 + 20, "{}", log.len());
}

#[tokio::test(start_paused = true)]
async fn a_time_that_nobody_would_wait_for_is_told_at_once() {
    let log = Log::new();
    let client =
        BolnaClientLayer::new().layer(far(refuses_always(&log, &[("retry-after", "315360000")])));
    let answers = timeout(HOUR, send_calls(&client, 1000)).await.unwrap();
    assert!(log.elapsed() <= 3 * TRIP, "{:?}", log.elapsed());
    let refused =
        answers.iter().filter(|answer| matches!(answer, Ok(StatusCode::TOO_MANY_REQUESTS))).count();
    let unsent: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    // Fifty are sent before the first answer.
    assert_eq!((refused, unsent.len(), log.len()), (50, 950, 50));
    for error in unsent {
        let wait = error.downcast_ref::<WaitError>().unwrap().wait();
        assert!(wait >= HOUR && wait < HOUR + Duration::from_secs(200), "{wait:?}");
    }
    // Another request is sent after an hour.
    sleep(HOUR + SPREAD).await;
    assert!(send(&client, "/call").await.unwrap().is_ok());
    assert_eq!(log.len(), 51);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_gives_no_unit_back() {
    // When the refusal arrives, the unit has come back with time.
    let log = Log::new();
    let server = distant(refuses_once(&log, &[("retry-after", "0")]), |number| {
        Duration::from_secs(if number == 3 { 11 } else { 0 })
    });
    let period = Duration::from_secs(10);
    let client =
        PaceLayer::new(patient().policy(one_call_in(period)).build().unwrap()).layer(server);
    let _ = timeout(HOUR, send_calls(&client, 4)).await.unwrap();
    let times = log.times("/call");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= period), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn answers_to_what_was_sent_before_a_pause_do_not_end_it() {
    // A hundred are in flight when the first of them is refused; the others are admitted a second
    // later.
    let log = Log::new();
    let server = refuses_once(&log, &[("retry-after", "7")]);
    let server =
        distant(server, |number| Duration::from_secs(u64::from(number % 2 == 1 && number > 3)));
    let client = BolnaClientLayer::with_pacer(Pacer::new()).layer(server);
    assert_all_ok(&timeout(HOUR, send_calls(&client, 600)).await.unwrap());
    let after: Vec<_> = log.times("/call").split_off(495);
    assert!(after[0] >= Duration::from_secs(7), "{:?}", after[0]);
    let gaps: Vec<_> = after.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(118)), "{gaps:?}");
}
