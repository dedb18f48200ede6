//! The Tower middleware: a layer, the service that it makes, and the service's future and body.
//!
//! A request goes through these steps:
//!
//! 1. [`BolnaRateLimit`] finds the account, in the request's extensions or with [`Identify`].
//! 2. The [`Limiter`](crate::Limiter) finds the rule for the path, or the rules if servers read it
//!    in several ways, charges the buckets in the store, and returns a [`Ruling`](crate::Ruling).
//! 3. If the request is admitted, the inner service is called, and its response gets the header
//!    fields of the [`Dialect`]. If not, the response is a [`Refusal`], and the inner service is
//!    not called. Below HTTP/2 the request's body is
//!    [read](BolnaRateLimitLayer::read_refused_bodies) before the refusal is sent.
//!
//! Except for the client, nothing else in the crate depends on `http::Request`.
//!
//! ```
//! use bolna_rate_limit::{Account, BolnaRateLimitLayer};
//! use http::{Request, Response, StatusCode};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio_test::block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(BolnaRateLimitLayer::new())
//!     .service(service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new(())) }));
//!
//! let mut request = Request::post("/call").body(String::new())?;
//! let unidentified = service.clone().oneshot(request.clone()).await?;
//! assert_eq!(unidentified.status(), StatusCode::UNAUTHORIZED);
//!
//! request.extensions_mut().insert(Account::user("u-17"));
//! let admitted = service.oneshot(request).await?;
//! assert_eq!(admitted.status(), StatusCode::OK);
//! assert_eq!(admitted.headers()["ratelimit"], "\"call\";r=499;t=60");
//! # Ok::<(), BoxError>(())
//! # }).unwrap();
//! ```

mod address;
mod after;
mod body;
mod config;
mod cost;
mod future;
mod identify;
#[expect(
    clippy::module_inception,
    reason = "one file for each of layer, service, future and body, as in tower-http"
)]
mod layer;
mod refused_body;
mod response;
mod service;
mod shared;

pub use crate::values::{OnStoreFailure, OnUnidentified};
pub use address::{ClientAddress, IntoAddress};
pub use body::ResponseBody;
pub use cost::IntoCost;
pub use future::ResponseFuture;
pub use identify::{Identify, IntoAccount};
pub use layer::BolnaRateLimitLayer;
pub use response::{Dialect, LegacyReset, Reason, Refusal};
pub use service::BolnaRateLimit;
