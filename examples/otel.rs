//! Metrics by OpenTelemetry: an observer counts each decision with a meter. The exporter here
//! prints, so that no collector is needed; one for OTLP is set at the same place.
//!
//! ```sh
//! cargo run --example otel
//! # Metrics
//! # ...
//! # Name : bolna.rate_limit.decisions
//! # Description : requests about which the limiter has decided
//! # Unit : {request}
//! # ...
//!
//! # Of 600 calls at once some 500 are allowed, and the others are limited. Each outcome has a data
//! # point, with the endpoint and the outcome as its attributes.
//! cargo run --example otel | grep Value | sort -n -k 3
//! # Value : ~100
//! # Value : ~500
//! ```

use std::error::Error;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::post;
use bolna_rate_limit::observe::{Observation, Observer};
use bolna_rate_limit::{Account, BolnaRateLimitLayer, Limiter};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_stdout::MetricExporter;
use tower::ServiceExt;

/// Counts what the limiter decides. It names endpoints and outcomes, never callers: each set of
/// attributes is kept in memory, and there are as many callers as there are customers.
struct OpenTelemetry {
    decisions: Counter<u64>,
    store_wait: Histogram<f64>,
}

impl OpenTelemetry {
    fn new(meter: &Meter) -> Self {
        let decisions = meter
            .u64_counter("bolna.rate_limit.decisions")
            .with_description("requests about which the limiter has decided")
            .with_unit("{request}");
        let store_wait = meter
            .f64_histogram("bolna.rate_limit.store.wait")
            .with_description("the time that a store beyond a network took to answer")
            .with_unit("s");
        Self { decisions: decisions.build(), store_wait: store_wait.build() }
    }
}

impl Observer for OpenTelemetry {
    fn on_decision(&self, observation: &Observation<'_>) {
        let ruling = observation.ruling;
        let endpoint = ruling.endpoint().map_or("(none)", |endpoint| endpoint.name());
        self.decisions.add(
            1,
            &[
                KeyValue::new("endpoint", endpoint),
                KeyValue::new("outcome", ruling.outcome().name()),
                KeyValue::new("admitted", ruling.is_admitted()),
            ],
        );
        if let Some(wait) = observation.waited {
            self.store_wait.record(wait.as_secs_f64(), &[]);
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let provider = SdkMeterProvider::builder()
        .with_resource(Resource::builder().with_service_name("calls").build())
        // Exports every minute, and at the end.
        .with_periodic_exporter(MetricExporter::default())
        .build();
    let limiter = Limiter::default();
    limiter.observe(OpenTelemetry::new(&provider.meter("bolna-rate-limit")));
    let app = Router::new()
        .route("/call", post("queued\n"))
        .layer(BolnaRateLimitLayer::with_limiter(limiter));

    // In your application a server runs here. These are the requests of one caller.
    for _ in 0..600 {
        let call = Request::post("/call").extension(Account::user("ana").in_organization("acme"));
        app.clone().oneshot(call.body(Body::empty())?).await?;
    }
    provider.shutdown()?;
    Ok(())
}
