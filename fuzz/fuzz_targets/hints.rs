//! Feeds responses with any header fields to the client. It checks that
//!
//! 1. nothing panics;
//! 2. a refusal pauses the endpoint for an hour at most, and the random second in addition, whatever
//!    it says;
//! 3. a refusal that says nothing pauses it for a second at least.
//!
//! Run it from the root of the repository:
//!
//! ```text
//! mkdir -p fuzz/corpus/hints
//! cargo +nightly fuzz run --features client hints fuzz/corpus/hints -- \
//!     -max_total_time=600 -timeout=2 -dict=fuzz/hints.dict
//! ```

#![no_main]

use std::convert::Infallible;
use std::sync::LazyLock;
use std::time::Duration;

use bolna_rate_limit::client::{PaceLayer, Pacer};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceExt, service_fn};

/// The fields that the client reads.
const NAMES: [&str; 24] = [
    "age",
    "date",
    "ratelimit",
    "ratelimit-limit",
    "ratelimit-policy",
    "ratelimit-remaining",
    "ratelimit-reset",
    "retry-after",
    "retry-after-ms",
    "x-cache",
    "x-ms-retry-after-ms",
    "x-rate-limit-reset",
    "x-rate-limit-retry-after-seconds",
    "x-ratelimit-after",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-reset-after",
    "x-ratelimit-reset-ms",
    "x-ratelimit-reset-requests",
    "x-ratelimit-retry-after",
    "x-retry-after",
    "x-unknown",
    "server",
];

const HOUR: Duration = Duration::from_secs(3600);

const SECOND: Duration = Duration::from_secs(1);

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

/// Whether the response is a refusal, and its fields: the index of a name, and a value.
type Input = (bool, Vec<(u8, Vec<u8>)>);

fuzz_target!(|input: Input| {
    let (is_refused, fields) = input;
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter().take(16) {
        let name = HeaderName::from_static(NAMES[usize::from(*name) % NAMES.len()]);
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let says_nothing = headers.is_empty();
    let mut response = Response::new(String::new());
    *response.headers_mut() = headers;
    if is_refused {
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    }
    let server = service_fn(move |_: Request<String>| {
        let response = response.clone();
        async move { Ok::<_, Infallible>(response) }
    });
    let pacer = Pacer::builder().build().expect("the defaults are valid");
    let client = PaceLayer::new(pacer.clone()).layer(server);
    let request = Request::post("/call").body(String::new()).expect("a request");
    let answer = RUNTIME.block_on(client.oneshot(request)).expect("a response");
    assert_eq!(answer.status() == StatusCode::TOO_MANY_REQUESTS, is_refused);
    let paused = pacer.peek("/call").expect("an endpoint of the policy").paused();
    assert!(paused <= HOUR + SECOND, "paused for {paused:?}");
    if is_refused && says_nothing {
        // Some of it has passed.
        assert!(paused > SECOND / 2, "paused for {paused:?}");
    }
});
