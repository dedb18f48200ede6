//! Inner services that take time to get ready, and what waiting requests hold of them.

use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, PaceLayer, Pacer, RetryPolicy, WaitError};
use bolna_rate_limit::values::QuotaBuilder;
use bolna_rate_limit::{Policy, Quota};
use http::{HeaderValue, Response, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower::limit::ConcurrencyLimitLayer;
use tower::retry::RetryLayer;
use tower::{Layer, ServiceBuilder, ServiceExt};

use crate::support::{
    Log, assert_all_ok, assert_at, distant, generous, limited, limiter, mock, one_call_in, patient,
    refusal, request, scattered, send, send_calls, settle, slow_to_ready,
};

const HOUR: Duration = Duration::from_secs(3600);

fn policy(quota: QuotaBuilder) -> Policy {
    Policy::bolna().quota("call", quota).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn nobody_keeps_a_permit_in_a_pause() {
    // The first call is refused while others are dispatched and wait for its permit.
    for seconds in ["200", "3600"] {
        let log = Log::new();
        let fields = [("retry-after", seconds)];
        let server =
            mock(
                &log,
                move |number| {
                    if number == 1 { refusal(&fields) } else { Response::new(String::new()) }
                },
            );
        let client = ServiceBuilder::new()
            .layer(BolnaClientLayer::with_policy(policy(Quota::per_second(100).burst(1))))
            .layer(ConcurrencyLimitLayer::new(2))
            .service(distant(server, |_| Duration::from_millis(50)));
        let calls: Vec<_> =
            (0..8).map(|number| send(&client, &format!("/call?{number}"))).collect();
        sleep(Duration::from_secs(10)).await;
        let begun = log.elapsed();
        assert!(send(&client, "/v2/agent/7").await.unwrap().is_ok());
        let took = log.elapsed() - begun;
        assert!(
            took < Duration::from_millis(110),
            "{took:?} for another endpoint, with a pause of {seconds} s"
        );

        // A call may wait for five minutes. Calls that may not wait for the end of the pause have
        // failed by now.
        let is_long = seconds == "3600";
        assert_eq!(calls.iter().all(JoinHandle::is_finished), is_long);
        for call in calls {
            match timeout(HOUR, call).await.unwrap().unwrap() {
                Ok(status) => assert!(
                    status.is_success() || (is_long && status == StatusCode::TOO_MANY_REQUESTS)
                ),
                Err(error) => assert!(is_long && error.is::<WaitError>(), "{error}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_slow_to_get_ready_slows_nobody_down() {
    for millis in [0, 20, 100, 240, 300, 3000] {
        let time = Duration::from_millis(millis);
        for (quota, evenly, least) in [
            (Quota::per_minute(500), true, Duration::from_millis(120) * 99),
            (Quota::per_second(10).burst(1), false, Duration::from_millis(100) * 99),
            (Quota::per_second(10).burst(3), false, Duration::from_millis(100) * 97),
        ] {
            let log = Log::new();
            let pacer = patient().policy(policy(quota));
            let pacer = if evenly { pacer.evenly() } else { pacer }.build().unwrap();
            let client = PaceLayer::new(pacer).layer(slow_to_ready(generous(&log), move |_| time));
            assert_all_ok(&timeout(HOUR, send_calls(&client, 100)).await.unwrap());
            // Getting ready takes time twice: on arrival, and after the dispatch.
            let took = log.elapsed().saturating_sub(2 * time);
            assert!(took <= least.mul_f64(1.02), "{took:?} with {quota:?} and {time:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn times_to_get_ready_that_vary_slow_nobody_down() {
    for (quota, evenly, least) in [
        (Quota::per_minute(500), true, Duration::from_millis(120) * 299),
        (Quota::per_second(10).burst(1), false, Duration::from_millis(100) * 299),
        (Quota::per_second(10).burst(5), false, Duration::from_millis(100) * 295),
    ] {
        let (log, limiter) = (Log::new(), limiter(policy(quota)));
        let pacer = patient().policy(policy(quota));
        let pacer = if evenly { pacer.evenly() } else { pacer }.build().unwrap();
        let varied = |number| Duration::from_millis(scattered(number, 200).into());
        let client = PaceLayer::new(pacer).layer(slow_to_ready(limited(&log, &limiter), varied));
        assert_all_ok(&timeout(HOUR, send_calls(&client, 300)).await.unwrap());
        let took = log.elapsed().saturating_sub(Duration::from_millis(400));
        assert!(took <= least.mul_f64(1.02), "{took:?} with {quota:?}");
        assert_eq!(log.refused(), 0, "{quota:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_is_slow_to_get_ready_has_its_turn_all_the_same() {
    for (quota, evenly) in [(Quota::per_minute(500), true), (Quota::per_second(10).burst(2), false)]
    {
        for millis in [110, 150, 250, 400] {
            let log = Log::new();
            let pacer = patient().policy(policy(quota));
            let pacer = if evenly { pacer.evenly() } else { pacer }.build().unwrap();
            let layer = PaceLayer::new(pacer);
            let fast = layer.layer(generous(&log));
            let slow =
                layer.layer(slow_to_ready(generous(&log), move |_| Duration::from_millis(millis)));
            let mut calls: Vec<_> =
                (0..50).map(|number| send(&fast, &format!("/call?{number}"))).collect();
            settle().await;
            // The service gets ready when the call arrives, and again after the dispatch.
            calls.push(send(&slow, "/call?slow"));
            sleep(Duration::from_millis(millis + 1)).await;
            calls.extend((50..200).map(|number| send(&fast, &format!("/call?{number}"))));
            for call in calls {
                assert!(timeout(HOUR, call).await.unwrap().unwrap().is_ok());
            }
            let place = log.targets().iter().position(|target| target == "/call?slow").unwrap();
            assert!((50..=55).contains(&place), "{place} with {millis} ms, {quota:?}");
            let (took, interval) = (log.elapsed(), quota.build().unwrap().emission_interval());
            assert!(
                took <= interval * 201 + Duration::from_millis(millis),
                "{took:?} with {millis} ms, {quota:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn those_are_sent_away_who_cannot_be_served_in_time_since_another_was_ready_late() {
    let log = Log::new();
    let pacer = Pacer::builder()
        .policy(policy(Quota::per(1, Duration::from_secs(10))))
        .max_wait(Duration::from_secs(30));
    // Each gets ready when it arrives. The second also takes nine seconds to get ready after its
    // dispatch.
    let late = |number| Duration::from_secs(if number == 5 { 9 } else { 0 });
    let client = PaceLayer::new(pacer.build().unwrap()).layer(slow_to_ready(generous(&log), late));
    let calls = [0, 1, 2, 3].map(|number| send(&client, &format!("/call?{number}")));
    sleep(Duration::from_secs(21)).await;
    let [.., last] = &calls;
    assert!(last.is_finished(), "its turn would come after 39 s");
    let [first, second, third, last] = calls;
    for call in [first, second, third] {
        assert!(timeout(HOUR, call).await.unwrap().unwrap().is_ok());
    }
    assert!(last.await.unwrap().unwrap_err().is::<WaitError>());
    for (at, expected) in log.times("").into_iter().zip([0, 19, 29]) {
        assert_at(at, Duration::from_secs(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_are_ready_late_are_no_burst_that_the_server_refuses() {
    for quota in [
        Quota::per_second(50).burst(1),
        Quota::per_second(50).burst(5),
        Quota::per_second(200).burst(10),
        Quota::per_second(1000).burst(20),
        Quota::per_minute(500),
    ] {
        for evenly in [false, true] {
            let (log, limiter) = (Log::new(), limiter(policy(quota)));
            let pacer = patient().policy(policy(quota));
            let pacer = if evenly { pacer.evenly() } else { pacer }.build().unwrap();
            let server = distant(limited(&log, &limiter), |_| Duration::from_millis(20));
            // Slow to get ready only once, as when a pool is full.
            let late =
                |number| Duration::from_millis(if (300..=310).contains(&number) { 230 } else { 0 });
            let client = PaceLayer::new(pacer).layer(slow_to_ready(server, late));
            assert_all_ok(&timeout(HOUR, send_calls(&client, 600)).await.unwrap());
            assert_eq!(log.refused(), 0, "{quota:?}, evenly {evenly}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn evenly_means_evenly_for_those_who_are_ready_late_too() {
    let log = Log::new();
    let pacer = Pacer::builder().evenly().build().unwrap();
    let late = |number| Duration::from_millis(if number % 7 == 0 { 200 } else { 0 });
    let client = PaceLayer::new(pacer).layer(slow_to_ready(generous(&log), late));
    assert_all_ok(&timeout(HOUR, send_calls(&client, 200)).await.unwrap());
    for pair in log.times("/call").windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(110), "{pair:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_short_pause_those_go_one_by_one_who_were_let_go_before_it() {
    // Five units come back while the service is busy, and a refusal arrives before the service is
    // ready.
    let log = Log::new();
    let server = mock(&log, |number| {
        if number == 1 { refusal(&[("retry-after", "0")]) } else { Response::new(String::new()) }
    });
    let quota = Quota::per_second(10).burst(5);
    let pacer = patient().policy(policy(quota)).jitter(Duration::ZERO).build().unwrap();
    let server = distant(server, |number| Duration::from_millis(if number == 3 { 600 } else { 0 }));
    let late = |number| Duration::from_millis(if number > 10 { 700 } else { 0 });
    let client = PaceLayer::new(pacer.clone()).layer(slow_to_ready(server, late));
    let calls: Vec<_> = (0..10).map(|number| send(&client, &format!("/call?{number}"))).collect();
    settle().await;
    for call in calls {
        assert!(timeout(HOUR, call).await.unwrap().unwrap().is_ok());
    }
    let after: Vec<_> = log.times("/call").split_off(5);
    assert_eq!(after.len(), 5);
    for pair in after.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(99), "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_is_ready_does_not_stay_so_when_its_moment_becomes_an_hour() {
    // The first response reports it. Meanwhile the second and third are ready at once, and the
    // third is held for a moment.
    let log = Log::new();
    let server = mock(&log, |number| {
        let mut response = Response::new(String::new());
        if number == 1 {
            response.headers_mut().insert("ratelimit", HeaderValue::from_static("\"call\";r=0"));
            response
                .headers_mut()
                .insert("ratelimit-policy", HeaderValue::from_static("\"call\";q=1;w=3600"));
        }
        response
    });
    let server = distant(server, |number| Duration::from_millis(if number == 3 { 300 } else { 0 }));
    let late =
        |number| Duration::from_millis(if number == 4 { 150 } else { 50 * u64::from(number == 5) });
    let pacer = Pacer::builder().policy(policy(Quota::per_second(10).burst(1))).build().unwrap();
    let client = PaceLayer::new(pacer).layer(slow_to_ready(server, late));
    let calls = [0, 1, 2].map(|number| send(&client, &format!("/call?{number}")));
    sleep(Duration::from_millis(310)).await;
    assert_eq!(log.times("").len(), 2);
    let [first, second, third] = calls;
    assert!(first.is_finished() && second.is_finished() && third.is_finished());
    assert!(third.await.unwrap().unwrap_err().is::<WaitError>());
}

#[tokio::test(start_paused = true)]
async fn the_time_to_get_ready_before_a_retry_counts_in_the_total_time() {
    let log = Log::new();
    let server = mock(&log, |_| refusal(&[("retry-after", "1")]));
    let server = slow_to_ready(server, |_| Duration::from_secs(40));
    let policy = RetryPolicy::builder().total_time(Duration::from_secs(60)).build().unwrap();
    let client = RetryLayer::new(policy).layer(server);
    let response = timeout(HOUR, client.oneshot(request("/call"))).await.unwrap().unwrap();
    // The third attempt is refused 82 s after the first one.
    assert_eq!((response.status(), log.len()), (StatusCode::TOO_MANY_REQUESTS, 3));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_got_ready_late_waits_in_the_queue_for_the_rest_of_the_total_time() {
    // The retry arrives in the queue 41 s after the refusal, and is due after 90 s.
    let log = Log::new();
    let server = mock(&log, |_| refusal(&[("retry-after", "1")]));
    let server = slow_to_ready(server, |_| Duration::from_secs(40));
    let retry = RetryPolicy::builder().total_time(Duration::from_secs(60)).build().unwrap();
    let pacer = patient().policy(one_call_in(Duration::from_secs(90))).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer).retry(retry).layer(server);
    let error = client.oneshot(request("/call")).await.unwrap_err();
    assert!(error.downcast_ref::<WaitError>().is_some_and(WaitError::is_retry), "{error}");
    assert_eq!(log.len(), 1);
    // The pause is up to a second longer than the refusal says.
    assert!((81..83).contains(&log.elapsed().as_secs()), "{:?}", log.elapsed());
}
