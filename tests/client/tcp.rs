//! The client against this crate's own server layer, over real connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request as Incoming;
use axum::middleware::{Next, from_fn, map_request};
use axum::routing::any;
use axum::serve::ListenerExt;
use bolna_rate_limit::client::{BolnaClient, BolnaClientLayer, Pacer, RetryPolicy};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy, Quota};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, ServiceBuilder, ServiceExt};

use crate::support::{Log, assert_at, limiter, usage_of_call};

const HOUR: Duration = Duration::from_secs(3600);

type Http = Client<HttpConnector, Empty<Bytes>>;

/// A server on a port of its own, which ends with the test.
struct Server {
    address: SocketAddr,
    log: Log,
    _task: JoinSet<()>,
}

impl Server {
    /// A server with Bolna's limits, and a path that is exempt.
    async fn start() -> Self {
        Self::start_with(policy()).await
    }

    async fn start_with(policy: Policy) -> Self {
        let log = Log::new();
        let keeps_log = log.clone();
        let app = Router::new()
            .fallback(any(async || "done"))
            .layer(BolnaRateLimitLayer::with_limiter(limiter(policy)))
            .layer(map_request(async |mut request: Incoming| {
                request.extensions_mut().insert(Account::user("u-17"));
                request
            }))
            .layer(from_fn(move |request: Incoming, next: Next| {
                let log = keeps_log.clone();
                async move {
                    let target = request.uri().path_and_query().unwrap().to_string();
                    let response = next.run(request).await;
                    log.add(target, response.status());
                    response
                }
            }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Data that the kernel holds back makes the runtime look idle, and virtual time would pass.
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        let serve = async { axum::serve(listener, app).await.unwrap() };
        Self { address, log, _task: JoinSet::from_iter([serve]) }
    }

    fn request(&self, target: &str) -> Request<Empty<Bytes>> {
        Request::post(format!("http://{}{target}", self.address)).body(Empty::new()).unwrap()
    }

    /// Sends that many requests for the path at once; all of them have to be admitted.
    fn burst(&self, client: &BolnaClient<Http>, path: &str, requests: usize) -> JoinSet<()> {
        let send = |number| {
            let (client, request) = (client.clone(), self.request(&format!("{path}?{number}")));
            async move { assert_eq!(client.oneshot(request).await.unwrap().status(), StatusCode::OK) }
        };
        (0..requests).map(send).collect()
    }
}

fn policy() -> Policy {
    Policy::bolna().exempt(["/healthz"]).build().unwrap()
}

/// With HTTP/2, many requests share one connection.
fn http(http2: bool) -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).http2_only(http2).build(connector)
}

fn client() -> BolnaClient<Http> {
    BolnaClientLayer::with_pacer(Pacer::builder().policy(policy()).build().unwrap())
        .layer(http(true))
}

/// That many callers do a job of 1,500 calls together.
async fn a_job(callers: usize, http2: bool) {
    const CALLS: usize = 1500;
    let server = Server::start().await;
    let client = BolnaClientLayer::new().layer(http(http2));
    let next = Arc::new(AtomicUsize::new(0));
    let mut set = JoinSet::new();
    for _ in 0..callers {
        let (client, next) = (client.clone(), Arc::clone(&next));
        let target = format!("http://{}/call", server.address);
        set.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= CALLS {
                    break;
                }
                let request =
                    Request::post(format!("{target}?{number}")).body(Empty::new()).unwrap();
                assert_eq!(client.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
            }
        });
    }
    timeout(HOUR, set.join_all()).await.unwrap();

    // 500 at once, and then one every 120 ms.
    let (least, took) = (Duration::from_secs(120), server.log.elapsed());
    assert!(took >= least && took <= least.mul_f64(1.02), "{callers} callers took {took:?}");
    assert_eq!(server.log.refused(), 0);
    let mut targets = server.log.targets();
    targets.sort_unstable();
    let mut calls: Vec<_> = (0..CALLS).map(|number| format!("/call?{number}")).collect();
    calls.sort_unstable();
    assert_eq!(targets, calls, "each exactly once");
}

#[tokio::test(start_paused = true)]
async fn one_caller_takes_the_least_time_without_a_refusal() {
    a_job(1, false).await;
}

#[tokio::test(start_paused = true)]
async fn ten_callers_take_the_least_time_without_a_refusal() {
    a_job(10, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_for_each_call_takes_the_least_time_without_a_refusal() {
    a_job(1500, true).await;
}

#[tokio::test(start_paused = true)]
async fn evenly_they_arrive_one_in_each_interval() {
    let server = Server::start().await;
    let client =
        BolnaClientLayer::with_pacer(Pacer::builder().evenly().build().unwrap()).layer(http(true));
    timeout(HOUR, server.burst(&client, "/call", 200).join_all()).await.unwrap();
    let times = server.log.times("/call");
    assert_eq!(times.len(), 200);
    for (number, at) in (0..).zip(times) {
        // A delay of the timer of up to 10 ms is made up for at once, a longer one is not.
        let due = Duration::from_millis(120) * number;
        let early = Duration::from_millis(10);
        assert!(at + early >= due && at <= due + Duration::from_millis(2), "{number} at {at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_do_not_hold_each_other_up() {
    let server = Server::start().await;
    let client = client();
    // Each endpoint gets more than its burst, for a minute.
    let jobs = [
        ("/call", 1000),
        ("/v2/agent/7", 1000),
        ("/v2/agent/7/executions", 1000),
        ("/v2/agent/all", 2000),
    ];
    let mut all = JoinSet::new();
    for (path, requests) in jobs {
        let mut job = server.burst(&client, path, requests);
        all.spawn(async move { while job.join_next().await.transpose().unwrap().is_some() {} });
    }
    timeout(HOUR, all.join_all()).await.unwrap();
    let (least, took) = (Duration::from_secs(60), server.log.elapsed());
    assert!(took >= least && took <= least.mul_f64(1.02), "{took:?}");
    assert_eq!((server.log.refused(), server.log.len()), (0, 5000));
}

#[tokio::test(start_paused = true)]
async fn an_exempt_path_never_waits() {
    let server = Server::start().await;
    let client = client();
    let calls = server.burst(&client, "/call", 1000);
    let others = server.burst(&client, "/", 2000);
    let healthy = server.burst(&client, "/healthz", 3000);
    timeout(HOUR, healthy.join_all()).await.unwrap();
    assert_at(server.log.elapsed(), Duration::ZERO);
    assert_eq!(server.log.times("/healthz").len(), 3000);
    drop((calls, others));
}

/// The stack of the documentation, with reqwest as the client.
#[tokio::test(start_paused = true)]
async fn reqwest_is_paced_too() {
    let server = Server::start().await;
    let layer = BolnaClientLayer::new();
    let client = ServiceBuilder::new()
        .map_response(|response: http::Response<_>| {
            reqwest::Response::from(response.map(reqwest::Body::wrap))
        })
        .layer(layer.clone())
        .map_request(|request: Request<Bytes>| reqwest::Request::try_from(request).unwrap())
        .map_response(http::Response::<reqwest::Body>::from)
        .layer(ConcurrencyLimitLayer::new(20))
        .service(reqwest::Client::new());
    let mut calls = JoinSet::new();
    for number in 0..600 {
        let request = server.request(&format!("/call?{number}")).map(|_| Bytes::from("{}"));
        let call = client.clone().oneshot(request);
        calls.spawn(async move {
            call.await.unwrap().error_for_status().unwrap().text().await.unwrap()
        });
    }
    let answers = timeout(HOUR, calls.join_all()).await.unwrap();
    assert!(answers.iter().all(|answer| answer == "done"));
    assert_eq!(
        (server.log.refused(), server.log.len(), usage_of_call(layer.pacer()).sent()),
        (0, 600, 600)
    );
    let (least, took) = (Duration::from_secs(12), server.log.elapsed());
    assert!(took >= least && took <= least.mul_f64(1.06), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_keep_to_the_limits_together() {
    let server = Server::start().await;
    let layer = BolnaClientLayer::new();
    let one = server.burst(&layer.layer(http(true)), "/call", 500);
    let another = server.burst(&layer.clone().layer(http(false)), "/call", 500);
    timeout(HOUR, async { (one.join_all().await, another.join_all().await) }).await.unwrap();
    let (least, took) = (Duration::from_secs(60), server.log.elapsed());
    assert!(took >= least && took <= least.mul_f64(1.02), "{took:?}");
    assert_eq!((server.log.refused(), server.log.len()), (0, 1000));
}

/// Two clients that do not know of each other send more than the server admits.
#[tokio::test(start_paused = true)]
async fn uploads_that_are_refused_are_sent_again_and_none_is_lost() {
    let policy = Policy::builder().endpoint("call", Quota::per_minute(20), ["/call"]).build();
    let policy = policy.unwrap();
    let server = Server::start_with(policy.clone()).await;
    let body = Full::new(Bytes::from(vec![b'x'; 1 << 20]));
    let mut uploads = JoinSet::new();
    for name in ["a", "b"] {
        let pacer = Pacer::builder().policy(policy.clone()).build().unwrap();
        let retry = RetryPolicy::builder().attempts(100).build().unwrap();
        let client = BolnaClientLayer::with_pacer(pacer)
            .retry(retry)
            .layer(Client::builder(TokioExecutor::new()).build(HttpConnector::new()));
        for number in 0..20 {
            let target = format!("http://{}/call?{name}{number}", server.address);
            let upload = client.clone().oneshot(Request::post(target).body(body.clone()).unwrap());
            uploads.spawn(async move { upload.await.unwrap().status() });
        }
    }
    // Without a timeout, which would be over as soon as the kernel holds data back.
    let statuses = uploads.join_all().await;
    assert_eq!(statuses, [StatusCode::OK; 40]);
    assert!(server.log.refused() > 0, "or this shows nothing");
}
