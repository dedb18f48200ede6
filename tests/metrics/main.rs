//! Metrics, read back from real recorders, and the page that Prometheus fetches.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod dashboard;
mod distant;
mod page;

use std::collections::BTreeMap;

use bolna_rate_limit::layer::OnStoreFailure;
use bolna_rate_limit::observe::Metrics;
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::{Breaker, LocalFallback};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Enforcement, Limiter, Policy, Quota};
use http::{Request, Response};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower::{Layer, Service, ServiceExt};

use distant::Distant;

/// Runs `run` with a recorder of its own.
fn recorded<T>(run: impl AsyncFnOnce() -> T) -> (Snapshotter, T) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let output = metrics::with_local_recorder(&recorder, || runtime.block_on(run()));
    (snapshotter, output)
}

/// All counters and gauges by `name{label=value,...}`; of a histogram the number of values.
fn read(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let metric = |(key, _, _, value): (metrics_util::CompositeKey, _, _, DebugValue)| {
        let mut labels: Vec<_> =
            key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        labels.sort();
        #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(gauge) => gauge.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        };
        (
            format!(
                "{}{{{}}}",
                key.key().name().trim_start_matches("bolna_rate_limit_"),
                labels.join(",")
            ),
            value,
        )
    };
    snapshotter.snapshot().into_vec().into_iter().map(metric).collect()
}

fn request(path: &str, account: Option<Account>) -> Request<String> {
    let mut request = Request::get(path).body(String::new()).unwrap();
    if let Some(account) = account {
        request.extensions_mut().insert(account);
    }
    request
}

fn caller() -> Option<Account> {
    Some(Account::user("u-17").in_organization("org-4"))
}

async fn send<S: Service<Request<String>, Response = Response<B>, Error: std::fmt::Debug>, B>(
    service: &mut S,
    path: &str,
    account: Option<Account>,
) -> u16 {
    service.ready().await.unwrap().call(request(path, account)).await.unwrap().status().as_u16()
}

async fn ok(_: Request<String>) -> Result<Response<String>, std::convert::Infallible> {
    Ok(Response::new(String::new()))
}

fn two_calls() -> Policy {
    Policy::bolna().quota("call", Quota::per_hour(2)).build().unwrap()
}

#[test]
fn every_request_is_counted_by_endpoint_outcome_and_mode() {
    let (snapshotter, ()) = recorded(async || {
        let layer = BolnaRateLimitLayer::with_policy(two_calls());
        layer.limiter().observe(Metrics::new());
        let mut service = layer.layer(tower::service_fn(ok));
        for _ in 0..5 {
            send(&mut service, "/call", caller()).await;
        }
        send(&mut service, "/anything", caller()).await;
        send(&mut service, "/call", None).await;
        layer.limiter().set_enforcement(Enforcement::SHADOW);
        for _ in 0..4 {
            assert_eq!(send(&mut service, "/call", caller()).await, 200);
        }
        send(&mut service, "/call", None).await;
    });
    let read = read(&snapshotter);
    let decisions = |endpoint, outcome, mode| {
        read.get(&format!("decisions_total{{endpoint={endpoint},mode={mode},outcome={outcome}}}"))
            .copied()
    };
    assert_eq!(decisions("call", "allowed", "enforced"), Some(2.0));
    assert_eq!(decisions("call", "limited", "enforced"), Some(3.0));
    assert_eq!(decisions("default", "allowed", "enforced"), Some(1.0));
    assert_eq!(decisions("(none)", "unidentified", "enforced"), Some(2.0));
    assert_eq!(decisions("call", "limited", "shadow"), Some(4.0));
    // Refusals begin with 0, so that the first is seen as an increase.
    assert_eq!(decisions("default", "limited", "enforced"), Some(0.0));
    assert_eq!(read.keys().filter(|key| key.starts_with("decisions_total")).count(), 6);
    assert_eq!(read.get("events_total{event=enforcement_changed}"), Some(&1.0));
}

#[test]
fn every_limit_is_counted_by_what_it_says_whether_it_is_the_only_one_or_not() {
    let (snapshotter, ()) = recorded(async || {
        let policy = Policy::bolna()
            .quota("call", Quota::per_hour(3))
            .default_quota(Quota::per_hour(1))
            .also("call", LimitBuilder::user("call-user", Quota::per_hour(2)))
            .build()
            .unwrap();
        let layer = BolnaRateLimitLayer::with_policy(policy);
        layer.limiter().observe(Metrics::new());
        let mut service = layer.layer(tower::service_fn(ok));
        for status in [200, 200, 429] {
            assert_eq!(send(&mut service, "/call", caller()).await, status);
        }
        for status in [200, 429, 429] {
            assert_eq!(send(&mut service, "/anything", caller()).await, status);
        }
    });
    let read = read(&snapshotter);
    let limits = |limit, scope| {
        ["allowed", "limited"].map(|outcome| {
            let labels = format!("limit={limit},mode=enforced,outcome={outcome},scope={scope}");
            read.get(&format!("limit_decisions_total{{{labels}}}")).copied()
        })
    };
    assert_eq!(limits("call", "account"), [Some(3.0), Some(0.0)]);
    assert_eq!(limits("call-user", "user"), [Some(2.0), Some(1.0)]);
    assert_eq!(limits("default", "account"), [Some(1.0), Some(2.0)]);
}

#[test]
fn refusals_by_address_begin_with_0_too() {
    let (snapshotter, ()) = recorded(async || {
        let policy = Policy::bolna().unidentified_quota(Quota::per_hour(2)).build().unwrap();
        let layer = BolnaRateLimitLayer::with_policy(policy);
        layer.limiter().observe(Metrics::new());
        assert_eq!(send(&mut layer.layer(tower::service_fn(ok)), "/call", None).await, 401);
    });
    let read = read(&snapshotter);
    let none = "decisions_total{endpoint=(none),mode=enforced,outcome=limited}";
    assert_eq!(read.get(none), Some(&0.0), "{read:?}");
}

#[test]
fn what_a_candidate_says_is_counted_beside_what_is_enforced() {
    let (snapshotter, ()) = recorded(async || {
        let limiter = Limiter::new(two_calls());
        limiter
            .set_candidate(Policy::bolna().quota("call", Quota::per_hour(1)).build().unwrap())
            .unwrap();
        limiter.observe(Metrics::new());
        let layer = BolnaRateLimitLayer::with_limiter(limiter);
        let mut service = layer.layer(tower::service_fn(ok));
        for _ in 0..5 {
            send(&mut service, "/call", caller()).await;
        }
    });
    let read = read(&snapshotter);
    let candidate = |outcome, enforced| {
        read.get(&format!(
            "candidate_decisions_total{{endpoint=call,enforced={enforced},outcome={outcome}}}"
        ))
        .copied()
    };
    assert_eq!(candidate("allowed", "allowed"), Some(1.0));
    assert_eq!(candidate("limited", "allowed"), Some(1.0));
    assert_eq!(candidate("limited", "limited"), Some(3.0));
}

#[test]
fn a_store_that_fails_is_counted_whether_something_else_decides_or_not() {
    let (snapshotter, ()) = recorded(async || {
        let distant = Distant::new();
        let metrics = Metrics::new();
        let store = LocalFallback::new(Breaker::new(distant.clone())).max_owed(10);
        let limiter = Limiter::with_store(two_calls(), store).unwrap();
        limiter.observe(metrics.clone());
        let layer = BolnaRateLimitLayer::with_limiter(limiter);
        let mut service = layer.layer(tower::service_fn(ok));
        assert_eq!(send(&mut service, "/", caller()).await, 200);
        metrics.refresh(&layer.limiter().report());
        distant.fail(true);
        // Five failures open the breaker. The store is not called for the other two requests.
        for _ in 0..7 {
            assert_eq!(send(&mut service, "/", caller()).await, 200);
        }
        metrics.refresh(&layer.limiter().report());

        let limiter = Limiter::with_store(two_calls(), distant).unwrap();
        limiter.observe(Metrics::labelled("bare"));
        let layer =
            BolnaRateLimitLayer::with_limiter(limiter).on_store_failure(OnStoreFailure::Admit);
        assert_eq!(send(&mut layer.layer(tower::service_fn(ok)), "/", caller()).await, 200);
    });
    let read = read(&snapshotter);
    assert_eq!(read.get("store_failures_total{kind=other}"), Some(&5.0));
    assert_eq!(read.get("store_failures_total{kind=open}"), Some(&2.0));
    assert_eq!(read.get("fallbacks_total{}"), Some(&7.0));
    assert_eq!((read.get("breakers{}"), read.get("open_breakers{}")), (Some(&1.0), Some(&1.0)));
    assert_eq!(read.get("buckets{}"), Some(&1.0));
    assert_eq!(read.get("owed_buckets{}"), Some(&1.0));
    assert_eq!(read.get("late_charges_total{}"), Some(&0.0));
    assert_eq!(read.get("waiting_corrections{}"), Some(&0.0));
    assert_eq!(read.get("lost_corrections_total{}"), Some(&0.0));
    // The two requests for which the store was not called did not wait.
    assert_eq!(read.get("store_wait_seconds{}"), Some(&6.0));
    assert_eq!(read.get("store_waits_total{le=+Inf}"), Some(&6.0));
    assert_eq!(read.get("events_total{event=store_lost}"), Some(&1.0));
    let bare = "decisions_total{endpoint=default,limiter=bare,mode=enforced,outcome=store_failed}";
    assert_eq!(read.get(bare), Some(&1.0));
    assert_eq!(read.get("store_failures_total{kind=other,limiter=bare}"), Some(&1.0));
}

#[test]
fn a_path_of_several_endpoints_is_counted_once_and_each_limit_of_them() {
    let (snapshotter, ()) = recorded(async || {
        let layer = BolnaRateLimitLayer::with_policy(two_calls());
        layer.limiter().observe(Metrics::new());
        layer.limiter().set_candidate(Policy::default()).unwrap();
        let mut service = layer.layer(tower::service_fn(ok));
        for status in [200, 200, 429] {
            assert_eq!(send(&mut service, "/%63all", caller()).await, status);
        }
        // 5 endpoints of 4 limits have more than fit into one charge.
        let policy = ["2", "3", "4", "5", "x"].iter().fold(Policy::builder(), |policy, name| {
            let depth = name.parse().unwrap_or(0);
            let template = (1..=depth).map(|at| format!("/{{s{at}}}")).collect::<String>();
            let path = if depth == 0 { "/p/q/s".to_owned() } else { template };
            let policy = policy.endpoint(format!("depth-{name}"), Quota::per_minute(9), [path]);
            (0..3).fold(policy, |policy, at| {
                let limit = LimitBuilder::account(format!("{name}-{at}"), Quota::per_minute(9));
                policy.also(format!("depth-{name}"), limit)
            })
        });
        layer.limiter().set_policy(policy.build().unwrap()).unwrap();
        assert_eq!(send(&mut service, "/p/q%2Fr/../s%00t", caller()).await, 400);
    });
    let read = read(&snapshotter);
    let of = |name: &str| -> Vec<_> {
        let is_of = |(key, value): (&String, &f64)| {
            key.strip_prefix(name).map(|labels| (labels.to_owned(), *value))
        };
        read.iter().filter_map(is_of).collect()
    };
    let labels = |text: &str, count: f64| (format!("{{{text}}}"), count);
    assert_eq!(
        of("decisions_total"),
        [
            labels("endpoint=default,mode=enforced,outcome=allowed", 2.0),
            labels("endpoint=default,mode=enforced,outcome=limited", 1.0),
            labels("endpoint=depth-4,mode=enforced,outcome=too_ambiguous", 1.0),
        ]
    );
    assert_eq!(
        of("limit_decisions_total"),
        [
            labels("limit=call,mode=enforced,outcome=allowed,scope=account", 2.0),
            labels("limit=call,mode=enforced,outcome=limited,scope=account", 1.0),
            labels("limit=default,mode=enforced,outcome=allowed,scope=account", 3.0),
            labels("limit=default,mode=enforced,outcome=limited,scope=account", 0.0),
        ]
    );
    assert_eq!(
        of("candidate_decisions_total"),
        [
            labels("endpoint=default,enforced=allowed,outcome=allowed", 2.0),
            labels("endpoint=default,enforced=limited,outcome=allowed", 1.0),
        ]
    );
}

#[test]
fn no_label_has_an_id_in_it() {
    let (snapshotter, ()) = recorded(async || {
        let metrics = Metrics::new();
        let layer = BolnaRateLimitLayer::with_policy(two_calls());
        layer.limiter().observe(metrics.clone());
        let mut service = layer.layer(tower::service_fn(ok));
        for customer in 0..100 {
            let account = Account::user(format!("u-{customer}"))
                .in_organization(format!("customer-{customer}"));
            for _ in 0..3 {
                send(&mut service, "/call", Some(account.clone())).await;
            }
        }
        metrics.refresh(&layer.limiter().report());
    });
    let read = read(&snapshotter);
    assert!(read.keys().all(|key| !key.contains("customer") && !key.contains("u-")), "{read:?}");
    assert_eq!(read.keys().filter(|key| key.starts_with("decisions_total")).count(), 2);
}

#[test]
fn requests_in_flight_and_what_was_corrected_afterwards_are_counted() {
    let (snapshotter, ()) = recorded(async || {
        let limiter = Limiter::new(Policy::default());
        let metrics = Metrics::new();
        let mut report = limiter.report();
        (report.in_flight, report.refunds) = (7, 5);
        (report.settlements, report.failed_corrections) = (3, 2);
        metrics.refresh(&report);
        // Requests end. What has been counted stays.
        report.in_flight = 4;
        report.refunds = 6;
        metrics.refresh(&report);
    });
    let read = read(&snapshotter);
    assert_eq!(read["in_flight{}"], 4.0);
    assert_eq!(read["refunds_total{}"], 6.0);
    assert_eq!((read["settlements_total{}"], read["failed_corrections_total{}"]), (3.0, 2.0));
}

#[test]
fn what_a_report_counts_is_counted_once_also_when_an_older_report_comes_later() {
    let distant = Distant::new();
    // If two threads refresh, the thread with the older report may count it second.
    distant.sweep(vec![30, 10, 20]);
    let (snapshotter, ()) = recorded(async || {
        let limiter = Limiter::with_store(Policy::default(), distant).unwrap();
        let metrics = Metrics::new();
        (0..3).for_each(|_| metrics.refresh(&limiter.report()));
    });
    assert_eq!(read(&snapshotter)["sweeps_total{}"], 30.0);
}
