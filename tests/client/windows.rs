//! Servers that count in fixed windows, as many other servers do, and report them in the fields of
//! their dialect.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, RetryPolicy};
use bolna_rate_limit::{Policy, Quota};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::time::timeout;
use tower::{Layer, service_fn};

use crate::support::{Log, Remote, assert_all_ok, distant, patient, send_calls};

const LIMIT: u32 = 500;
const WINDOW: u64 = 60;

#[derive(Clone, Copy, Debug)]
enum Dialect {
    Unspecified,
    /// With the reset as a Unix time.
    UnixTime,
    Draft06,
    Draft07,
    Draft11,
}

use Dialect::{Draft06, Draft07, Draft11, UnixTime, Unspecified};

/// A Unix time in the year 2033.
const STARTED: u64 = 2_000_000_000;

impl Dialect {
    /// `left` is a time in seconds, and `now` is counted from the start.
    fn fields(self, remaining: u32, left: u64, now: u64) -> Vec<(&'static str, String)> {
        match self {
            Unspecified => vec![
                ("x-ratelimit-limit", LIMIT.to_string()),
                ("x-ratelimit-remaining", remaining.to_string()),
                ("x-ratelimit-reset", left.to_string()),
            ],
            UnixTime => vec![
                ("x-ratelimit-limit", LIMIT.to_string()),
                ("x-ratelimit-remaining", remaining.to_string()),
                ("x-ratelimit-reset", (STARTED + now + left).to_string()),
                ("date", date(now)),
            ],
            Draft06 => vec![
                ("ratelimit-limit", format!("{LIMIT}, {LIMIT};w={WINDOW}")),
                ("ratelimit-remaining", remaining.to_string()),
                ("ratelimit-reset", left.to_string()),
            ],
            Draft07 => vec![
                ("ratelimit", format!("limit={LIMIT}, remaining={remaining}, reset={left}")),
                ("ratelimit-policy", format!("{LIMIT};w={WINDOW}")),
            ],
            Draft11 => vec![
                ("ratelimit", format!("\"burst\";r={remaining};t={left}")),
                ("ratelimit-policy", format!("\"burst\";q={LIMIT};w={WINDOW}")),
            ],
        }
    }
}

/// 18 May 2033, 03:33:20, plus that many seconds.
fn date(now: u64) -> String {
    let (hours, minutes, seconds) =
        ((12_800 + now) / 3600, (12_800 + now) / 60 % 60, (12_800 + now) % 60);
    format!("Wed, 18 May 2033 {hours:02}:{minutes:02}:{seconds:02} GMT")
}

/// The first window began `phase` seconds before the first request. A refusal has no `Retry-After`.
fn server(log: &Log, dialect: Dialect, phase: u64, rounds_up: bool) -> Remote {
    let used = Arc::new(Mutex::new((0, 0)));
    let log = log.clone();
    let server = service_fn(move |request: Request<String>| {
        let now = log.elapsed() + Duration::from_secs(phase);
        let window = now.as_secs() / WINDOW;
        let left = Duration::from_secs((window + 1) * WINDOW) - now;
        let mut used = used.lock().unwrap();
        if used.0 != window {
            *used = (window, 0);
        }
        let is_granted = used.1 < LIMIT;
        used.1 += u32::from(is_granted);
        let left =
            if rounds_up { left.as_millis().div_ceil(1000) } else { left.as_millis() / 1000 };
        let mut response = Response::new(String::new());
        for (name, value) in
            dialect.fields(LIMIT - used.1, u64::try_from(left).unwrap(), now.as_secs())
        {
            response.headers_mut().append(name, HeaderValue::try_from(value).unwrap());
        }
        if !is_granted {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        }
        log.add(request.uri().to_string(), response.status());
        async move { Ok(response) }
    });
    distant(Remote::new(server), |_| Duration::from_millis(20))
}

/// How many refusals 1,200 calls get before all of them are admitted, and how long it takes.
async fn a_job(dialect: Dialect, phase: u64, rounds_up: bool) -> (usize, Duration) {
    let log = Log::new();
    let policy = Policy::bolna()
        .quota("call", Quota::per(LIMIT, Duration::from_secs(WINDOW)))
        .build()
        .unwrap();
    let pacer = patient().policy(policy).build().unwrap();
    let retry = RetryPolicy::builder().total_time(Duration::from_secs(10_000)).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer)
        .retry(retry)
        .layer(server(&log, dialect, phase, rounds_up));
    let answers = timeout(Duration::from_secs(3600), send_calls(&client, 1200)).await.unwrap();
    assert_all_ok(&answers);
    (log.refused(), *log.times("").last().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_client_alone_is_done_in_the_least_time() {
    for dialect in [Unspecified, UnixTime, Draft06, Draft07, Draft11] {
        // 500 in this window, 500 in the next, and the rest in the one after it; or as fast as the
        // client's own policy allows.
        for (phase, least) in [(0, 120), (8, 112), (30, 90), (45, 84)] {
            let (refused, took) = a_job(dialect, phase, true).await;
            assert_eq!(refused, 0, "{dialect:?} at {phase} s");
            let least = Duration::from_secs(least);
            assert!(
                took >= least && took <= least.mul_f64(1.02),
                "{dialect:?} at {phase} s took {took:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_is_rounded_down_costs_no_more_than_one_refusal_in_a_second() {
    for dialect in [Unspecified, Draft06, Draft07, Draft11] {
        for phase in [0, 8, 30, 45] {
            let (refused, took) = a_job(dialect, phase, false).await;
            // At the edge of each window one request is sent too soon, and perhaps one more; not a
            // whole burst.
            assert!(refused <= 4, "{refused} with {dialect:?} at {phase} s");
            assert!(took <= Duration::from_secs(123), "{dialect:?} at {phase} s took {took:?}");
        }
    }
}
