//! The limiters do what they are said to do.

use proptest::prelude::*;

use super::{Algorithm, Limit};
use crate::foreign::{MILLISECOND, Nanos, SECOND};

/// Some time after 1970, on a full minute.
const START: Nanos = 1_764_417_600 * SECOND;

fn limit(algorithm: Algorithm, requests: u64, window: Nanos) -> Limit {
    Limit { algorithm, requests, window }
}

/// When a client that knows the limiter is admitted, in milliseconds since the start.
fn admissions(limit: Limit, calls: usize) -> Vec<u64> {
    let mut limiter = limit.limiter();
    let mut now = START;
    let mut admissions = Vec::new();
    for _ in 0..calls {
        now += limiter.wait(now);
        limiter.admit(now);
        admissions.push((now - START) / MILLISECOND);
    }
    admissions
}

#[test]
fn each_algorithm_admits_what_its_description_says() {
    let two_a_second = |algorithm| admissions(limit(algorithm, 2, SECOND), 5);
    assert_eq!(two_a_second(Algorithm::FixedWindow), [0, 0, 1000, 1000, 2000]);
    assert_eq!(two_a_second(Algorithm::WindowFromFirst), [0, 0, 1000, 1000, 2000]);
    assert_eq!(two_a_second(Algorithm::SlidingLog), [0, 0, 1000, 1000, 2000]);
    // In the second window, 2 * (1 - t) < 2 from its start on, and 2 * (1 - t) + 1 < 2 from 0.5 s.
    assert_eq!(two_a_second(Algorithm::SlidingCounter), [0, 0, 1000, 1500, 2000]);
    assert_eq!(two_a_second(Algorithm::Tokens { burst: 3 }), [0, 0, 0, 500, 1000]);
    assert_eq!(two_a_second(Algorithm::Gcra { burst: 3 }), [0, 0, 0, 500, 1000]);
    assert_eq!(two_a_second(Algorithm::Gcra { burst: 1 }), [0, 500, 1000, 1500, 2000]);
    let nginx = |burst| two_a_second(Algorithm::Nginx { burst, delays: false });
    assert_eq!(nginx(0), [0, 500, 1000, 1500, 2000]);
    assert_eq!(nginx(2), [0, 0, 0, 500, 1000]);
}

#[test]
fn nginx_holds_what_is_above_its_rate() {
    let mut limiter = limit(Algorithm::Nginx { burst: 2, delays: true }, 2, SECOND).limiter();
    assert_eq!([(); 3].map(|()| limiter.admit(START) / MILLISECOND), [0, 500, 1000]);
    assert!(limiter.wait(START) > 0);
}

#[test]
fn a_window_that_is_aligned_may_admit_twice_as_many_around_its_end() {
    let mut limiter = limit(Algorithm::FixedWindow, 1, SECOND).limiter();
    limiter.admit(START + 999 * MILLISECOND);
    assert_eq!(limiter.wait(START + SECOND), 0);
    let mut limiter = limit(Algorithm::WindowFromFirst, 1, SECOND).limiter();
    limiter.admit(START + 999 * MILLISECOND);
    assert_eq!(limiter.wait(START + SECOND), 999 * MILLISECOND);
}

#[test]
fn a_bucket_of_whole_tokens_refills_from_the_first_request() {
    let mut limiter = limit(Algorithm::Tokens { burst: 2 }, 1, SECOND).limiter();
    limiter.admit(START + 300 * MILLISECOND);
    limiter.admit(START + 800 * MILLISECOND);
    assert_eq!(limiter.wait(START + 800 * MILLISECOND), 500 * MILLISECOND);
    assert_eq!(limiter.remaining(START + 1300 * MILLISECOND), 1);
}

#[test]
fn requests_in_flight_are_admitted_as_others_end() {
    let mut limiter = limit(Algorithm::Concurrency, 2, SECOND).limiter();
    limiter.admit(START);
    limiter.admit(START);
    assert!(limiter.wait(START) > 0);
    limiter.end();
    assert_eq!((limiter.wait(START), limiter.remaining(START)), (0, 1));
}

fn any_limit() -> impl Strategy<Value = Limit> {
    let algorithm = prop_oneof![
        Just(Algorithm::FixedWindow),
        Just(Algorithm::WindowFromFirst),
        Just(Algorithm::SlidingLog),
        Just(Algorithm::SlidingCounter),
        (1..9_u64).prop_map(|burst| Algorithm::Tokens { burst }),
        (1..9_u64).prop_map(|burst| Algorithm::Gcra { burst }),
        (0..9_u64, any::<bool>()).prop_map(|(burst, delays)| Algorithm::Nginx { burst, delays }),
    ];
    let window = (1..60_000_u64).prop_map(|millis| millis * MILLISECOND);
    (algorithm, 1..40_u64, window)
        .prop_map(|(algorithm, requests, window)| limit(algorithm, requests, window))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn the_wait_is_the_shortest_after_which_a_request_is_admitted(
        limit in any_limit(),
        steps in prop::collection::vec((0..2000_u64, any::<bool>()), 1..100),
    ) {
        let mut limiter = limit.limiter();
        let mut now = START;
        for (millis, is_charged) in steps {
            now += millis * MILLISECOND;
            let wait = limiter.wait(now);
            if wait == 0 {
                prop_assert!(limiter.remaining(now) > 0, "{limit:?}: none left at {now}");
                limiter.admit(now);
                continue;
            }
            prop_assert_eq!(limiter.remaining(now), 0, "{:?} at {}", limit, now);
            prop_assert_eq!(limiter.wait(now + wait), 0, "{:?} at {}", limit, now);
            prop_assert!(limiter.wait(now + wait - 1) > 0, "{limit:?} at {now}: {wait}");
            // Such servers name the end of the window, where there may be nothing yet.
            let is_window = matches!(limit.algorithm, Algorithm::SlidingCounter);
            prop_assert!(is_window || limiter.reset(now) >= wait, "{limit:?} at {now}: {wait}");
            if is_charged {
                limiter.charge_refused(now);
                prop_assert!(limiter.wait(now) >= wait, "{limit:?} at {now}: {wait}");
            }
        }
    }

    /// The law that all of them share: what is admitted in a time is at most the rate's share of
    /// it, and two bursts.
    #[test]
    fn no_limiter_admits_more_than_its_rate(
        limit in any_limit(),
        steps in prop::collection::vec(0..2000_u64, 1..200),
    ) {
        let mut limiter = limit.limiter();
        let (mut now, mut admitted) = (START, 0);
        for millis in steps {
            now += millis * MILLISECOND;
            if limiter.wait(now) == 0 {
                limiter.admit(now);
                admitted += 1;
            }
        }
        let most = (now - START) / limit.interval() + 2 * limit.reported().0;
        prop_assert!(admitted <= most, "{limit:?}: {admitted} instead of {most}");
    }
}
