//! A client waits as long as the response asks for.

use std::time::Duration;

use bolna_rate_limit::client::RetryPolicy;
use http::StatusCode;

use crate::server::{exchange, post, refusal, refusal_once};

/// The longest random time before the first retry, and the timer's resolution.
const RANDOM: Duration = Duration::from_millis(101);

/// The time between a refusal with these fields and the retry, to which every policy may add a
/// random time.
async fn wait(fields: &[(&'static str, &str)]) -> Duration {
    let (response, times, _) =
        exchange(RetryPolicy::new(), post(), |number| refusal_once(fields, number)).await;
    assert_eq!(response.status(), StatusCode::OK, "{fields:?}");
    assert_eq!(times.len(), 2, "{fields:?}");
    times[1] - times[0]
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_never_before_the_time_that_was_asked_for_and_not_much_later() {
    let date = ("date", "Wed, 07 Feb 2035 10:00:00 GMT");
    for (fields, asked) in [
        (&[("retry-after", "1")][..], Duration::from_secs(1)),
        (&[("retry-after", "7")], Duration::from_secs(7)),
        (&[("retry-after", "0")], Duration::ZERO),
        // The default total time is 5 minutes.
        (&[("retry-after-ms", "299800")], Duration::from_millis(299_800)),
        (&[("retry-after-ms", "118"), ("retry-after", "1")], Duration::from_millis(118)),
        (&[("retry-after-ms", "soon"), ("retry-after", "1")], Duration::from_secs(1)),
        (&[date, ("retry-after", "Wed, 07 Feb 2035 10:00:12 GMT")], Duration::from_secs(12)),
        (&[date, ("retry-after", "Wednesday, 07-Feb-35 10:00:12 GMT")], Duration::from_secs(12)),
        (&[date, ("retry-after", "Wed Feb  7 10:00:12 2035")], Duration::from_secs(12)),
        (&[date, ("retry-after", "Wed, 07 Feb 2035 09:59:59 GMT")], Duration::ZERO),
        (&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], Duration::ZERO),
        (&[("retry-after", "2.863")], Duration::from_millis(2863)),
        (&[("retry-after", "299.8")], Duration::from_millis(299_800)),
        (&[("retry-after", "4m0s, 1")], Duration::from_secs(240)),
        (&[("retry-after", "1"), ("retry-after", "2")], Duration::from_secs(2)),
        (&[date, ("retry-after", "2054455212")], Duration::from_secs(12)),
        (&[date, ("retry-after", "2035-02-07T10:00:12Z")], Duration::from_secs(12)),
        (&[("age", "5"), ("retry-after", "12")], Duration::from_secs(7)),
    ] {
        for _ in 0..100 {
            let waited = wait(fields).await;
            assert!(waited >= asked && waited <= asked + RANDOM, "{waited:?} for {fields:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_that_makes_no_sense_is_at_least_a_second() {
    let second = Duration::from_secs(1);
    for fields in [
        &[][..],
        &[("retry-after", "")],
        &[("retry-after", "-1")],
        &[("retry-after", "+1")],
        &[("retry-after", "soon")],
        &[("retry-after", "NaN")],
        &[("retry-after", "3600 bananas")],
        &[("retry-after", "Wed, 37 Feb 2035 10:00:00 GMT")],
        &[("age", "60"), ("retry-after", "60")],
    ] {
        let waited = wait(fields).await;
        assert!(waited >= second && waited <= second + RANDOM, "{waited:?} for {fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_doubles_while_the_server_does_not_say_when() {
    let (response, times, _) =
        exchange(RetryPolicy::new(), post(), |number| refusal(&[("retry-after", "soon")], number))
            .await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, seconds) in gaps.iter().zip([1, 2, 4, 8]) {
        let least = Duration::from_secs(seconds);
        assert!(*gap >= least && *gap <= least + 8 * RANDOM, "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_told_to_hurry_waits_no_longer_than_its_longest_backoff() {
    let longest = Duration::from_millis(50);
    let policy = RetryPolicy::builder().backoff(longest, longest).build().unwrap();
    let (_, times, _) = exchange(policy, post(), |number| refusal_once(&[], number)).await;
    let waited = times[1] - times[0];
    assert!(waited >= longest && waited <= 2 * longest + Duration::from_millis(1), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_too_long_is_not_begun() {
    let long = "9".repeat(10_000);
    for fields in [
        // The default total time is 5 minutes.
        &[("retry-after", "301")][..],
        &[("retry-after", "5m1s")],
        &[("retry-after", "300.001")],
        &[("retry-after", "315360000")],
        &[("retry-after", &long)],
        &[("retry-after-ms", "300001")],
        &[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")],
    ] {
        let (response, times, end) =
            exchange(RetryPolicy::new(), post(), |number| refusal(fields, number)).await;
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS, "{fields:?}");
        assert_eq!((times.len(), end), (1, Duration::ZERO), "{fields:?}");
    }
}
