//! The policy is replaced while requests wait and are in flight.

use std::collections::HashMap;
use std::time::Duration;

use bolna_rate_limit::client::{
    BolnaClientLayer, MaxWait, PaceLayer, Pacer, Permit, Priority, WaitError,
};
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::{Endpoint, Policy, PolicyError, Quota};
use http::{Request, Response, StatusCode};
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt};

use crate::support::{
    Log, assert_at, distant, generous, mock, one_call_in, patient, refusal, request, send, settle,
    usage_of_call,
};

const SECOND: Duration = Duration::from_secs(1);

const HOUR: Duration = Duration::from_secs(3600);

fn call() -> Endpoint {
    Policy::default().endpoint_of("/call").unwrap()
}

/// Sends that many calls, which wait, except for the first one.
macro_rules! calls {
    ($client:expr, $calls:expr) => {{
        let calls: Vec<_> =
            (0..$calls).map(|number| send(&$client, &format!("/call?{number}"))).collect();
        settle().await;
        calls
    }};
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_are_sent_earlier_by_a_faster_quota() {
    let (log, pacer) = (Log::new(), patient().policy(one_call_in(HOUR)).build().unwrap());
    let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(generous(&log));
    let calls = calls!(client, 5);
    sleep(10 * SECOND).await;
    assert_eq!(log.len(), 1);
    pacer.set_quota("call", Quota::per_second(1).burst(1)).unwrap();
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    let seconds: Vec<_> = log.times("").iter().map(Duration::as_secs).collect();
    // A full refill takes a second now.
    assert_eq!(seconds, [0, 11, 12, 13, 14]);
    assert!(log.targets().iter().enumerate().all(|(n, it)| *it == format!("/call?{n}")));
    assert_eq!(
        pacer.policy().quota_of(call()),
        Some(Quota::per_second(1).burst(1).build().unwrap())
    );
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_are_sent_later_by_a_stricter_one_or_fail() {
    let quota = Quota::per_second(1).burst(1);
    let policy = Policy::bolna().quota("call", quota).build().unwrap();
    let pacer = Pacer::builder().policy(policy).max_wait(100 * SECOND).build().unwrap();
    let log = Log::new();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(generous(&log));
    let calls = calls!(client, 20);
    sleep(SECOND / 2).await;
    pacer.set_policy(one_call_in(10 * SECOND));
    let mut failed = 0;
    for call in calls {
        if let Err(error) = call.await.unwrap() {
            assert!(error.is::<WaitError>(), "{error}");
            failed += 1;
        }
    }
    // Each 10 s, until they have waited for 100 s.
    assert_eq!((log.len(), failed), (11, 9));
    assert_at(log.times("")[10], 91 * SECOND);
    assert_eq!(usage_of_call(&pacer).unsent(), 9);
}

#[tokio::test(start_paused = true)]
async fn they_go_by_the_endpoint_to_which_their_path_belongs_now() {
    let slow = Quota::per(1, 10 * SECOND).burst(1);
    let policy = |paths: &[&str], exempt: &[&str]| {
        let mut policy = Policy::builder().default_quota(slow);
        for path in paths {
            policy = policy.endpoint(&path[1..], slow, [*path]);
        }
        policy.exempt(exempt.iter().copied()).build().unwrap()
    };
    let pacer = patient().policy(policy(&["/a", "/b", "/c"], &[])).build().unwrap();
    let log = Log::new();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(generous(&log));
    let mut calls = Vec::new();
    for target in ["/a?0", "/b?0", "/c?0", "/b?1", "/a?1", "/c?1", "/a?2", "/b?2"] {
        calls.push(send(&client, target));
        settle().await;
    }
    sleep(SECOND).await;
    assert_eq!(log.targets(), ["/a?0", "/b?0", "/c?0"]);
    // Those of a and b are requests to default now, in one order.
    pacer.set_policy(policy(&[], &["/c"]));
    settle().await;
    // Exempt.
    assert_at(log.times("/c?1")[0], SECOND);
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(log.targets()[4..], ["/b?1", "/a?1", "/a?2", "/b?2"]);
    // One whose path was exempt in between is sent, too.
    let waits = send(&client, "/a?3");
    settle().await;
    pacer.set_policy(policy(&[], &["/a"]));
    pacer.set_policy(policy(&["/a"], &[]));
    assert_eq!(waits.await.unwrap().unwrap(), StatusCode::OK);
    assert_at(log.elapsed(), 31 * SECOND);
    pacer.set_policy(policy(&[], &["/c"]));
    // The bucket of `default` was full.
    assert_at(log.times("/b?2")[0], 31 * SECOND);
    let names: Vec<_> = pacer.usage().iter().map(|usage| usage.endpoint().name()).collect();
    assert_eq!(names, ["default"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_paused_and_learned_stays() {
    let log = Log::new();
    let pacer = patient().build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(distant(
        mock(&log, |number| match number {
            1 => refusal(&[("retry-after", "30")]),
            _ => Response::new(String::new()),
        }),
        |_| SECOND,
    ));
    let refused = send(&client, "/call");
    sleep(SECOND + SECOND / 2).await;
    // It is in flight, and its answer still counts.
    assert_eq!(usage_of_call(&pacer).unanswered(), 1);
    pacer.set_quota("call", Quota::per_minute(400)).unwrap();
    assert_eq!(usage_of_call(&pacer).unanswered(), 1);
    refused.await.unwrap().unwrap();
    let paused = |pacer: &Pacer| {
        let usage = usage_of_call(pacer);
        assert_eq!((usage.sent(), usage.refused(), usage.unanswered()), (1, 1, 0));
        usage.paused().as_secs()
    };
    assert_eq!(paused(&pacer), 30);
    pacer.set_policy(Policy::default());
    assert_eq!(paused(&pacer), 30);
    sleep(20 * SECOND).await;
    let call = send(&client, "/call");
    settle().await;
    pacer.set_quota("call", Quota::per_minute(600)).unwrap();
    call.await.unwrap().unwrap();
    assert!(log.times("")[1] >= 32 * SECOND, "{:?}", log.times(""));
}

#[tokio::test(start_paused = true)]
async fn what_was_spent_stays_spent() {
    let pacer = patient().jitter(Duration::ZERO).build().unwrap();
    for _ in 0..400 {
        drop(pacer.try_acquire("/call").unwrap());
        // Further requests need an answer before.
    }
    let remaining = |pacer: &Pacer| usage_of_call(pacer).remaining();
    assert_eq!(remaining(&pacer), 100);
    // 48 s until it is full again: 384 of 480 units.
    pacer.set_quota("call", Quota::per_minute(480)).unwrap();
    assert_eq!(remaining(&pacer), 96);
    pacer.set_policy(Policy::default());
    assert_eq!(remaining(&pacer), 100);
}

#[tokio::test(start_paused = true)]
async fn places_stay_taken_also_by_endpoints_that_are_gone() {
    let shared = || LimitBuilder::account("calls", Quota::concurrent(3));
    let slow = Quota::per_second(100);
    let both = Policy::builder().endpoint("a", slow, ["/a"]).endpoint("b", slow, ["/b"]);
    let both = both.shared(shared(), ["a", "b"]).build().unwrap();
    let one = Policy::builder().endpoint("b", slow, ["/b"]).shared(shared(), ["b"]);
    let one = one.build().unwrap();
    let pacer = patient().policy(both.clone()).build().unwrap();
    let log = Log::new();
    let client = PaceLayer::new(pacer.clone()).layer(generous(&log));
    let response = client.clone().oneshot(request("/a")).await.unwrap();
    let permit = Permit::of(response.extensions()).unwrap();
    drop(response);
    let (a, b) = (pacer.try_acquire("/a").unwrap(), pacer.try_acquire("/b").unwrap());
    assert!(pacer.try_acquire("/b").is_err());
    for policy in [&one, &one, &both, &one] {
        pacer.set_policy(policy.clone());
        assert!(pacer.try_acquire("/b").is_err(), "three are taken");
    }
    // A request waits, and gets the place of an endpoint that is gone.
    let waits = send(&client, "/b");
    settle().await;
    drop(a);
    assert_eq!(waits.await.unwrap().unwrap(), StatusCode::OK);
    let again = pacer.try_acquire("/b").unwrap();
    assert!(pacer.try_acquire("/b").is_err());
    drop(permit);
    drop(pacer.try_acquire("/b").unwrap());
    pacer.set_policy(both);
    drop((b, again));
    let all: Vec<_> = (0..3).map(|_| pacer.try_acquire("/a").unwrap()).collect();
    assert!(pacer.try_acquire("/a").is_err());
    drop(all);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_was_taken_without_its_endpoint_gives_no_place_back() {
    let quota = Quota::per_second(100);
    let one = Policy::builder().endpoint("a", quota, ["/a"]).concurrent("a", 1).build().unwrap();
    let none = Policy::builder().endpoint("b", quota, ["/b"]).build().unwrap();
    let pacer = patient().policy(one.clone()).build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(generous(&Log::new()));
    let response = client.oneshot(request("/a")).await.unwrap();
    let (parts, body) = response.into_parts();
    drop(body);
    pacer.set_policy(none);
    let permit = Permit::of(&parts.extensions).unwrap();
    pacer.set_policy(one);
    let _other = pacer.try_acquire("/a").unwrap();
    drop(permit);
    assert!(pacer.try_acquire("/a").is_err(), "the other permit has the only place");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_too_late_is_sent_if_its_path_is_exempt_before_its_caller_knows() {
    let log = Log::new();
    let policy = Policy::bolna().concurrent("call", 1).build().unwrap();
    let pacer = Pacer::builder().policy(policy).max_wait(20 * SECOND).build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(generous(&log));
    let _running = pacer.occupy("/call");
    let mut late = tokio_test::task::spawn(client.oneshot(request("/call")));
    tokio_test::assert_pending!(late.poll());
    sleep(21 * SECOND).await;
    assert_eq!(usage_of_call(&pacer).unsent(), 1);
    pacer.set_policy(Policy::builder().exempt(["/call"]).build().unwrap());
    late.await.unwrap();
    assert_eq!(log.len(), 1);
    pacer.set_policy(Policy::default());
    let usage = usage_of_call(&pacer);
    // Requests to exempt paths are not counted.
    assert_eq!((usage.sent(), usage.unsent()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_was_gone_goes_on_counting() {
    let log = Log::new();
    let (one, none) = (Policy::default(), Policy::builder().build().unwrap());
    let pacer = patient().policy(one.clone()).build().unwrap();
    let server = mock(&log, |number| match number {
        2 => refusal(&[]),
        _ => Response::new(String::new()),
    });
    let client = PaceLayer::new(pacer.clone()).layer(distant(server, |_| SECOND));
    send(&client, "/call").await.unwrap().unwrap();
    // It is refused while the endpoint is gone.
    let second = send(&client, "/call");
    settle().await;
    pacer.set_policy(none.clone());
    second.await.unwrap().unwrap();
    pacer.set_policy(none);
    pacer.set_policy(one);
    let usage = usage_of_call(&pacer);
    assert_eq!((usage.sent(), usage.refused(), usage.handed_back()), (2, 1, 1));
    sleep(10 * SECOND).await;
    send(&client, "/call").await.unwrap().unwrap();
    assert_eq!(usage_of_call(&pacer).sent(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_spent_stays_spent_also_while_its_limit_is_gone() {
    let none = || Policy::builder().build().unwrap();
    let other = || Policy::builder().default_quota(Quota::per_minute(10)).build().unwrap();
    let pacer = patient().jitter(Duration::ZERO).build().unwrap();
    let remaining = || usage_of_call(&pacer).remaining();
    for round in 1..=4 {
        for _ in 0..100 {
            drop(pacer.try_acquire("/call").unwrap());
        }
        assert_eq!(remaining(), 500 - 100 * round);
        for policy in [none(), other(), none(), Policy::default()] {
            pacer.set_policy(policy);
        }
        assert_eq!(remaining(), 500 - 100 * round);
    }
    // It takes 60 s until all units are back, also while the limit is gone.
    pacer.set_policy(other());
    sleep(30 * SECOND).await;
    pacer.set_policy(none());
    pacer.set_policy(Policy::default());
    assert_eq!(remaining(), 350);
}

#[tokio::test(start_paused = true)]
async fn a_pause_and_a_learned_rate_stay_also_while_their_limit_is_gone() {
    let log = Log::new();
    let pacer = patient().build().unwrap();
    let server = mock(&log, |number| match number {
        1 => refusal(&[("retry-after", "100")]),
        number if number % 10 == 0 => refusal(&[]),
        _ => Response::new(String::new()),
    });
    let client = PaceLayer::new(pacer.clone()).layer(distant(server, |_| SECOND));
    let flip = || {
        for _ in 0..2 {
            pacer.set_policy(Policy::builder().build().unwrap());
        }
        pacer.set_policy(Policy::default());
    };
    send(&client, "/call").await.unwrap().unwrap();
    flip();
    let paused = usage_of_call(&pacer).paused();
    assert!((100 * SECOND..101 * SECOND).contains(&paused), "{paused:?}");
    // After the pause, one request is sent as a probe.
    sleep(101 * SECOND).await;
    flip();
    let calls = calls!(client, 50);
    assert_eq!((usage_of_call(&pacer).unanswered(), usage_of_call(&pacer).waiting()), (1, 49));
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let learned = || usage_of_call(&pacer).learned_rate().map(|rate| rate.plateau_interval());
    let before = learned().unwrap();
    flip();
    assert_eq!(learned(), Some(before));
    pacer.set_policy(Policy::builder().build().unwrap());
    sleep(HOUR + 2 * SECOND).await;
    pacer.set_policy(Policy::default());
    assert_eq!(learned(), None);
}

#[tokio::test(start_paused = true)]
async fn refusals_go_on_pausing_for_longer_when_their_endpoint_was_gone() {
    let log = Log::new();
    let pacer = patient().build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(mock(&log, |_| refusal(&[])));
    for _ in 0..16 {
        send(&client, "/call").await.unwrap().unwrap();
        pacer.set_policy(Policy::builder().build().unwrap());
        pacer.set_policy(Policy::default());
    }
    let paused = usage_of_call(&pacer).paused();
    assert!((8 * SECOND..60 * SECOND).contains(&paused), "{paused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_the_server_has_reported_stays_also_while_it_is_gone() {
    let log = Log::new();
    let fields = [
        ("ratelimit-policy", r#""call";q=10;w=60, "calls";q=3;qu="concurrent-requests""#),
        ("ratelimit", r#""call";r=9, "calls";r=2"#),
    ];
    let server = mock(&log, move |_| {
        let mut response = Response::new(String::new());
        for (name, value) in fields {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    });
    for policy in [Policy::bolna(), Policy::bolna().concurrent("call", 5)] {
        let policy = policy.build().unwrap();
        let pacer = patient().policy(policy.clone()).build().unwrap();
        let client = PaceLayer::new(pacer.clone()).layer(server.clone());
        send(&client, "/call").await.unwrap().unwrap();
        let most = || usage_of_call(&pacer).concurrency().map(|it| it.most());
        let before = (usage_of_call(&pacer).remaining(), most());
        assert_eq!(before.1, Some(3));
        assert!(before.0 < 10, "{before:?}");
        pacer.set_policy(Policy::builder().build().unwrap());
        pacer.set_policy(policy.clone());
        assert_eq!((usage_of_call(&pacer).remaining(), most()), before);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_ends_pauses_also_of_limits_that_are_gone() {
    let log = Log::new();
    let pacer = patient().jitter(Duration::ZERO).build().unwrap();
    let client =
        PaceLayer::new(pacer.clone()).layer(mock(&log, |_| refusal(&[("retry-after", "100")])));
    for end_pauses in [Pacer::resume_all, Pacer::forget_all] {
        send(&client, "/call").await.unwrap().unwrap();
        assert!(usage_of_call(&pacer).paused() >= 100 * SECOND);
        pacer.set_policy(Policy::builder().build().unwrap());
        end_pauses(&pacer);
        pacer.set_policy(Policy::default());
        let usage = usage_of_call(&pacer);
        assert_eq!(usage.paused(), Duration::ZERO);
        assert_eq!(usage.remaining(), 499 - u32::try_from(usage.sent() - 1).unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn priorities_deadlines_and_retries_stay() {
    let log = Log::new();
    let pacer = patient().policy(one_call_in(HOUR)).bulk_share(0).build().unwrap();
    let client = PaceLayer::new(pacer.clone()).layer(generous(&log));
    send(&client, "/call?first").await.unwrap().unwrap();
    let with = |target: &str, priority: Priority, wait: Duration| -> Request<String> {
        let mut request = request(target);
        request.extensions_mut().insert(priority);
        request.extensions_mut().insert(MaxWait(wait));
        request
    };
    let mut set = JoinSet::new();
    set.spawn(client.clone().oneshot(with("/call?bulk", Priority::Bulk, 9 * HOUR)));
    set.spawn(client.clone().oneshot(with("/call?soon", Priority::Interactive, 2 * HOUR)));
    set.spawn(client.clone().oneshot(with("/call?late", Priority::Interactive, 9 * HOUR)));
    settle().await;
    pacer.set_policy(one_call_in(3 * HOUR));
    let mut failed = 0;
    while let Some(answer) = set.join_next().await {
        failed += usize::from(answer.unwrap().is_err());
    }
    assert_eq!(
        (failed, log.targets()),
        (0, ["first", "soon", "late", "bulk"].map(|it| format!("/call?{it}")).to_vec())
    );

    send(&client, "/call").await.unwrap().unwrap();
    let soon = tokio::spawn(client.clone().oneshot(with("/call", Priority::Bulk, 4 * HOUR)));
    settle().await;
    pacer.set_policy(one_call_in(5 * HOUR));
    assert!(soon.await.is_ok());
}

#[tokio::test]
async fn a_quota_that_does_not_fit_changes_nothing() {
    let pacer = Pacer::with_policy(Policy::bolna().cost("call", 5).build().unwrap());
    for (limit, quota) in [
        ("calls", Quota::per_minute(10)),
        ("call", Quota::per_minute(0)),
        ("call", Quota::per_minute(10).burst(4)),
        ("call", Quota::concurrent(10)),
    ] {
        let error: PolicyError = pacer.set_quota(limit, quota).unwrap_err();
        assert!(error.to_string().contains(&format!("{limit:?}")), "{error}");
    }
    let quota = Policy::default().quota_of(call());
    assert_eq!((pacer.policy().quota_of(call()), pacer.policy().cost_of(call())), (quota, Some(5)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_between_threads() {
    let quota = || Quota::per_second(20_000).burst(3);
    let one = Policy::builder().default_quota(quota()).build().unwrap();
    let several = Policy::builder()
        .endpoint("a", quota(), ["/0", "/1"])
        .endpoint("b", quota(), ["/2"])
        .default_quota(quota())
        .shared(LimitBuilder::account("both", Quota::concurrent(2)), ["a", "b"])
        .exempt(["/4"])
        .build()
        .unwrap();
    let pacer = patient().policy(one.clone()).jitter(Duration::ZERO).build().unwrap();
    let log = Log::new();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(generous(&log));
    let mut calls = Vec::new();
    for round in 0..60 {
        calls.extend((0..20).map(|number| send(&client, &format!("/{}", number % 5))));
        let policy = if round % 2 == 0 { &several } else { &one };
        pacer.set_policy(policy.clone());
        tokio::task::yield_now().await;
    }
    let count = calls.len();
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(log.len(), count);
    assert!(pacer.usage().iter().all(|it| it.waiting() == 0 && it.unanswered() == 0));
}

/// A policy of this test: the endpoint of each path, or none if it is exempt; the quotas; and
/// whether both endpoints share a limit.
#[derive(Clone, Debug)]
struct Terms {
    paths: [usize; 3],
    quotas: [(u32, u32); 4],
    is_shared: bool,
}

const PATHS: [&str; 3] = ["/x", "/y", "/z"];

const NAMES: [&str; 4] = ["a", "b", "default", "both"];

impl Terms {
    fn quota(&self, index: usize) -> bolna_rate_limit::values::QuotaBuilder {
        let (limit, burst) = self.quotas[index];
        Quota::per(limit, 10 * SECOND).burst(burst)
    }

    fn of(&self, endpoint: usize) -> Vec<usize> {
        PATHS
            .iter()
            .zip(self.paths)
            .enumerate()
            .filter(|(_, (_, it))| *it == endpoint)
            .map(|(n, _)| n)
            .collect()
    }

    fn policy(&self) -> Policy {
        let mut policy = Policy::builder().default_quota(self.quota(2));
        let mut names = Vec::new();
        for (endpoint, name) in NAMES[..2].iter().enumerate() {
            let paths = self.of(endpoint);
            if !paths.is_empty() {
                let paths = paths.into_iter().map(|path| PATHS[path]);
                policy = policy.endpoint(*name, self.quota(endpoint), paths);
                names.push(*name);
            }
        }
        if self.is_shared && !names.is_empty() {
            policy = policy.shared(LimitBuilder::account("both", self.quota(3)), names);
        }
        policy.exempt(self.of(3).into_iter().map(|path| PATHS[path])).build().unwrap()
    }

    /// The limits of requests to that path.
    fn limits(&self, path: usize) -> Vec<usize> {
        match self.paths[path] {
            3 => Vec::new(),
            2 => vec![2],
            endpoint if self.is_shared => vec![endpoint, 3],
            endpoint => vec![endpoint],
        }
    }
}

fn terms() -> impl Strategy<Value = Terms> {
    let quota = (prop::sample::select(vec![2_u32, 5, 20, 100, 1000]), 1..8_u32);
    let paths = prop::array::uniform3(prop::sample::select(vec![0_usize, 0, 1, 1, 2, 3]));
    (paths, prop::array::uniform4(quota), any::<bool>())
        .prop_map(|(paths, quotas, is_shared)| Terms { paths, quotas, is_shared })
}

#[derive(Clone, Debug)]
enum Event {
    Arrives(usize),
    TimePasses(u64),
    Replaced(Terms),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0..3_usize).prop_map(Event::Arrives),
        3 => (0..3000_u64).prop_map(Event::TimePasses),
        1 => terms().prop_map(Event::Replaced),
    ];
    prop::collection::vec(event, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_each_policy_is_kept_in_its_time(first in terms(), events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let log = Log::new();
            let pacer = patient().policy(first.policy()).jitter(Duration::ZERO).build().unwrap();
            let client = PaceLayer::new(pacer.clone()).layer(generous(&log));
            let mut active = vec![(Duration::ZERO, 0, first)];
            let (mut calls, mut arrived) = (Vec::new(), [0; 3]);
            for event in events {
                match event {
                    Event::Arrives(path) => {
                        calls.push(send(&client, &format!("{}?{}", PATHS[path], arrived[path])));
                        arrived[path] += 1;
                        settle().await;
                    }
                    Event::TimePasses(millis) => sleep(Duration::from_millis(millis)).await,
                    Event::Replaced(terms) => {
                        active.push((log.elapsed(), log.len(), terms.clone()));
                        pacer.set_policy(terms.policy());
                        settle().await;
                    }
                }
            }
            for call in calls {
                let answer = timeout(1000 * HOUR, call).await.expect("it hangs").unwrap();
                assert_eq!(answer.unwrap(), StatusCode::OK);
            }
            // Each once and in its order.
            for (path, arrived) in PATHS.iter().zip(arrived) {
                let targets = log.targets().into_iter().filter(|it| it.starts_with(path));
                let expected = (0..arrived).map(|number| format!("{path}?{number}"));
                assert_eq!(targets.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            }
            // In the time of each policy, an independent model of its limits.
            let got = log.got();
            for (index, (_, from, terms)) in active.iter().enumerate() {
                let to = active.get(index + 1).map_or(got.len(), |(_, to, _)| *to);
                let mut full_at: HashMap<usize, u64> = HashMap::new();
                for got in &got[*from..to] {
                    let path = PATHS.iter().position(|path| got.target.starts_with(path)).unwrap();
                    let at = u64::try_from(got.at.as_nanos()).unwrap();
                    for limit in terms.limits(path) {
                        let (most, burst) = terms.quotas[limit];
                        let interval = 10_000_000_000 / u64::from(most);
                        let full_at = full_at.entry(limit).or_default();
                        assert!(
                            full_at.saturating_sub(interval * u64::from(burst - 1)) <= at,
                            "{:?} is too early for {:?} of policy {index}", got, NAMES[limit]
                        );
                        *full_at = at.max(*full_at) + interval;
                    }
                }
            }
            for usage in pacer.usage() {
                assert_eq!((usage.waiting(), usage.unanswered()), (0, 0));
            }
        });
    }
}
