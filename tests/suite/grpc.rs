//! What gRPC clients see of a refusal. Those over TCP are tonic's.

use std::time::Duration;

use bolna_rate_limit::layer::ResponseBody;
use bolna_rate_limit::store::MemoryStore;
use bolna_rate_limit::values::LimitName;
use bolna_rate_limit::values::clock::ManualClock;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter, Policy, Quota};
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status, body::Body};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;
use tower::{Layer, ServiceBuilder, ServiceExt};

use crate::deferred::lost_store;
use crate::support::{ok, stopped_limiter, text};

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// One call of the health service in ten seconds.
fn policy() -> Policy {
    let quota = Quota::per(1, Duration::from_secs(10));
    Policy::builder().endpoint("check", quota, [CHECK]).build().unwrap()
}

type Limits = BolnaRateLimitLayer<MemoryStore<ManualClock>>;

/// A client of a server with these limits. The user is the text of the field `user`.
async fn client(tasks: &mut JoinSet<()>, limits: Limits) -> HealthClient<Channel> {
    let authenticate = |mut request: Request<Body>| {
        let user = request.headers().get("user").map(|user| user.to_str().unwrap().to_owned());
        if let Some(user) = user {
            request.extensions_mut().insert(Account::user(user));
        }
        request
    };
    let layers = ServiceBuilder::new().map_request(authenticate).layer(limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let (_reporter, health) = tonic_health::server::health_reporter();
        let server = Server::builder().layer(layers).add_service(health);
        server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
    });
    let channel = Endpoint::try_from(format!("http://{address}")).unwrap().connect().await;
    HealthClient::new(channel.unwrap())
}

async fn call(
    client: &mut HealthClient<Channel>,
    user: Option<&'static str>,
) -> Result<(), Status> {
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    if let Some(user) = user {
        request.metadata_mut().insert("user", user.parse().unwrap());
    }
    client.check(request).await.map(|_| ())
}

fn metadata<'a>(status: &'a Status, name: &str) -> Option<&'a str> {
    status.metadata().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_client_that_waits_as_the_refusal_says_is_admitted() {
    let mut tasks = JoinSet::new();
    let (limiter, clock) = stopped_limiter(policy());
    let mut client = client(&mut tasks, BolnaRateLimitLayer::with_limiter(limiter)).await;
    call(&mut client, Some("ana")).await.unwrap();
    clock.advance(Duration::from_micros(7_000_500));

    let refused = call(&mut client, Some("ana")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("1 request per 10 seconds"), "{refused:?}");
    assert_eq!(metadata(&refused, "grpc-retry-pushback-ms"), Some("3000"), "2.9995 s, rounded up");
    assert_eq!(metadata(&refused, "retry-after"), Some("3"));
    assert_eq!(metadata(&refused, "ratelimit"), Some("\"check\";r=0;t=3"));
    assert_eq!(metadata(&refused, "ratelimit-policy"), Some("\"check\";q=1;w=10"));
    let wait = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(wait, Duration::from_micros(2_999_500));
    let quotas = refused.get_details_quota_failure().unwrap().violations;
    assert_eq!(quotas.iter().map(|it| it.quota_id.as_str()).collect::<Vec<_>>(), ["check"]);

    clock.advance(wait - Duration::from_nanos(1));
    assert!(call(&mut client, Some("ana")).await.is_err());
    clock.advance(Duration::from_nanos(1));
    call(&mut client, Some("ana")).await.unwrap();
    // The connection goes on being used by others.
    call(&mut client, Some("ben")).await.unwrap();
}

#[tokio::test]
async fn an_unidentified_call_is_unauthenticated_and_a_blocked_one_waits() {
    let mut tasks = JoinSet::new();
    let (limiter, _clock) = stopped_limiter(policy());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let mut client = client(&mut tasks, layer).await;
    let refused = call(&mut client, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("has no credentials"), "{refused:?}");
    assert_eq!(metadata(&refused, "grpc-retry-pushback-ms"), Some("-1"), "waiting does not help");
    assert!(refused.get_details_retry_info().is_none());

    let (endpoint, _) = limiter.policy().endpoints().next().unwrap();
    limiter.block(&Account::user("ana"), endpoint, Duration::from_secs(3600)).await.unwrap();
    let refused = call(&mut client, Some("ana")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("blocked"), "{refused:?}");
    assert!(refused.get_details_retry_info().is_some());
    assert!(refused.get_details_quota_failure().is_none(), "no quota is violated");
    assert_eq!(metadata(&refused, "grpc-retry-pushback-ms"), Some("3600000"));
    // The longest block is more milliseconds than a pushback can have.
    limiter.block(&Account::user("ana"), endpoint, Duration::MAX).await.unwrap();
    let refused = call(&mut client, Some("ana")).await.unwrap_err();
    assert_eq!(metadata(&refused, "grpc-retry-pushback-ms"), Some("2147483647"));
}

/// A gRPC client waits as it is told before it tries again.
#[tokio::test]
async fn a_cap_on_the_wait_applies_to_the_pushback_and_the_retry_info() {
    let mut tasks = JoinSet::new();
    let (limiter, clock) = stopped_limiter(policy());
    let layer = BolnaRateLimitLayer::with_limiter(limiter.clone());
    let cap = Duration::from_secs(60);
    let mut client = client(&mut tasks, layer.max_retry_after(cap)).await;
    let (endpoint, _) = limiter.policy().endpoints().next().unwrap();
    let hour = Duration::from_secs(3600);
    limiter.block(&Account::user("ana"), endpoint, hour).await.unwrap();
    let refused = call(&mut client, Some("ana")).await.unwrap_err();
    assert_eq!(metadata(&refused, "grpc-retry-pushback-ms"), Some("60000"));
    assert_eq!(metadata(&refused, "retry-after"), Some("60"));
    assert_eq!(refused.get_details_retry_info().unwrap().retry_delay, Some(cap));
    // The rest stays true.
    assert!(refused.message().contains("3600 seconds"), "{refused:?}");
    assert_eq!(metadata(&refused, "ratelimit"), Some("\"check\";r=0;t=3600"));

    // A wait that is shorter is told to the nanosecond.
    limiter.block(&Account::user("ana"), endpoint, Duration::ZERO).await.unwrap();
    call(&mut client, Some("ana")).await.unwrap();
    clock.advance(Duration::from_micros(500));
    let refused = call(&mut client, Some("ana")).await.unwrap_err();
    assert_eq!(metadata(&refused, "grpc-retry-pushback-ms"), Some("10000"));
    let wait = refused.get_details_retry_info().unwrap().retry_delay;
    assert_eq!(wait, Some(Duration::from_micros(9_999_500)));
    // Without an account, waiting still does not help.
    let refused = call(&mut client, None).await.unwrap_err();
    assert_eq!(metadata(&refused, "grpc-retry-pushback-ms"), Some("-1"));
}

fn request(content_type: &str) -> Request<String> {
    let mut request =
        Request::post(CHECK).header("Content-Type", content_type).body(String::new()).unwrap();
    request.extensions_mut().insert(Account::user("ana"));
    request
}

fn field<'a, B>(response: &'a Response<B>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// A gRPC client only looks at the header if the response has no content at all.
fn is_trailers_only(response: &Response<ResponseBody<String>>) -> bool {
    response.status() == StatusCode::OK && response.body().is_end_stream()
}

#[tokio::test]
async fn grpc_web_gets_its_own_type_and_json_over_post_gets_a_problem() {
    let (limiter, _clock) = stopped_limiter(policy());
    // The closure renders what is not gRPC.
    let layer = BolnaRateLimitLayer::with_limiter(limiter).render_refusals(|refusal| {
        let mut response = Response::new("own");
        *response.status_mut() = refusal.status();
        response
    });
    let service = layer.layer(tower::service_fn(ok));
    service.clone().oneshot(request("application/grpc")).await.unwrap();
    for content_type in ["application/grpc", "application/grpc+proto", "application/grpc-web+proto"]
    {
        let response = service.clone().oneshot(request(content_type)).await.unwrap();
        assert!(is_trailers_only(&response), "{content_type}");
        assert_eq!(field(&response, "Content-Type"), Some(content_type));
        assert_eq!(field(&response, "grpc-status"), Some("8"));
        assert_eq!(field(&response, "Cache-Control"), Some("no-store"));
    }
    let response = service.oneshot(request("application/json")).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(field(&response, "grpc-status"), None);
    assert_eq!(text(response).await, "own");
}

#[tokio::test]
async fn a_lost_store_is_unavailable_and_a_call_that_costs_too_much_is_not_to_be_tried_again() {
    let lost =
        BolnaRateLimitLayer::with_limiter(Limiter::with_store(policy(), lost_store()).unwrap());
    let service = lost.layer(tower::service_fn(ok));
    let response = service.oneshot(request("application/grpc")).await.unwrap();
    assert!(is_trailers_only(&response));
    let fields = ["grpc-status", "grpc-retry-pushback-ms"].map(|name| field(&response, name));
    assert_eq!(fields, [Some("14"), Some("1000")]);

    let (limiter, _clock) = stopped_limiter(policy());
    let layer = BolnaRateLimitLayer::with_limiter(limiter);
    let costly = layer.cost(LimitName::new("check").unwrap(), |_| 2);
    let service = costly.layer(tower::service_fn(ok));
    let response = service.oneshot(request("application/grpc")).await.unwrap();
    assert!(is_trailers_only(&response));
    let fields = ["grpc-status", "grpc-retry-pushback-ms"].map(|name| field(&response, name));
    assert_eq!(fields, [Some("8"), Some("-1")]);
    assert_eq!(field(&response, "grpc-status-details-bin"), None);
}
