//! Every panel of the dashboard finds its metrics on the page that Prometheus fetches.

use bolna_rate_limit::observe::Metrics;
use bolna_rate_limit::policy::LimitBuilder;
use bolna_rate_limit::store::{AnyStore, Breaker, DenialCache, LocalFallback, MemoryStore};
use bolna_rate_limit::{BolnaRateLimitLayer, Enforcement, Limiter, Policy, Quota};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::Value;
use tokio::net::TcpListener;
use tower::Layer;

use crate::distant::Distant;
use crate::page::{Page, Query};
use crate::{caller, ok, send};

#[allow(dead_code, reason = "an example has more in it than a test calls")]
#[path = "../../examples/metrics.rs"]
mod example;

const DASHBOARD: &str = include_str!("../../examples/dashboard.json");

/// What the dashboard reads, each with where it does.
fn queries() -> Vec<(String, Query)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut queries = Vec::new();
    let mut add = |place: &Value, expression: &Value, legend: &Value| {
        let [place, expression, legend] =
            [place, expression, legend].map(|text| text.as_str().unwrap_or_default());
        queries.push((format!("{place}: {expression}"), Query::parse(expression, legend)));
    };
    let is_row = |panel: &&Value| panel["type"] == "row";
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| !is_row(panel)) {
        for target in panel["targets"].as_array().unwrap() {
            add(&panel["title"], &target["expr"], &target["legendFormat"]);
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        add(&annotation["name"], &annotation["expr"], &annotation["titleFormat"]);
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            add(&variable["name"], &variable["query"]["query"], &Value::Null);
        }
    }
    queries
}

/// The queries to which that page has no answer.
fn unanswered(page: &str) -> Vec<String> {
    let page = Page::parse(page);
    let queries = queries();
    assert!(queries.len() > 25, "{queries:?}");
    assert!(!queries.iter().any(|(_, query)| query.is_empty()), "{queries:?}");
    let unanswered = queries.into_iter().filter(|(_, query)| !page.answers(query));
    unanswered.map(|(text, _)| text).collect()
}

/// A limiter that has all that a panel shows: a store that can fail, an endpoint with two limits,
/// and a candidate that refuses more calls and fewer requests to agents.
fn limiter(distant: &Distant) -> Limiter<AnyStore> {
    let local = MemoryStore::new().max_buckets(1000);
    let store = DenialCache::new(LocalFallback::with_local(Breaker::new(distant.clone()), local));
    let [active, candidate] = [(2, 1), (1, 500)].map(|(calls, agents)| {
        let quotas = Policy::bolna().quota("call", Quota::per_hour(calls));
        let of_user = LimitBuilder::user("call-user", Quota::per_hour(calls));
        quotas.quota("agent", Quota::per_hour(agents)).also("call", of_user).build().unwrap()
    });
    let limiter = Limiter::with_store(active, AnyStore::from(store)).unwrap();
    limiter.set_candidate(candidate).unwrap();
    limiter
}

/// The page of a process with that exporter, after requests of every kind.
fn page(exporter: PrometheusBuilder) -> String {
    let recorder = exporter.build_recorder();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let requests = async {
        let distant = Distant::new();
        let limiter = limiter(&distant);
        let metrics = Metrics::new();
        limiter.observe(metrics.clone());
        let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
        let mut service = layer.layer(tower::service_fn(ok));
        for path in ["/call", "/call", "/call", "/v2/agent/17", "/v2/agent/17"] {
            send(&mut service, path, caller()).await;
        }
        limiter.set_enforcement(Enforcement::SHADOW);
        send(&mut service, "/call", caller()).await;
        distant.fail(true);
        send(&mut service, "/user/me", caller()).await;
        metrics.refresh(&limiter.report());
    };
    metrics::with_local_recorder(&recorder, || runtime.block_on(requests));
    recorder.handle().render()
}

#[test]
fn every_panel_has_data_with_the_exporter_as_it_comes() {
    let page = page(PrometheusBuilder::new());
    assert_eq!(unanswered(&page), [""; 0], "{page}");
}

#[test]
fn every_panel_has_data_with_an_exporter_that_has_buckets() {
    let page = page(PrometheusBuilder::new().set_buckets(&[0.001, 0.01, 0.1]).unwrap());
    assert_eq!(unanswered(&page), [""; 0], "{page}");
}

#[test]
fn every_panel_has_data_with_an_exporter_that_adds_suffixes_to_names() {
    let page = page(PrometheusBuilder::new().with_recommended_naming(true));
    assert_eq!(unanswered(&page), [""; 0], "{page}");
}

#[tokio::test]
async fn the_example_serves_every_metric_that_the_dashboard_reads() {
    let distant = Distant::new();
    let limiter = limiter(&distant);
    let app = example::app(limiter.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let get = async |path: &str| {
        let request = Request::get(format!("http://{address}{path}"))
            .header("authorization", "Bearer ana@acme");
        let response = client.request(request.body(Empty::new()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        (
            status,
            String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec())
                .unwrap(),
        )
    };
    // GET /call has no route, and is counted all the same.
    let calls = [get("/call").await.0, get("/call").await.0, get("/call").await.0];
    assert_eq!(calls, [405, 405, 429]);
    assert_eq!([get("/v2/agent/17").await.0, get("/v2/agent/17").await.0], [200, 429]);
    limiter.set_enforcement(Enforcement::SHADOW);
    assert_eq!(get("/call").await.0, 405);
    distant.fail(true);
    assert_eq!(get("/user/me").await.0, 200);

    let (status, page) = get("/metrics").await;
    assert_eq!(status, 200);
    assert_eq!(unanswered(&page), [""; 0], "{page}");
    let line = "bolna_rate_limit_decisions_total{endpoint=\"call\",outcome=\"limited\",\
                mode=\"enforced\"} 1";
    assert!(page.contains(line), "{page}");
    assert!(!page.contains("acme") && !page.contains("ana"), "{page}");
    server.abort();
}
