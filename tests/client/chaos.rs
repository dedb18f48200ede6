//! Any behaviour of the callers, and any response of the server.

use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, Pacer, RetryPolicy};
use bolna_rate_limit::{Policy, Quota};
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode};
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{advance, sleep, timeout};
use tower::{BoxError, Layer, ServiceExt, service_fn};

use crate::callers::{Caller, callers};
use crate::support::{Log, Remote, request, slow_to_ready, usage_of_call};

const DAY: Duration = Duration::from_secs(86_400);
const MAX_WAIT: Duration = Duration::from_secs(20);
const TOTAL_TIME: Duration = Duration::from_secs(40);

/// What the server does with a request, and after how long.
#[derive(Clone, Debug)]
enum Outcome {
    Granted(Vec<(&'static str, String)>),
    Refused(Vec<(&'static str, String)>),
    Broken,
}

#[derive(Clone, Debug)]
struct Setting {
    quota: (u32, u64, u32),
    evenly: bool,
    jitter: Duration,
    callers: Vec<(Duration, Caller)>,
    /// Used one after another.
    outcomes: Vec<(Duration, Outcome)>,
    /// Used one after another.
    readiness: Vec<Duration>,
    jumps: Vec<Duration>,
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

/// Fields of which each may have a valid value.
fn fields() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let number = prop_oneof![
        4 => (0..60_u64).prop_map(|number| number.to_string()),
        1 => prop::sample::select(vec![
            "4294967295", "4294967296", "999999999999999", "1000000000000000", "18446744073709551616", "-1", "1.5", "x", "",
        ])
        .prop_map(ToOwned::to_owned),
    ];
    (0..6, number.clone(), number.clone(), number.clone(), number).prop_map(
        |(dialect, a, b, c, d)| match dialect {
            0 => vec![],
            1 => vec![("ratelimit", format!("\"call\";r={a};t={b}"))],
            2 => {
                vec![
                    ("ratelimit", format!("\"call\";r={a};t={b}")),
                    ("ratelimit-policy", format!("\"call\";q={c};w={d}")),
                ]
            }
            3 => vec![
                ("x-ratelimit-limit", a),
                ("x-ratelimit-remaining", b),
                ("x-ratelimit-reset", c),
            ],
            4 => vec![
                ("ratelimit-limit", format!("{a}, {a};w={b}")),
                ("ratelimit-remaining", c),
                ("ratelimit-reset", d),
            ],
            _ => vec![("ratelimit", format!("limit={a}, remaining={b}, reset={c}"))],
        },
    )
}

fn outcomes() -> impl Strategy<Value = Vec<(Duration, Outcome)>> {
    let retry_after = prop::sample::select(vec![
        ("x-none", ""),
        ("retry-after", "0"),
        ("retry-after", "1"),
        ("retry-after", "5"),
        ("retry-after", "soon"),
        ("retry-after-ms", "130"),
        ("retry-after", "99999999999999999999"),
    ]);
    let refused = (fields(), retry_after).prop_map(|(mut fields, (name, value))| {
        fields.push((name, value.to_owned()));
        Outcome::Refused(fields)
    });
    let outcome = prop_oneof![
        12 => fields().prop_map(Outcome::Granted),
        2 => refused,
        1 => Just(Outcome::Broken),
    ];
    let time =
        prop_oneof![4 => Just(Duration::ZERO), 4 => millis(1..300), 1 => millis(300..15_000)];
    prop::collection::vec((time, outcome), 1..40)
}

fn settings() -> impl Strategy<Value = Setting> {
    let quota = prop::sample::select(vec![
        (10, 1, 5),
        (1, 1, 1),
        (100, 1, 20),
        (1000, 1, 1),
        (3, 1, 7),
        (500, 60, 500),
    ]);
    let readiness = prop_oneof![
        2 => Just(vec![Duration::ZERO]),
        1 => prop::collection::vec(prop_oneof![3 => Just(Duration::ZERO), 1 => millis(0..800)], 1..20),
    ];
    let jitter = prop::sample::select(vec![0, 20, 500]).prop_map(Duration::from_millis);
    let comes = prop_oneof![1 => Just(Duration::ZERO), 2 => millis(0..4000)];
    let jumps = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(millis(0..3000), 1..20)];
    (quota, any::<bool>(), jitter, callers(), outcomes(), readiness, jumps).prop_flat_map(
        move |(quota, evenly, jitter, callers, outcomes, readiness, jumps)| {
            prop::collection::vec(comes.clone(), callers.len()).prop_map(move |comes| Setting {
                quota,
                evenly,
                jitter,
                callers: comes.into_iter().zip(callers.clone()).collect(),
                outcomes: outcomes.clone(),
                readiness: readiness.clone(),
                jumps: jumps.clone(),
            })
        },
    )
}

fn server(log: &Log, outcomes: Vec<(Duration, Outcome)>) -> Remote {
    let log = log.clone();
    Remote::new(service_fn(move |request: Request<String>| {
        let (time, outcome) = outcomes[log.len() % outcomes.len()].clone();
        let answer = match outcome {
            Outcome::Broken => Err(BoxError::from("broken")),
            Outcome::Granted(fields) => Ok((StatusCode::OK, fields)),
            Outcome::Refused(fields) => Ok((StatusCode::TOO_MANY_REQUESTS, fields)),
        };
        let answer = answer.map(|(status, fields)| {
            let mut response = Response::new(String::new());
            *response.status_mut() = status;
            for (name, value) in fields {
                response.headers_mut().append(name, HeaderValue::try_from(value).unwrap());
            }
            response
        });
        log.add(
            request.uri().to_string(),
            answer.as_ref().map_or(StatusCode::BAD_GATEWAY, Response::status),
        );
        async move {
            sleep(time).await;
            answer
        }
    }))
}

async fn hold(setting: Setting) -> Result<(), TestCaseError> {
    let (limit, period, burst) = setting.quota;
    let policy = Policy::bolna()
        .quota("call", Quota::per(limit, Duration::from_secs(period)).burst(burst))
        .build();
    let pacer = Pacer::builder().policy(policy.unwrap()).jitter(setting.jitter).max_wait(MAX_WAIT);
    let pacer = if setting.evenly { pacer.evenly() } else { pacer }.build().unwrap();
    let retry = RetryPolicy::builder().attempts(4).total_time(TOTAL_TIME).build().unwrap();
    let log = Log::new();
    let readiness = setting.readiness;
    let service = slow_to_ready(server(&log, setting.outcomes), move |number| {
        readiness[number as usize % readiness.len()]
    });
    let client = BolnaClientLayer::with_pacer(pacer.clone()).retry(retry).layer(service);

    let mut set = JoinSet::new();
    for (number, (comes, caller)) in setting.callers.into_iter().enumerate() {
        let call = client.clone().oneshot(request(&format!("/call?{number}")));
        set.spawn(async move {
            sleep(comes).await;
            // An error counts as an answer, and so does a refusal.
            caller.call(call.map(|_| true)).await
        });
    }
    let jumps = async {
        for jump in setting.jumps {
            sleep(Duration::from_millis(137)).await;
            advance(jump).await;
        }
    };
    let all = async {
        while let Some(done) = set.join_next().await {
            done.unwrap();
        }
    };
    // If the service gets ready in time, each request waits for at most this long: to be sent, four
    // times for a response, and to be sent again.
    let hanging = timeout(DAY, async { tokio::join!(all, jumps) }).await;
    prop_assert!(hanging.is_ok(), "a call hangs: {:?}", usage_of_call(&pacer));
    let longest =
        Duration::from_secs(4 + 60) + MAX_WAIT + TOTAL_TIME + 4 * Duration::from_secs(15 + 3);
    prop_assert!(log.elapsed() <= longest, "it took {:?}", log.elapsed());

    let usage = usage_of_call(&pacer);
    prop_assert_eq!((usage.waiting(), usage.unanswered()), (0, 0));
    prop_assert_eq!(usage.sent(), log.len() as u64);
    // A client does not learn of the refusals of calls that were dropped.
    prop_assert!(usage.refused() <= log.refused() as u64);
    let hour = Duration::from_secs(3600) + Duration::from_secs(period);
    prop_assert!(usage.wait() <= hour && usage.paused() <= hour, "{:?}", usage);

    // An independent model of the policy: a bucket that is full at a certain time, which each
    // request moves on.
    let interval = (period * 1_000_000_000).div_ceil(limit.into());
    let whole = interval * u64::from(burst - 1);
    let tolerance = if setting.evenly { whole.min(10_000_000) } else { whole };
    let mut full_at = 0;
    for got in log.got() {
        let at = u64::try_from(got.at.as_nanos()).unwrap();
        prop_assert!(
            full_at <= at + tolerance,
            "{} came {} ns too soon",
            got.target,
            full_at - at - tolerance
        );
        full_at = full_at.max(at) + interval;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn nobody_hangs_and_the_policy_holds(setting in settings()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(hold(setting))?;
    }
}
