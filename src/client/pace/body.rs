use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::permit::Share;

pin_project! {
    /// The body of a response: that of the wrapped service. If the endpoint has a limit of
    /// [requests in flight](crate::policy::PolicyBuilder::concurrent), the request is in flight
    /// until this body has ended, has failed, or was dropped.
    ///
    /// A caller that keeps a response without reading its body therefore keeps a place. An empty
    /// body has ended when it was polled once, or was dropped.
    pub struct ResponseBody<B> {
        #[pin]
        body: B,
        share: Option<Share>,
    }
}

impl<B> ResponseBody<B> {
    pub(super) const fn new(body: B, share: Option<Share>) -> Self {
        Self { body, share }
    }

    /// The body of the wrapped service.
    pub const fn get_ref(&self) -> &B {
        &self.body
    }

    /// The body of the wrapped service. The request is no longer in flight, as far as the client
    /// knows, unless a [`Permit`](super::Permit) says otherwise.
    pub fn into_inner(self) -> B {
        self.body
    }
}

/// An empty body.
impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B: fmt::Debug> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResponseBody").field(&self.body).finish()
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        // A reader may not poll again after the last frame.
        if !matches!(frame, Some(Ok(_))) || this.body.is_end_stream() {
            *this.share = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
