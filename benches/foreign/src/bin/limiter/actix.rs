//! actix-governor, as its documentation sets it up.

use std::net::SocketAddr;

use actix_governor::{Governor, GovernorConfigBuilder};
use actix_web::rt::System;
use actix_web::{App, HttpServer, web};

use crate::{Error, Rate};

pub fn serve(address: SocketAddr, rate: &Rate, headers: bool) -> Result<(), Error> {
    let mut builder = GovernorConfigBuilder::default();
    builder.period(rate.interval()).burst_size(rate.burst);
    // The two configurations are of two types.
    macro_rules! serve {
        ($config:expr) => {{
            let config = $config.ok_or("the rate is not valid")?;
            let server = HttpServer::new(move || {
                App::new()
                    .wrap(Governor::new(&config))
                    .route("/call", web::to(|| async { "queued" }))
            });
            System::new().block_on(server.workers(1).bind(address)?.run())?;
        }};
    }
    if headers {
        serve!(builder.use_headers().finish());
    } else {
        serve!(builder.finish());
    }
    Ok(())
}
