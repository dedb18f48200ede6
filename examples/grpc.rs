//! A gRPC server with limits, made with tonic, and a client that waits as a refusal says. Only the
//! health service is served, since it needs no generated code.
//!
//! ```sh
//! # A method that can be called 5 times at once, and twice a second: each call after the fifth is
//! # refused, and made again after the time that the refusal names.
//! cargo run --example grpc
//! # call 1 succeeded after 0 refusals
//! # ...
//! # call 5 succeeded after 0 refusals
//! # refused: ... (wait ...ms)
//! # call 6 succeeded after 1 refusals
//! # refused: ... (wait ...ms)
//! # call 7 succeeded after 1 refusals
//! # refused: ... (wait ...ms)
//! # call 8 succeeded after 1 refusals
//! ```

use std::error::Error;
use std::net::SocketAddr;

use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy, PolicyError, Quota};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Status, body::Body};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;
use tower::ServiceBuilder;

/// Paths of gRPC are `/package.Service/Method`.
fn policy() -> Result<Policy, PolicyError> {
    let quota = Quota::per_second(2).burst(5);
    Policy::builder().endpoint("health-check", quota, ["/grpc.health.v1.Health/Check"]).build()
}

/// Serves until the listener fails.
async fn serve(listener: TcpListener, limits: BolnaRateLimitLayer) -> Result<(), Box<dyn Error>> {
    let (_reporter, health) = tonic_health::server::health_reporter();
    // The limiter is inside of authentication, which inserts the account.
    let layers = ServiceBuilder::new().map_request(authenticate).layer(limits);
    let incoming = TcpIncoming::from(listener);
    Server::builder().layer(layers).add_service(health).serve_with_incoming(incoming).await?;
    Ok(())
}

/// A DEMO: it believes any token.
fn authenticate(mut request: http::Request<Body>) -> http::Request<Body> {
    let token = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if let Some(user) = token.and_then(|value| value.strip_prefix("Bearer ")) {
        let account = Account::user(user);
        request.extensions_mut().insert(account);
    }
    request
}

type Client =
    HealthClient<InterceptedService<Channel, fn(Request<()>) -> Result<Request<()>, Status>>>;

async fn client(server: SocketAddr) -> Result<Client, Box<dyn Error>> {
    let channel = Endpoint::try_from(format!("http://{server}"))?.connect().await?;
    Ok(HealthClient::with_interceptor(channel, |mut request| {
        let token = "Bearer ana".parse().map_err(|_| Status::internal("the token is no text"))?;
        request.metadata_mut().insert("authorization", token);
        Ok(request)
    }))
}

/// Makes a call, and makes it again after each refusal, when the refusal says. Returns how often it
/// was refused.
async fn call(client: &mut Client) -> Result<u32, Box<dyn Error>> {
    let mut refusals = 0;
    loop {
        match client.check(HealthCheckRequest::default()).await {
            Ok(_) => return Ok(refusals),
            Err(status) if status.code() == Code::ResourceExhausted => {
                let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
                let Some(wait) = retry else { return Err(status.into()) };
                println!("refused: {} (wait {wait:?})", status.message());
                sleep(wait).await;
                refusals += 1;
            }
            Err(status) => return Err(status.into()),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let limits = BolnaRateLimitLayer::with_policy(policy()?);
    tokio::spawn(async move {
        if let Err(error) = serve(listener, limits).await {
            eprintln!("the server ended: {error}");
        }
    });
    let mut client = client(address).await?;
    for number in 1..=8 {
        let refusals = call(&mut client).await?;
        println!("call {number} succeeded after {refusals} refusals");
    }
    Ok(())
}
