//! Without a server, as functions run in the cloud: a request comes as an event, and its response
//! goes back as one. The layer needs neither a connection nor a runtime.
//!
//! ```sh
//! # Three calls of one organization, where two are allowed at once, and one without an account.
//! cargo run --example service_fn <<EVENTS
//! {"method": "POST", "path": "/call", "account": {"user": "ana", "organization": "acme"}}
//! {"method": "POST", "path": "/call", "account": {"user": "ben", "organization": "acme"}}
//! {"method": "POST", "path": "/call", "account": {"user": "ana", "organization": "acme"}}
//! {"method": "POST", "path": "/call"}
//! EVENTS
//! # {"body":"queued","headers":{"ratelimit":"\"call\";r=1;t=1",...},"status":200}
//! # {"body":"queued","headers":{"ratelimit":"\"call\";r=0;t=1",...},"status":200}
//! # {...,"headers":{...,"retry-after":"1"},"status":429}
//! # {...,"status":401}
//! ```
//!
//! Providers start one process for each request that they handle at the same time, and each would
//! admit the whole limit: there, count with `RedisStore`, as the example `redis` does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::io::{read_to_string, stdin};

use bolna_rate_limit::{Account, BolnaRateLimitLayer, Policy, Quota};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::{Service, ServiceBuilder, ServiceExt};

/// What an event says about a request.
#[derive(Deserialize)]
struct Event {
    method: String,
    path: String,
    /// What the provider's own authentication knows about the caller.
    account: Option<Caller>,
}

#[derive(Deserialize)]
struct Caller {
    user: String,
    organization: Option<String>,
}

impl Event {
    fn request(self) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder().method(&*self.method).uri(self.path);
        if let Some(Caller { user, organization }) = self.account {
            request = request.extension(Account::user(user).in_organization(organization));
        }
        request.body(Full::default())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = Policy::bolna().quota("call", Quota::per_minute(120).burst(2)).build()?;
    // Made once, and not for each event: the layer's limiter has the buckets.
    let mut service =
        ServiceBuilder::new().layer(BolnaRateLimitLayer::with_policy(policy)).service_fn(handle);

    for event in read_to_string(stdin())?.lines() {
        let request = serde_json::from_str::<Event>(event)?.request()?;
        let (head, body) = service.ready().await?.call(request).await?.into_parts();
        let fields: Result<BTreeMap<_, _>, _> = head
            .headers
            .iter()
            .map(|(name, value)| {
                Ok::<_, http::header::ToStrError>((name.as_str(), value.to_str()?))
            })
            .collect();
        let body = body.collect().await?.to_bytes();
        let answer: Value = json!({
            "status": head.status.as_u16(),
            "headers": fields?,
            "body": std::str::from_utf8(&body)?,
        });
        println!("{answer}");
    }
    Ok(())
}

/// The function itself. Only requests that are admitted reach it.
async fn handle(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("queued")))
}
