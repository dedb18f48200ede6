//! Endpoints with several limits.

use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, Pace, PaceLayer};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::values::QuotaBuilder;
use bolna_rate_limit::{Policy, Quota};
use http::{HeaderValue, Response, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt};

use crate::support::{
    Log, Remote, assert_all_ok, assert_at, distant, generous, limited, limiter, mock, patient,
    refusal, request, send, send_calls, settle, usage_of_call,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Of 500 calls a minute, each user gets 100.
fn for_users() -> Policy {
    Policy::bolna().user_share("call", 20).build().unwrap()
}

/// Calls and agents have `quota` together.
fn together(quota: QuotaBuilder) -> Policy {
    let limit = LimitBuilder::account("both", quota);
    Policy::bolna().shared(limit, ["call", "agent"]).build().unwrap()
}

/// A response with those fields.
fn says(fields: &[(&'static str, &'static str)]) -> Response<String> {
    let mut response = Response::new(String::new());
    for (name, value) in fields {
        response.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    response
}

/// The gaps between the times.
fn gaps(times: &[Duration]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn the_client_keeps_to_a_limit_of_each_user() {
    let log = Log::new();
    let policy = for_users();
    let client =
        BolnaClientLayer::with_policy(policy.clone()).layer(limited(&log, &limiter(policy)));
    let calls: Vec<_> = (0..150).map(|number| send(&client, &format!("/call?{number}"))).collect();
    settle().await;
    // 500 ms of the burst are held back.
    assert_eq!(log.len(), 100 - 1);
    let usage = usage_of_call(client.pacer());
    assert_eq!(usage.quota(), Quota::per_minute(500).build().unwrap());
    assert_eq!((usage.waiting(), usage.remaining(), usage.paused()), (51, 0, Duration::ZERO));
    assert!(usage.wait() >= Duration::from_secs(30), "{usage:?}");
    for call in calls {
        assert!(timeout(HOUR, call).await.unwrap().unwrap().unwrap().is_success());
    }
    assert_eq!(log.refused(), 0);
    let after = log.times("/call").split_off(99);
    let interval = Duration::from_millis(600);
    for gap in gaps(&after) {
        assert_at(gap + Duration::from_millis(1), interval);
    }
    // The other endpoints have no such limit.
    let usage = client.pacer().peek("/v2/agent/7").unwrap();
    assert_eq!((usage.remaining(), usage.wait()), (495, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn what_remains_is_what_the_tightest_limit_allows() {
    let log = Log::new();
    let day = LimitBuilder::account("call-day", Quota::per_day(1000)).cost(10);
    let policy = Policy::bolna().also("call", day).build().unwrap();
    let client = BolnaClientLayer::with_policy(policy).layer(generous(&log));
    let remaining = || usage_of_call(client.pacer()).remaining();
    // 100 calls a day, with half a second of the burst held back.
    assert_eq!(remaining(), 99);
    assert_all_ok(&send_calls(&client, 95).await);
    assert_eq!(remaining(), 4);
    sleep(DAY).await;
    assert_eq!(remaining(), 99);
}

#[tokio::test(start_paused = true)]
async fn the_client_keeps_to_a_limit_of_a_day() {
    let log = Log::new();
    let day = LimitBuilder::account("call-day", Quota::per_day(24));
    let policy = Policy::bolna().also("call", day).build().unwrap();
    let pacer = patient().policy(policy.clone()).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer).layer(limited(&log, &limiter(policy)));
    assert_all_ok(&timeout(DAY, send_calls(&client, 30)).await.unwrap());
    assert_eq!(log.refused(), 0);
    let times = log.times("/call");
    // Then one comes back in each hour.
    let at_once = times.iter().filter(|at| **at < Duration::from_secs(1)).count();
    assert_eq!(at_once, 24);
    for (at, hours) in times[24..].iter().zip(1..) {
        let (least, most) = (HOUR * hours, HOUR * hours + Duration::from_secs(1));
        assert!(*at >= least && *at <= most, "{at:?} instead of {least:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_further_limit_that_is_too_long_fails_at_once() {
    let log = Log::new();
    let day = LimitBuilder::account("call-day", Quota::per_day(24).burst(2));
    let policy = Policy::bolna().also("call", day).build().unwrap();
    let client = BolnaClientLayer::with_policy(policy).layer(generous(&log));
    let answers = send_calls(&client, 10).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2);
    assert!(log.elapsed() <= Duration::from_secs(1), "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_share_a_limit_keep_to_it_together() {
    let log = Log::new();
    let policy = together(Quota::per_minute(60));
    let client =
        BolnaClientLayer::with_policy(policy.clone()).layer(limited(&log, &limiter(policy)));
    let paths = ["/call", "/v2/agent/7", "/user/me"];
    let calls: Vec<_> = (0..300).map(|number| send(&client, paths[number % 3])).collect();
    settle().await;
    let sent = |path| log.times(path).len();
    // Half a second of the burst is held back.
    assert_eq!([sent("/call"), sent("/v2/agent"), sent("/user")], [30, 29, 100]);
    for call in calls {
        assert!(timeout(HOUR, call).await.unwrap().unwrap().unwrap().is_success());
    }
    assert_eq!(log.refused(), 0);
    let (least, took) = (Duration::from_secs(140), log.elapsed());
    assert!(took >= least && took <= least + Duration::from_secs(1), "{took:?}");
    // In the order of their arrival.
    let targets: Vec<_> =
        log.targets().into_iter().filter(|target| *target != "/user/me").collect();
    assert!(targets.chunks(2).all(|pair| pair == ["/call", "/v2/agent/7"]), "{targets:?}");
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_one_endpoint_spends_is_gone_for_the_others() {
    let log = Log::new();
    let policy = together(Quota::per(1, Duration::from_secs(10)));
    let client = PaceLayer::new(patient().policy(policy).build().unwrap()).layer(generous(&log));
    let agent = || client.pacer().peek("/v2/agent/7").unwrap();
    let ten = Duration::from_secs(10);
    assert!(send(&client, "/call").await.unwrap().is_ok());
    assert_eq!((agent().remaining(), agent().wait(), agent().sent()), (0, ten, 0));
    // One that waits in each of them. The one that came first leaves before its turn.
    let first = send(&client, "/call");
    settle().await;
    let second = send(&client, "/v2/agent/7");
    settle().await;
    first.abort();
    assert!(timeout(HOUR, second).await.unwrap().unwrap().is_ok());
    assert_at(log.elapsed(), ten);
    assert!(timeout(HOUR, send(&client, "/call")).await.unwrap().unwrap().is_ok());
    assert_at(log.elapsed(), 2 * ten);
}

#[tokio::test(start_paused = true)]
async fn a_dispatched_request_that_is_dropped_makes_room_in_the_other_endpoint() {
    let log = Log::new();
    let policy = together(Quota::per(1, Duration::from_secs(10)));
    let pacer = patient().policy(policy).build().unwrap();
    let mut client = PaceLayer::new(pacer).layer(generous(&log));
    client.call(request("/call")).await.unwrap();
    let mut dawdling = tokio_test::task::spawn(client.call(request("/call")));
    tokio_test::assert_pending!(dawdling.poll());
    let other = send(&client, "/v2/agent/7");
    sleep(Duration::from_millis(10_100)).await;
    assert!(dawdling.is_woken() && !other.is_finished());
    drop(dawdling);
    assert!(timeout(HOUR, other).await.unwrap().unwrap().is_ok());
    assert_at(log.elapsed(), Duration::from_millis(10_100));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_shared_limit_is_sent_in_the_end() {
    let log = Log::new();
    let policy = together(Quota::per_second(100).burst(1));
    let pacer = patient().policy(policy).build().unwrap();
    let mut client = PaceLayer::new(pacer).layer(generous(&log));
    assert!(client.call(request("/call")).await.is_ok());
    // Others look for a unit in each millisecond, before the worker has its turn.
    let others = |mut client: Pace<Remote>| async move {
        loop {
            sleep(Duration::from_millis(1)).await;
            drop(client.call(request("/v2/agent/7")));
        }
    };
    let _others = JoinSet::from_iter([others(client.clone())]);
    settle().await;
    let waiting = send(&client, "/call");
    assert!(timeout(Duration::from_secs(1), waiting).await.unwrap().unwrap().is_ok());
    assert!(log.elapsed() <= Duration::from_millis(20), "{:?}", log.elapsed());
}

#[tokio::test(start_paused = true)]
async fn requests_are_paced_by_their_costs() {
    let log = Log::new();
    let rows = LimitBuilder::account("rows", Quota::per_minute(1000)).cost(20);
    let policy = Policy::bolna().also("call", rows).build().unwrap();
    let client =
        BolnaClientLayer::with_policy(policy.clone()).layer(limited(&log, &limiter(policy)));
    let calls: Vec<_> = (0..100).map(|number| send(&client, &format!("/call?{number}"))).collect();
    settle().await;
    // 50 requests take all units, of which those of half a second are held back.
    assert_eq!(log.len(), 49);
    for call in calls {
        assert!(timeout(HOUR, call).await.unwrap().unwrap().unwrap().is_success());
    }
    assert_eq!(log.refused(), 0);
    // 20 units come back in 1.2 s.
    let after = log.times("/call").split_off(49);
    for gap in gaps(&after) {
        assert_at(gap + Duration::from_millis(1), Duration::from_millis(1200));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_costs_the_whole_burst_is_sent_when_the_bucket_is_full() {
    for evenly in [false, true] {
        let log = Log::new();
        let policy = Policy::bolna()
            .quota("call", Quota::per_minute(60).burst(10))
            .cost("call", 10)
            .build()
            .unwrap();
        let pacer = patient().policy(policy.clone());
        let pacer = if evenly { pacer.evenly() } else { pacer }.build().unwrap();
        let client = BolnaClientLayer::with_pacer(pacer).layer(limited(&log, &limiter(policy)));
        assert_all_ok(&timeout(HOUR, send_calls(&client, 5)).await.unwrap());
        assert_eq!(log.refused(), 0);
        for (at, seconds) in log.times("/call").into_iter().zip([0, 10, 20, 30, 40]) {
            assert_at(at, Duration::from_secs(seconds));
        }
    }
}

/// Calls have a limit for everyone, of one in ten seconds.
fn for_everyone() -> Policy {
    let all = LimitBuilder::everyone("call-all", Quota::per(1, Duration::from_secs(10)));
    Policy::bolna().also("call", all).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn everyones_limit_is_not_paced() {
    let log = Log::new();
    let client = PaceLayer::new(patient().policy(for_everyone()).build().unwrap());
    let client = client.layer(generous(&log));
    assert_eq!(usage_of_call(client.pacer()).remaining(), 495);
    assert_all_ok(&send_calls(&client, 495).await);
    assert_at(log.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_everyones_limit_pauses_the_endpoint() {
    let log = Log::new();
    let policy = for_everyone();
    let server = distant(limited(&log, &limiter(policy.clone())), |_| Duration::from_millis(20));
    let pacer = patient().policy(policy).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer).layer(server);
    let calls: Vec<_> = (0..2).map(|number| send(&client, &format!("/call?{number}"))).collect();
    sleep(Duration::from_millis(41)).await;
    assert_eq!((log.len(), log.refused()), (2, 1));
    let usage = usage_of_call(client.pacer());
    assert!(usage.paused() >= Duration::from_secs(9), "{usage:?}");
    // It does not pause the others.
    assert_eq!(client.pacer().peek("/v2/agent/7").unwrap().paused(), Duration::ZERO);
    for call in calls {
        assert!(timeout(HOUR, call).await.unwrap().unwrap().unwrap().is_success());
    }
    assert_eq!((log.len(), log.refused()), (3, 1));
    assert!(log.elapsed() <= Duration::from_secs(12), "{:?}", log.elapsed());
}

/// Reports with the first response that the user has no units left for five seconds.
fn drained(log: &Log) -> Remote {
    mock(log, |number| {
        let user = if number == 1 { "\"call-user\";r=0;t=5" } else { "\"call-user\";r=99;t=59" };
        says(&[
            ("ratelimit-policy", "\"call\";q=500;w=60"),
            ("ratelimit-policy", "\"call-user\";q=100;w=60"),
            ("ratelimit", "\"call\";r=250;t=30"),
            ("ratelimit", user),
        ])
    })
}

#[tokio::test(start_paused = true)]
async fn a_further_limit_that_is_drained_is_waited_for() {
    let log = Log::new();
    let client = BolnaClientLayer::with_policy(for_users()).layer(drained(&log));
    assert_all_ok(&send_calls(&client, 1).await);
    let five = Duration::from_secs(5);
    let usage = usage_of_call(client.pacer());
    assert_eq!((usage.paused(), usage.wait(), usage.remaining()), (five, five, 0));
    assert_all_ok(&timeout(HOUR, send_calls(&client, 10)).await.unwrap());
    assert_at(log.times("/call")[1], five);
}

#[tokio::test(start_paused = true)]
async fn what_is_reported_of_a_further_limit_holds_for_that_limit() {
    // Another client of the same user spends 80 units of its 100, and one of another user 300.
    let log = Log::new();
    let server = mock(&log, |number| {
        let response = says(&[
            ("ratelimit-policy", "\"call\";q=500;w=60, \"call-user\";q=100;w=60"),
            ("ratelimit", "\"call-user\";r=19;t=12"),
        ]);
        if number == 1 { response } else { Response::new(String::new()) }
    });
    let client = PaceLayer::new(patient().policy(for_users()).build().unwrap()).layer(server);
    assert_all_ok(&send_calls(&client, 1).await);
    let remaining = usage_of_call(client.pacer()).remaining();
    assert!((17..=19).contains(&remaining), "{remaining}");
    // A stricter quota than the policy's is adopted, also for a further limit.
    let strict = mock(&log, |_| {
        says(&[
            ("ratelimit-policy", "\"call\";q=500;w=60, \"call-user\";q=10;w=60"),
            ("ratelimit", "\"call\";r=450;t=54, \"call-user\";r=5;t=30"),
        ])
    });
    let client = PaceLayer::new(patient().policy(for_users()).build().unwrap()).layer(strict);
    assert_all_ok(&send_calls(&client, 1).await);
    let usage = usage_of_call(client.pacer());
    assert!((3..=5).contains(&usage.remaining()), "{usage:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shared_limit_that_is_exhausted_pauses_all_that_share_it() {
    let exhausted = [
        ("ratelimit-policy", "\"call\";q=500;w=60"),
        ("ratelimit-policy", "\"both\";q=100;w=60"),
        ("ratelimit", "\"call\";r=250;t=30"),
        ("ratelimit", "\"both\";r=0;t=7"),
        ("retry-after", "7"),
    ];
    for status in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        let log = Log::new();
        let server = mock(&log, move |number| {
            let mut response =
                if number == 1 { says(&exhausted) } else { Response::new(String::new()) };
            *response.status_mut() = if number == 1 { status } else { StatusCode::OK };
            response
        });
        let policy = together(Quota::per_minute(100));
        let client = PaceLayer::new(patient().policy(policy).build().unwrap()).layer(server);
        let answer = client.clone().oneshot(request("/call")).await.unwrap();
        assert_eq!(answer.status(), status);
        let seven = Duration::from_secs(7);
        let paused = |path| client.pacer().peek(path).unwrap().paused();
        assert!(paused("/call") >= seven, "{status}");
        assert_eq!((paused("/v2/agent/7"), paused("/user/me")), (seven, Duration::ZERO));
        assert!(timeout(HOUR, send(&client, "/v2/agent/7")).await.unwrap().unwrap().is_ok());
        assert_at(log.elapsed(), seven);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_another_limit_pauses_no_endpoint_that_shares_one() {
    let log = Log::new();
    let server = mock(&log, |number| {
        if number == 1 {
            refusal(&[("ratelimit", "\"call\";r=0;t=7, \"both\";r=50;t=30"), ("retry-after", "7")])
        } else {
            Response::new(String::new())
        }
    });
    let client =
        PaceLayer::new(patient().policy(together(Quota::per_minute(100))).build().unwrap());
    let client = client.layer(server);
    client.clone().oneshot(request("/call")).await.unwrap();
    assert!(usage_of_call(client.pacer()).paused() >= Duration::from_secs(7));
    assert!(send(&client, "/v2/agent/7").await.unwrap().is_ok());
    assert_at(log.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_report_from_before_a_pause_does_not_end_it() {
    // The first response, to a call, reports that the shared limit is exhausted. The second one,
    // to an agent, was made before that, and takes longer.
    let log = Log::new();
    let server = mock(&log, |number| match number {
        1 => says(&[("ratelimit", "\"both\";r=0;t=7")]),
        2 => says(&[("ratelimit", "\"both\";r=90;t=54")]),
        _ => Response::new(String::new()),
    });
    let server = distant(server, |number| match number {
        3 => Duration::from_millis(100),
        5 => Duration::from_secs(1),
        _ => Duration::ZERO,
    });
    let policy = together(Quota::per_minute(100));
    let client = PaceLayer::new(patient().policy(policy).build().unwrap()).layer(server);
    let both = [send(&client, "/call"), send(&client, "/v2/agent/7")];
    for call in both {
        assert!(call.await.unwrap().is_ok());
    }
    assert_at(log.elapsed(), Duration::from_secs(1));
    assert_all_ok(&timeout(HOUR, send_calls(&client, 10)).await.unwrap());
    let after = log.times("/call").split_off(1);
    assert_at(after[0], Duration::from_millis(7100));
    // One by one.
    for gap in gaps(&after) {
        assert_at(gap + Duration::from_millis(1), Duration::from_millis(600));
    }
}

#[tokio::test(start_paused = true)]
async fn an_even_pace_is_that_of_the_endpoints_own_limit() {
    let log = Log::new();
    let day = LimitBuilder::account("day", Quota::per_day(2000));
    let policy = Policy::bolna().shared(day, ["call", "agent", "default"]).build().unwrap();
    let pacer = patient().policy(policy).evenly().build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer).layer(generous(&log));
    assert_all_ok(&timeout(HOUR, send_calls(&client, 100)).await.unwrap());
    for gap in gaps(&log.times("/call")) {
        let (least, most) = (Duration::from_millis(108), Duration::from_millis(124));
        assert!(gap >= least && gap <= most, "{gap:?}");
    }
}
