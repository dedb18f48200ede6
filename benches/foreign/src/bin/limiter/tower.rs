//! `tower_governor` in front of axum, as its documentation sets it up.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::post;
use tokio::net::TcpListener;
use tower_governor::GovernorLayer;
use tower_governor::governor::GovernorConfigBuilder;

use crate::{Error, Rate, runtime};

pub fn serve(address: SocketAddr, rate: &Rate, headers: bool) -> Result<(), Error> {
    let mut builder = GovernorConfigBuilder::default();
    builder.period(rate.interval()).burst_size(rate.burst);
    let app = Router::new().route("/call", post("queued").get("queued"));
    let app = if headers {
        let config = builder.use_headers().finish().ok_or("the rate is not valid")?;
        app.layer(GovernorLayer::new(config))
    } else {
        app.layer(GovernorLayer::new(builder.finish().ok_or("the rate is not valid")?))
    };
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    runtime()?.block_on(async { axum::serve(TcpListener::bind(address).await?, app).await })?;
    Ok(())
}
