//! The delay before a retry.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

pin_project! {
    /// The future of [`RetryPolicy`](super::RetryPolicy): completes when a refused request may be
    /// sent again.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct RetryDelay {
        #[pin]
        sleep: Sleep,
    }
}

impl RetryDelay {
    pub(super) fn new(wait: Duration) -> Self {
        Self { sleep: sleep(wait) }
    }
}

impl Future for RetryDelay {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().sleep.poll(cx)
    }
}
