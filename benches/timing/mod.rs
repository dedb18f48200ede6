//! How the benchmarks of calls measure time.

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::Request;
use tower::Service;

pub(crate) const BATCH: usize = 100;

/// Nanoseconds per call, over one batch. The requests are made before. Each gets its number in the
/// batch.
pub(crate) fn time<S: Service<Request<String>>>(
    service: &mut S,
    request: impl Fn(usize) -> Request<String>,
) -> u64 {
    let requests: Vec<_> = (0..BATCH).map(request).collect();
    let mut context = Context::from_waker(Waker::noop());
    let start = Instant::now();
    for request in requests {
        let _ = service.poll_ready(&mut context);
        let mut response = pin!(service.call(request));
        let Poll::Ready(response) = response.as_mut().poll(&mut context) else {
            unreachable!("nothing waits")
        };
        let _ = black_box(response);
    }
    u64::try_from(start.elapsed().as_nanos()).expect("a batch is short") / BATCH as u64
}

pub(crate) fn median(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times[times.len() / 2]
}
