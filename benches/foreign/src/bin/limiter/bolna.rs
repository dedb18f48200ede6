//! This crate's own limiter, with Bolna's policy but for the rate of calls.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::routing::post;
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy, Quota};
use tokio::net::TcpListener;
use tower::util::MapRequestLayer;

use crate::{Error, Rate, runtime};

pub fn serve(address: SocketAddr, rate: &Rate) -> Result<(), Error> {
    let quota = Quota::per(rate.limit, rate.window).burst(rate.burst);
    let policy = Policy::bolna().quota("call", quota).build()?;
    let app = Router::new()
        .route("/call", post("queued").get("queued"))
        .layer(BolnaRateLimitLayer::with_policy(policy))
        .layer(MapRequestLayer::new(authenticate));
    runtime()?.block_on(async { axum::serve(TcpListener::bind(address).await?, app).await })?;
    Ok(())
}

/// Each key is a user of its own.
fn authenticate(mut request: Request) -> Request {
    let key = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(account) = key.map(Account::user) {
        request.extensions_mut().insert(account);
    }
    request
}
