//! Another client spends units from the same bucket, without any pacing.

use std::time::Duration;

use bolna_rate_limit::Policy;
use bolna_rate_limit::client::{BolnaClientLayer, Pacer};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::Layer;

use crate::support::{
    Log, ServerLimiter, assert_all_ok, distant, limited, limiter, principal, scattered, send_calls,
    usage_of_call,
};

/// After each pause, spends that many units at once, as far as they are there; until it is dropped.
fn another_client(limiter: &ServerLimiter, units: usize, pause: Duration) -> JoinSet<()> {
    let limiter = limiter.clone();
    let spend = async move {
        loop {
            for _ in 0..units {
                limiter.check_now(&principal().into(), "/call").unwrap();
            }
            sleep(pause).await;
        }
    };
    JoinSet::from_iter([spend])
}

/// Sends 1,500 calls while another client spends units. Returns how many refusals they got before
/// all of them were admitted.
async fn refusals_beside(
    pacer: Pacer,
    units: usize,
    pause: Duration,
    trip: impl Fn(u32) -> Duration + Clone + Send + 'static,
) -> usize {
    let (log, limiter) = (Log::new(), limiter(Policy::default()));
    let client = BolnaClientLayer::with_pacer(pacer).layer(distant(limited(&log, &limiter), trip));
    let other = another_client(&limiter, units, pause);
    let answers = timeout(Duration::from_secs(3600), send_calls(&client, 1500)).await.unwrap();
    drop(other);
    assert_all_ok(&answers);
    let usage = usage_of_call(client.pacer());
    assert_eq!((usage.waiting(), usage.unanswered()), (0, 0));
    assert_eq!(usage.refused(), u64::try_from(log.refused()).unwrap());
    log.refused()
}

#[tokio::test(start_paused = true)]
async fn half_of_the_limit_goes_to_another_client_evenly() {
    for millis in [0, 40, 400] {
        let refused = refusals_beside(Pacer::new(), 1, Duration::from_millis(240), move |_| {
            Duration::from_millis(millis)
        })
        .await;
        // None was seen: the server reports in time what is left.
        assert!(refused <= 5, "{refused} with a trip of {millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn half_of_the_limit_goes_to_another_client_in_bursts() {
    for millis in [0, 40, 400] {
        let refused = refusals_beside(Pacer::new(), 50, Duration::from_secs(10), move |_| {
            Duration::from_millis(millis)
        })
        .await;
        // Up to 59 were seen, for some 24 bursts: requests on their way during a burst are refused.
        assert!(refused <= 120, "{refused} with a trip of {millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn half_of_the_limit_goes_to_another_client_and_trips_are_of_varied_length() {
    // 0, 0 and 32 were seen: the units held back are not enough for both the trips of the last kind
    // and the units of the other client.
    for (variation, most) in [(20, 5), (60, 5), (200, 70)] {
        let trip = move |number| Duration::from_millis((20 + scattered(number, variation)).into());
        let refused = refusals_beside(Pacer::new(), 1, Duration::from_millis(240), trip).await;
        assert!(refused <= most, "{refused} with trips that vary by {variation} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn beside_another_client_a_longer_jitter_prevents_what_varied_trips_lead_to() {
    let trip = |number| Duration::from_millis((20 + scattered(number, 200)).into());
    let pacer = Pacer::builder().jitter(Duration::from_millis(750)).build().unwrap();
    // None was seen.
    let refused = refusals_beside(pacer, 1, Duration::from_millis(240), trip).await;
    assert!(refused <= 5, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn another_client_that_takes_the_whole_burst_first() {
    let (log, limiter) = (Log::new(), limiter(Policy::default()));
    for _ in 0..500 {
        limiter.check_now(&principal().into(), "/call").unwrap();
    }
    let client = BolnaClientLayer::new().layer(limited(&log, &limiter));
    let answers = timeout(Duration::from_secs(3600), send_calls(&client, 1000)).await.unwrap();
    assert_all_ok(&answers);
    // The requests that were sent at once, before the client knew of the other one.
    assert!(log.refused() <= 500, "{}", log.refused());
    let (least, took) = (Duration::from_secs(120), log.elapsed());
    assert!(took <= least.mul_f64(1.05), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn two_clients_that_pace_and_do_not_know_of_each_other() {
    let (log, limiter) = (Log::new(), limiter(Policy::default()));
    let server = limited(&log, &limiter);
    let one = BolnaClientLayer::with_pacer(Pacer::new())
        .layer(distant(server.clone(), |_| Duration::from_millis(20)));
    let another = BolnaClientLayer::with_pacer(Pacer::new())
        .layer(distant(server, |_| Duration::from_millis(30)));
    let both = async { tokio::join!(send_calls(&one, 750), send_calls(&another, 750)) };
    let (ones, others) = timeout(Duration::from_secs(3600), both).await.unwrap();
    assert_all_ok(&ones);
    assert_all_ok(&others);
    // The burst, which each client takes to be its own.
    assert!(log.refused() <= 540, "{}", log.refused());
}
