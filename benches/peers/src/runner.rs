//! How a service is called and timed: in the same way for all.

use std::convert::Infallible;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use axum::http::{Response, StatusCode};
use tower::Service;

use crate::calls::Call;

/// A service that is ready for batches of calls. Behind one dynamic call a batch, and none within
/// it.
pub trait Runner: Send {
    /// Times the calls, and counts the answers that are not `expected`.
    fn batch(&mut self, calls: Vec<Call>, expected: StatusCode) -> Batch;

    /// The same service for another thread.
    fn fork(&self) -> Box<dyn Runner>;
}

pub struct Batch {
    pub nanos: u64,
    pub wrong: usize,
}

impl<S, B> Runner for S
where
    S: Service<Call, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
{
    fn batch(&mut self, calls: Vec<Call>, expected: StatusCode) -> Batch {
        let mut context = Context::from_waker(Waker::noop());
        let mut wrong = 0;
        let start = Instant::now();
        for call in calls {
            let _ = self.poll_ready(&mut context);
            let response = pin!(self.call(call));
            let Ok(response) = finish(response, &mut context);
            wrong += usize::from(black_box(&response).status() != expected);
        }
        let nanos = u64::try_from(start.elapsed().as_nanos()).expect("a batch is short");
        Batch { nanos, wrong }
    }

    fn fork(&self) -> Box<dyn Runner> {
        Box::new(self.clone())
    }
}

/// None of the competitors waits for anything, so one poll does; none of them needs a runtime
/// either.
#[inline]
fn finish<F: Future>(mut future: Pin<&mut F>, context: &mut Context<'_>) -> F::Output {
    for _ in 0..1000 {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return output;
        }
    }
    panic!("a limiter that counts in this process has to answer at once");
}
