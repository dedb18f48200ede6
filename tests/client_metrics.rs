//! A client's metrics, read back through a real recorder.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, Metrics, Pacer, Priority};
use bolna_rate_limit::{Policy, Quota};
use http::{Request, Response, StatusCode};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt, service_fn};

/// Runs something with a recorder of its own, in virtual time.
fn recorded(run: impl AsyncFnOnce(&Snapshotter)) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(run(&snapshotter)));
}

/// The metrics of one endpoint in the recorder, by name, with the priority if they have one.
/// Counters count from the previous call.
fn read(snapshotter: &Snapshotter, labels: &[(&str, &str)]) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    for (key, _, description, value) in snapshotter.snapshot().into_vec() {
        assert!(description.is_some(), "{key:?} is not described");
        let mut has =
            key.key().labels().map(|label| (label.key(), label.value())).collect::<Vec<_>>();
        let priority =
            has.iter().position(|(name, _)| *name == "priority").map(|at| has.remove(at));
        if has != labels {
            continue;
        }
        #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(gauge) => gauge.into_inner(),
            DebugValue::Histogram(_) => panic!("a client has no histograms"),
        };
        let name = key.key().name().trim_start_matches("bolna_rate_limit_client_");
        let of = priority.map(|(_, priority)| format!("_{priority}")).unwrap_or_default();
        metrics.insert(format!("{name}{of}"), value);
    }
    metrics
}

#[track_caller]
fn assert_metrics(snapshotter: &Snapshotter, labels: &[(&str, &str)], expected: [f64; 13]) {
    let names = [
        "remaining",
        "waiting_interactive",
        "waiting_bulk",
        "unanswered",
        "wait_seconds_interactive",
        "wait_seconds_bulk",
        "paused_seconds",
        "sent_total",
        "retried_total",
        "refused_total",
        "unsent_total",
        "handed_back_total",
        "pauses_total",
    ];
    let expected: BTreeMap<_, _> = names.map(ToOwned::to_owned).into_iter().zip(expected).collect();
    assert_eq!(read(snapshotter, labels), expected);
}

/// The metrics of an endpoint that does nothing now, in the order of `assert_metrics`.
const fn at_rest(remaining: f64, sent: f64, retried: f64, refused: f64) -> [f64; 13] {
    [remaining, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, sent, retried, refused, 0.0, 0.0, 0.0]
}

/// One call in ten seconds, and two may wait.
fn pacer() -> Pacer {
    let policy =
        Policy::bolna().quota("call", Quota::per(1, Duration::from_secs(10))).build().unwrap();
    Pacer::builder().policy(policy).max_waiting(2).build().unwrap()
}

#[test]
fn they_say_what_usage_says() {
    recorded(async |snapshotter| {
        let pacer = pacer();
        let metrics = Metrics::new(pacer.clone());
        metrics.refresh();
        let call = [("endpoint", "call")];
        assert_metrics(snapshotter, &call, at_rest(1.0, 0.0, 0.0, 0.0));
        // 500 ms of the burst are held back. The recorder forgets values that have been read.
        metrics.refresh();
        let agent = [("endpoint", "agent")];
        assert_metrics(snapshotter, &agent, at_rest(495.0, 0.0, 0.0, 0.0));

        // Answers after two seconds, and refuses the second of all requests.
        let calls = Arc::new(AtomicUsize::new(0));
        let server = service_fn(move |_: Request<String>| {
            let status = match calls.fetch_add(1, Ordering::Relaxed) {
                1 => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::OK,
            };
            async move {
                sleep(Duration::from_secs(2)).await;
                Ok::<_, Infallible>(
                    Response::builder()
                        .status(status)
                        .header("retry-after-ms", "30000")
                        .body(String::new())
                        .unwrap(),
                )
            }
        });
        let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(server);
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                tokio::spawn(
                    client.clone().oneshot(Request::post("/call").body(String::new()).unwrap()),
                )
            })
            .collect();
        sleep(Duration::from_secs(1)).await;
        metrics.refresh();
        assert_metrics(
            snapshotter,
            &call,
            [0.0, 2.0, 0.0, 1.0, 29.0, 29.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0],
        );

        // The second is sent at 10 s and refused at 12 s. The pause lasts until 42 s and up to a
        // second more.
        sleep(Duration::from_secs(12)).await;
        metrics.refresh();
        let mut paused = read(snapshotter, &call);
        let (seconds, wait) = (
            paused.remove("paused_seconds").unwrap(),
            paused.remove("wait_seconds_interactive").unwrap(),
        );
        assert!((29.0..=30.1).contains(&seconds), "{seconds}");
        assert!((39.0..=40.1).contains(&wait), "{wait}");
        let expected = [
            ("unanswered", 0.0),
            ("refused_total", 1.0),
            ("remaining", 0.0),
            ("retried_total", 0.0),
            ("sent_total", 1.0),
            ("unsent_total", 0.0),
            ("waiting_interactive", 1.0),
            ("waiting_bulk", 0.0),
            ("handed_back_total", 0.0),
            ("pauses_total", 1.0),
        ];
        assert!((39.0..=40.1).contains(&paused.remove("wait_seconds_bulk").unwrap()));
        assert_eq!(paused, expected.map(|(name, value)| (name.to_owned(), value)).into());

        for task in tasks {
            let _ = task.await.unwrap();
        }
        sleep(Duration::from_secs(60)).await;
        metrics.refresh();
        assert_metrics(snapshotter, &call, at_rest(1.0, 2.0, 1.0, 0.0));
    });
}

#[test]
fn clients_have_names() {
    recorded(async |snapshotter| {
        let pacer = pacer();
        let (one, another) =
            (Metrics::labelled("calls", pacer.clone()), Metrics::labelled("reports", Pacer::new()));
        BolnaClientLayer::with_pacer(pacer.clone())
            .layer(service_fn(async |_: Request<String>| {
                Ok::<_, Infallible>(Response::new(String::new()))
            }))
            .oneshot(Request::post("/call").body(String::new()).unwrap())
            .await
            .unwrap();
        one.refresh();
        another.refresh();
        let read = |client| read(snapshotter, &[("client", client), ("endpoint", "call")]);
        assert_eq!(read("calls")["sent_total"], 1.0);
        one.refresh();
        another.refresh();
        assert_eq!((read("reports")["sent_total"], read("reports").len()), (0.0, 13));
    });
}

#[test]
fn a_limit_of_requests_in_flight_has_metrics_of_its_own() {
    recorded(async |snapshotter| {
        let policy = Policy::bolna().concurrent("call", 2).build().unwrap();
        let pacer = Pacer::builder().policy(policy).build().unwrap();
        let metrics = Metrics::new(pacer.clone());
        let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(service_fn(
            async |_: Request<String>| Ok::<_, Infallible>(Response::new(String::new())),
        ));
        let send = || {
            let request = Request::post("/call").body(String::new()).unwrap();
            tokio::spawn(client.clone().oneshot(request))
        };
        let running = [pacer.occupy("/call"), pacer.occupy("/call")];
        let waiting = [send(), send(), send()];
        sleep(Duration::from_secs(1)).await;
        metrics.refresh();
        let concurrent = |endpoint| -> Vec<f64> {
            let all = read(snapshotter, &[("endpoint", endpoint)]).into_iter();
            all.filter(|(name, _)| name.starts_with("concurrent")).map(|(_, it)| it).collect()
        };
        assert_eq!(concurrent("call"), [2.0, 2.0, 3.0]);
        metrics.refresh();
        assert!(concurrent("agent").is_empty(), "it has no such limit");
        drop(running);
        for call in waiting {
            drop(call.await.unwrap().unwrap());
        }
        metrics.refresh();
        assert_eq!(concurrent("call"), [0.0, 2.0, 0.0]);
    });
}

#[test]
fn each_priority_has_its_queue() {
    recorded(async |snapshotter| {
        let pacer = pacer();
        let metrics = Metrics::new(pacer.clone());
        let client =
            BolnaClientLayer::with_pacer(pacer).layer(service_fn(async |_: Request<String>| {
                Ok::<_, Infallible>(Response::new(String::new()))
            }));
        let calls: Vec<_> = [Priority::Interactive, Priority::Interactive, Priority::Bulk]
            .into_iter()
            .map(|priority| {
                let mut request = Request::post("/call").body(String::new()).unwrap();
                request.extensions_mut().insert(priority);
                tokio::spawn(client.clone().oneshot(request))
            })
            .collect();
        sleep(Duration::from_secs(1)).await;
        metrics.refresh();
        let call = read(snapshotter, &[("endpoint", "call")]);
        assert_eq!((call["waiting_interactive"], call["waiting_bulk"]), (1.0, 1.0));
        assert_eq!((call["wait_seconds_interactive"], call["wait_seconds_bulk"]), (19.0, 29.0));
        for call in calls {
            call.await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_learned_rate_is_there_until_it_is_forgotten() {
    recorded(async |snapshotter| {
        // The server admits one request a second, and the policy ten.
        let policy = Policy::bolna().quota("call", Quota::per_second(10)).build().unwrap();
        let pacer = Pacer::builder().policy(policy).build().unwrap();
        let metrics = Metrics::new(pacer.clone());
        let next = Arc::new(Mutex::new(Instant::now()));
        let server = service_fn(move |_: Request<String>| {
            let mut next = next.lock().unwrap();
            let is_refused = *next > Instant::now();
            if !is_refused {
                *next = Instant::now() + Duration::from_secs(1);
            }
            let status = if is_refused { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
            let response = Response::builder().status(status).body(String::new()).unwrap();
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let client = BolnaClientLayer::with_pacer(pacer).layer(server);
        let call = async || {
            metrics.refresh();
            read(snapshotter, &[("endpoint", "call")])
        };
        assert!(!call().await.contains_key("learned_rate"));
        let calls: Vec<_> = (0..60)
            .map(|_| {
                let request = Request::post("/call").body(String::new()).unwrap();
                tokio::spawn(client.clone().oneshot(request))
            })
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        let learned = call().await;
        let rate = learned["learned_rate"];
        assert!((0.7..1.5).contains(&rate), "{rate}");
        assert!(learned["pauses_total"] >= 1.0, "{learned:?}");
        assert_eq!(learned["handed_back_total"], 0.0);
        sleep(Duration::from_secs(3601)).await;
        assert_eq!(call().await["learned_rate"], f64::INFINITY);
    });
}

#[test]
fn a_limit_that_the_server_no_longer_reports_becomes_infinite() {
    recorded(async |snapshotter| {
        let pacer = Pacer::new();
        let metrics = Metrics::new(pacer.clone());
        let calls = Arc::new(AtomicUsize::new(0));
        let server = service_fn(move |_: Request<String>| {
            let mut response = Response::builder();
            if calls.fetch_add(1, Ordering::Relaxed) == 0 {
                response = response
                    .header("ratelimit-policy", "\"lines\";q=4;qu=\"concurrent-requests\"")
                    .header("ratelimit", "\"lines\";r=3");
            }
            std::future::ready(Ok::<_, Infallible>(response.body(String::new()).unwrap()))
        });
        let client = BolnaClientLayer::with_pacer(pacer).layer(server);
        let limit = async || {
            let request = Request::post("/call").body(String::new()).unwrap();
            drop(client.clone().oneshot(request).await.unwrap());
            metrics.refresh();
            read(snapshotter, &[("endpoint", "call")])["concurrent_limit"]
        };
        assert_eq!(limit().await, 4.0);
        sleep(Duration::from_secs(3601)).await;
        assert_eq!(limit().await, f64::INFINITY);
        metrics.refresh();
        // The recorder forgets values that have been read: it was not set again.
        assert_eq!(read(snapshotter, &[("endpoint", "call")])["concurrent_limit"], 0.0);
    });
}

#[test]
fn what_an_endpoint_that_is_gone_has_counted_is_reported_once() {
    recorded(async |snapshotter| {
        let (one, none) = (Policy::default(), Policy::builder().build().unwrap());
        let pacer = Pacer::with_policy(one.clone());
        let metrics = Metrics::new(pacer.clone());
        let server = service_fn(async |_: Request<String>| {
            sleep(Duration::from_secs(1)).await;
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(server);
        let call = || client.clone().oneshot(Request::post("/call").body(String::new()).unwrap());
        metrics.refresh();
        let sent = || {
            metrics.refresh();
            read(snapshotter, &[("endpoint", "call")])["sent_total"]
        };
        assert_eq!(sent(), 0.0);
        call().await.unwrap();
        // It leaves the policy before the next refresh, with a request in flight.
        let running = tokio::spawn(call());
        tokio::task::yield_now().await;
        pacer.set_policy(none.clone());
        assert_eq!(sent(), 2.0);
        running.await.unwrap().unwrap();
        pacer.set_policy(none);
        assert_eq!(sent(), 0.0);
        pacer.set_policy(one);
        assert_eq!(sent(), 0.0);
        call().await.unwrap();
        assert_eq!(sent(), 1.0);
    });
}

#[test]
fn an_endpoint_that_is_gone_has_no_limit_and_no_rate_any_more() {
    recorded(async |snapshotter| {
        let policy = || Policy::bolna().quota("call", Quota::per_second(10));
        let limited = || policy().concurrent("call", 2).build().unwrap();
        let pacer = Pacer::builder().policy(limited()).build().unwrap();
        let metrics = Metrics::new(pacer.clone());
        let calls = Arc::new(AtomicUsize::new(0));
        let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(service_fn(
            move |_: Request<String>| {
                let is_refused = calls.fetch_add(1, Ordering::Relaxed) % 4 == 3;
                let status =
                    if is_refused { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
                let response = Response::builder().status(status).body(String::new()).unwrap();
                std::future::ready(Ok::<_, Infallible>(response))
            },
        ));
        for _ in 0..10 {
            let request = Request::post("/call").body(String::new()).unwrap();
            drop(client.clone().oneshot(request).await.unwrap());
        }
        let running = [pacer.occupy("/call"), pacer.occupy("/call")];
        let request = Request::post("/call").body(String::new()).unwrap();
        let waiting = tokio::spawn(client.oneshot(request));
        sleep(Duration::from_secs(10)).await;
        metrics.refresh();
        pacer.set_policy(Policy::builder().default_quota(Quota::per_minute(1000)).build().unwrap());
        metrics.refresh();
        // What was set last counts.
        let call = read(snapshotter, &[("endpoint", "call")]);
        for (name, expected) in [
            ("concurrent", 0.0),
            ("concurrent_limit", f64::INFINITY),
            ("concurrent_waiting", 0.0),
            ("learned_rate", f64::INFINITY),
        ] {
            assert_eq!(call[name], expected, "{name}");
        }
        metrics.refresh();
        // The recorder forgets values that have been read: it was not set again.
        assert_eq!(read(snapshotter, &[("endpoint", "call")])["concurrent_limit"], 0.0);
        waiting.await.unwrap().unwrap();
        drop(running);

        pacer.set_policy(limited());
        metrics.refresh();
        assert_eq!(read(snapshotter, &[("endpoint", "call")])["concurrent_limit"], 2.0);
    });
}
