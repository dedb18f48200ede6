//! When requests are sent to a server that is far away.

use std::time::Duration;

use bolna_rate_limit::Policy;
use bolna_rate_limit::client::{BolnaClientLayer, Pacer};
use tokio::time::{advance, timeout};
use tower::Layer;

use crate::support::{
    Log, assert_all_ok, assert_at, distant, generous, limited, limiter, one_call_in, scattered,
    send, send_calls, settle,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A job of 1,500 calls, each by a caller of its own. `trip` gives the time that each request and
/// each response takes, as in [`distant`].
async fn a_job(
    pacer: Pacer,
    trip: impl Fn(u32) -> Duration + Clone + Send + 'static,
    longest_trip: Duration,
) {
    let log = Log::new();
    let server = distant(limited(&log, &limiter(Policy::default())), trip);
    let client = BolnaClientLayer::with_pacer(pacer).layer(server);
    assert_all_ok(&timeout(HOUR, send_calls(&client, 1500)).await.unwrap());
    let (least, took) = (Duration::from_secs(120), log.elapsed());
    assert_eq!(log.refused(), 0);
    assert!(took <= least.mul_f64(1.02) + 2 * longest_trip, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fixed_distance_costs_nothing() {
    for trip in [0, 1, 50, 1500].map(Duration::from_millis) {
        a_job(Pacer::new(), move |_| trip, trip).await;
    }
}

#[tokio::test(start_paused = true)]
async fn trips_of_varied_length_which_reorder_requests_lead_to_no_refusal() {
    let (base, variation) = (40, 250);
    let trip =
        move |number| Duration::from_millis((base + scattered(number, variation + 1)).into());
    a_job(Pacer::new(), trip, Duration::from_millis(290)).await;
    // The worst case: slow requests while the bucket is full, and fast ones after them.
    let trip = move |number: u32| Duration::from_millis(if number < 100 { 250 } else { 0 });
    a_job(Pacer::new(), trip, Duration::from_millis(250)).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_has_a_wilder_network_says_so() {
    let pacer = || Pacer::builder().jitter(Duration::from_secs(2)).build().unwrap();
    a_job(
        pacer(),
        |number| Duration::from_millis(scattered(number, 2001).into()),
        Duration::from_secs(2),
    )
    .await;
    let trip = |number: u32| Duration::from_secs(if number < 100 { 2 } else { 0 });
    a_job(pacer(), trip, Duration::from_secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn slow_answers_hold_nobody_up() {
    // The requests arrive at once, and the responses are slow.
    let trip = |number: u32| {
        Duration::from_secs(if number % 2 == 0 { 0 } else { scattered(number, 9).into() })
    };
    a_job(Pacer::new(), trip, Duration::from_secs(8)).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_can_be_sent_at_once_is() {
    let log = Log::new();
    let client = BolnaClientLayer::new().layer(generous(&log));
    assert_all_ok(&send_calls(&client, 495).await);
    assert_at(log.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_quota_of_one_is_kept_to() {
    let log = Log::new();
    let pacer = Pacer::builder().policy(one_call_in(Duration::from_secs(10))).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer).layer(generous(&log));
    assert_all_ok(&timeout(HOUR, send_calls(&client, 5)).await.unwrap());
    for (at, expected) in log.times("").into_iter().zip([0, 10, 20, 30, 40]) {
        assert_at(at, Duration::from_secs(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn they_are_sent_in_the_order_of_their_arrival() {
    let log = Log::new();
    let client = BolnaClientLayer::new().layer(generous(&log));
    assert_all_ok(&timeout(HOUR, send_calls(&client, 1000)).await.unwrap());
    let expected: Vec<_> = (0..1000).map(|number| format!("/call?{number}")).collect();
    assert_eq!(log.targets(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_sends_no_more_than_a_burst_at_once() {
    for jump in [1, 30, 60, 250, 10_000, 1_000_000].map(Duration::from_secs) {
        let log = Log::new();
        // Requests that would have to wait for longer than `max_wait` fail.
        let pacer = Pacer::builder().max_wait(jump + Duration::from_secs(300)).build().unwrap();
        let client =
            BolnaClientLayer::with_pacer(pacer).layer(limited(&log, &limiter(Policy::default())));
        let calls: Vec<_> =
            (0..1500).map(|number| send(&client, &format!("/call?{number}"))).collect();
        settle().await;
        assert_eq!(log.len(), 495);
        advance(jump).await;
        // The window is full twice until it is as large as the burst.
        tokio::time::sleep(Duration::from_millis(220)).await;
        let at_once = log.len() - 495;
        assert!(at_once <= 502, "{at_once} after {jump:?}");
        assert!(at_once >= 493 || jump < Duration::from_secs(60), "{at_once} after {jump:?}");
        for call in calls {
            assert!(timeout(HOUR, call).await.unwrap().unwrap().unwrap().is_success());
        }
        assert_eq!((log.refused(), log.len()), (0, 1500));
        let rest = Duration::from_millis(120) * u32::try_from(1500 - 495 - at_once).unwrap();
        let took = log.elapsed() - jump;
        assert!(took <= rest + Duration::from_millis(620), "{took:?} after {jump:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_beyond_the_bound_loses_no_request() {
    let log = Log::new();
    let pacer = Pacer::builder()
        .policy(one_call_in(Duration::from_secs(1)))
        .max_wait(Duration::from_secs(5));
    let client = BolnaClientLayer::with_pacer(pacer.build().unwrap()).layer(generous(&log));
    let calls = [0, 1, 2, 3].map(|number| send(&client, &format!("/call?{number}")));
    settle().await;
    advance(Duration::from_secs(1000)).await;
    // The process has not run in that time. One is sent at once, and the others a second apart.
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(log.len(), 4);
    assert_at(log.elapsed(), Duration::from_secs(1002));
}
