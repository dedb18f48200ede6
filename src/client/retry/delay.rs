//! The delay before a retry.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use super::{Delay, Resumption};

pin_project! {
    /// The future of [`RetryPolicy`](super::RetryPolicy): completes when a refused request may be
    /// sent again.
    ///
    /// The [example of `RetryPolicy`](super::RetryPolicy) needs no name for it.
    #[must_use = "futures do nothing unless polled"]
    pub struct RetryDelay {
        #[pin]
        sleep: Sleep,
        resumed: Option<Resumed>,
        delay: Option<Arc<Delay>>,
    }
}

/// Completes when the pause is ended by hand.
type Resumed = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

impl RetryDelay {
    /// The delay ends early when `resumed` comes. When it has ended, `delay` says so.
    pub(super) fn new(
        wait: Duration,
        resumed: Option<Resumption>,
        delay: Option<Arc<Delay>>,
    ) -> Self {
        let resumed = resumed.map(|resumed| -> Resumed { Box::pin(resumed.come()) });
        Self { sleep: sleep(wait), resumed, delay }
    }
}

impl Future for RetryDelay {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if !this.resumed.as_mut().is_some_and(|resumed| resumed.as_mut().poll(cx).is_ready()) {
            ready!(this.sleep.poll(cx));
        }
        if let Some(delay) = this.delay {
            delay.ended.get_or_init(Instant::now);
        }
        Poll::Ready(())
    }
}

impl fmt::Debug for RetryDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryDelay").field("sleep", &self.sleep).finish_non_exhaustive()
    }
}
