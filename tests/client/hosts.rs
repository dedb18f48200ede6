//! A policy for some hosts, over real connections.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::any;
use axum::serve::ListenerExt;
use bolna_rate_limit::client::{BolnaClientLayer, Pacer, PacerError};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};

use crate::support::{
    Log, assert_at, generous, mock, one_call_in, patient, refusal, request, send,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A server that refuses its first request for that time, and admits all others.
async fn server(tasks: &mut JoinSet<()>, retry_after: &'static str) -> (SocketAddr, Log) {
    let log = Log::new();
    let answer = move |State(log): State<Log>, uri: Uri| async move {
        let is_refused = log.len() == 0 && !retry_after.is_empty();
        let status = if is_refused { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
        log.add(uri.to_string(), status);
        let response = Response::builder().status(status);
        let response =
            if is_refused { response.header("retry-after", retry_after) } else { response };
        response.body(String::new()).unwrap()
    };
    let app = Router::new().fallback(any(answer)).with_state(log.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    tasks.spawn(async { axum::serve(listener, app).await.unwrap() });
    (address, log)
}

fn http() -> Client<HttpConnector, Empty<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

fn get(address: SocketAddr, path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://{address}{path}")).body(Empty::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn another_hosts_refusal_does_not_pause_the_api() {
    let mut tasks = JoinSet::new();
    let (api, _) = server(&mut tasks, "").await;
    let (files, _) = server(&mut tasks, "3600").await;
    let pacer = Pacer::builder().hosts([api.to_string()]).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer.clone()).layer(http());
    let recording = client.clone().oneshot(get(files, "/recording.mp3")).await.unwrap();
    assert_eq!(recording.status(), StatusCode::TOO_MANY_REQUESTS);
    let usage = pacer.peek("/user/me").unwrap();
    assert_eq!((usage.paused(), usage.sent(), usage.refused()), (Duration::ZERO, 0, 0));
    let me = client.clone().oneshot(get(api, "/user/me")).await.unwrap();
    assert_eq!(me.status(), StatusCode::OK);
    assert_eq!(pacer.peek("/user/me").unwrap().sent(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_hosts_refusal_is_retried_by_what_it_says() {
    let mut tasks = JoinSet::new();
    let (api, _) = server(&mut tasks, "").await;
    let (files, log) = server(&mut tasks, "7").await;
    let pacer = Pacer::builder().hosts([api.to_string()]).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer).layer(http());
    let recording = client.clone().oneshot(get(files, "/recording.mp3")).await.unwrap();
    assert_eq!(recording.status(), StatusCode::OK);
    let times = log.times("/");
    assert_eq!(times.len(), 2);
    let wait = times[1] - times[0];
    assert!(wait >= Duration::from_secs(7) && wait < Duration::from_secs(8), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn only_requests_to_the_hosts_wait() {
    let log = Log::new();
    let pacer = patient().policy(one_call_in(HOUR)).hosts(["API.bolna.ai"]).build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer).layer(generous(&log));
    for _ in 0..5 {
        send(&client, "https://files.example/call").await.unwrap().unwrap();
    }
    send(&client, "https://api.bolna.ai:443/call").await.unwrap().unwrap();
    assert_at(log.elapsed(), Duration::ZERO);
    send(&client, "https://api.bolna.ai/call").await.unwrap().unwrap();
    assert_at(log.elapsed(), HOUR);
    // One that does not say where it goes.
    send(&client, "/call").await.unwrap().unwrap();
    assert_at(log.elapsed(), 2 * HOUR);
}

#[tokio::test(start_paused = true)]
async fn without_hosts_a_policy_is_for_all_of_them() {
    let log = Log::new();
    let pacer = patient().build().unwrap();
    let client = BolnaClientLayer::with_pacer(pacer.clone())
        .layer(mock(&log, |_| refusal(&[("retry-after", "3600")])));
    client.oneshot(request("https://files.example/recording.mp3")).await.unwrap();
    assert!(pacer.peek("/user/me").unwrap().paused() >= HOUR);
}

#[test]
fn what_is_no_host_is_an_error() {
    for host in ["https://api.bolna.ai", "api.bolna.ai/call", "", "me@api.bolna.ai"] {
        let error = Pacer::builder().hosts(["api.bolna.ai", host]).build().unwrap_err();
        assert_eq!(error, PacerError::Host(host.to_owned()));
        assert!(error.to_string().contains(&format!("{host:?}")), "{error}");
    }
    let error = Pacer::builder().hosts([""; 0]).build().unwrap_err();
    assert_eq!(error, PacerError::NoHosts);
}
