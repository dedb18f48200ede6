//! The memory that 10,000 waiting requests take:
//! `cargo bench --bench client_memory --features client`.
//!
//! This is a benchmark of its own, since counting allocations makes them slower.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use allocation_counter::measure;
use bolna_rate_limit::client::{PaceFuture, PaceLayer, Pacer};
use bolna_rate_limit::{Policy, Quota};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::runtime::Builder;
use tower::{Layer, Service};

const WAITERS: usize = 10_000;

type Body = Full<Bytes>;
type Inner = fn(Request<Body>) -> Ready<Result<Response<String>, Infallible>>;
type Waiting = PaceFuture<tower::util::ServiceFn<Inner>, Body, String>;

fn main() {
    // One request a minute, so that all requests but the first wait.
    let policy =
        Policy::bolna().quota("call", Quota::per_minute(1)).build().expect("the quota is valid");
    let pacer = Pacer::builder()
        .policy(policy)
        .max_waiting(WAITERS)
        .max_wait(Duration::from_secs(100_000_000));
    let pacer = pacer.build().expect("the bounds are not zero");
    let runtime = Builder::new_current_thread().enable_time().build().expect("there is a runtime");
    let _guard = runtime.enter();
    let inner: Inner = |_| ready(Ok(Response::new(String::new())));
    let mut client = PaceLayer::new(pacer).layer(tower::service_fn(inner));
    let request = || Request::post("/call").body(Body::from("{}")).expect("the path is valid");
    // The first request, which is sent at once.
    drop(client.call(request()));

    let requests: Vec<_> = (0..WAITERS).map(|_| request()).collect();
    let mut futures: Vec<Pin<Box<Waiting>>> = Vec::with_capacity(WAITERS);
    let allocated = measure(|| {
        for request in requests {
            let mut future = Box::pin(client.call(request));
            assert!(
                future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(),
                "it has to wait"
            );
            futures.push(future);
        }
    });
    let own = size_of::<Request<Body>>();
    // The list of requests is freed during the measurement, so its size is added.
    let bytes = usize::try_from(allocated.bytes_current).map_or(0, |bytes| bytes) + WAITERS * own;
    println!(
        "{WAITERS} waiting: {} bytes each besides the request, which has {own}",
        bytes / WAITERS - own
    );
    println!("  of which the future takes {}", size_of::<Waiting>());
}
