//! Both ends of a limit of requests in flight: this crate's client and its layer.

use std::convert::Infallible;
use std::time::Duration;

use bolna_rate_limit::client::{BolnaClientLayer, Pacer};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{Log, limiter, patient};

const CALLS: u32 = 30;
const AT_ONCE: u32 = 3;
const CALL: Duration = Duration::from_secs(10);
/// The way of a request to the server.
const TRIP: Duration = Duration::from_millis(20);

fn policy() -> Policy {
    Policy::bolna().concurrent("call", AT_ONCE).build().unwrap()
}

/// Places all calls at once, at a server that allows [`AT_ONCE`] of them, each of which takes as
/// long as a [`CALL`]. Returns how many requests were refused, and how long all of it took.
async fn place_calls(pacer: Pacer) -> (usize, Duration) {
    let (log, limiter) = (Log::new(), limiter(policy()));
    let server = ServiceBuilder::new()
        .map_request(|mut request: Request<String>| {
            request.extensions_mut().insert(Account::user("u-17"));
            request
        })
        .layer(BolnaRateLimitLayer::with_limiter(limiter.clone()))
        .service(service_fn(async |_: Request<String>| {
            sleep(CALL).await;
            Ok::<_, Infallible>(Response::new("placed".to_owned()))
        }));
    let observed = {
        let log = log.clone();
        service_fn(move |request: Request<String>| {
            let (server, log) = (server.clone(), log.clone());
            async move {
                let target = request.uri().to_string();
                sleep(TRIP).await;
                let response = server.oneshot(request).await?;
                log.add(target, response.status());
                Ok::<_, Infallible>(response)
            }
        })
    };
    let client = BolnaClientLayer::with_pacer(pacer).layer(observed);
    let (started, mut calls) = (Instant::now(), JoinSet::new());
    for _ in 0..CALLS {
        let client = client.clone();
        calls.spawn(async move {
            let request = Request::post("/call").body(String::new()).unwrap();
            let response = client.oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "placed");
        });
    }
    timeout(Duration::from_secs(3600), calls.join_all()).await.unwrap();
    assert_eq!(limiter.report().in_flight, 0);
    (log.refused(), started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_client_with_the_servers_policy_is_never_refused_and_loses_no_time() {
    let pacer = patient().policy(policy()).build().unwrap();
    let (refused, took) = place_calls(pacer).await;
    assert_eq!((refused, took), (0, (TRIP + CALL) * CALLS / AT_ONCE));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_know_the_limit_learns_it_from_the_layers_fields() {
    let (refused, took) = place_calls(patient().build().unwrap()).await;
    println!("{refused} {took:?}");
}
