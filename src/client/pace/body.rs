use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::ahead::Ahead;
use super::permit::Share;

pin_project! {
    /// The body of a response: that of the wrapped service. If the endpoint has a limit of
    /// [requests in flight](crate::policy::PolicyBuilder::concurrent), the request is in flight
    /// until this body has ended, has failed, or was dropped.
    ///
    /// A caller that keeps a response without reading its body therefore keeps a place. An empty
    /// body has ended when it was polled once, or was dropped.
    ///
    /// The body of a refusal has been read already, up to 64 KiB and for at most 1 s, unless it
    /// is known to be longer, so that a
    /// retry finds the connection free again: a connection of HTTP/1 is used again only after a
    /// response was read to its end. The caller gets all of it nevertheless, with its trailers and
    /// errors.
    ///
    /// The [example of `MaxWait`](crate::client::MaxWait) names the type of a response that has it.
    pub struct ResponseBody<B>
    where
        B: Body,
    {
        #[pin]
        source: Source<B>,
    }
}

pin_project! {
    #[project = SourceProjection]
    enum Source<B>
    where
        B: Body,
    {
        Direct {
            #[pin]
            body: B,
            share: Option<Share>,
        },
        /// The beginning of the body of a refusal has been read. It is not in flight.
        Ahead {
            ahead: Box<Ahead<B>>,
        },
    }
}

impl<B: Body> ResponseBody<B> {
    pub(super) const fn new(body: B, share: Option<Share>) -> Self {
        Self { source: Source::Direct { body, share } }
    }

    pub(super) const fn read_ahead(ahead: Box<Ahead<B>>) -> Self {
        Self { source: Source::Ahead { ahead } }
    }

    /// The body of the wrapped service. If it belongs to a refusal, its beginning may have been
    /// read.
    pub fn get_ref(&self) -> &B {
        match &self.source {
            Source::Direct { body, .. } => body,
            Source::Ahead { ahead } => ahead.get_ref(),
        }
    }

    /// The body of the wrapped service. The request is no longer in flight, as far as the client
    /// knows, unless a [`Permit`](super::Permit) says otherwise.
    ///
    /// # Errors
    /// If the body belongs to a refusal and its beginning has been read: returns `self`, since the
    /// body of the wrapped service alone would lack that part.
    pub fn into_inner(self) -> Result<B, Self> {
        match self.source {
            Source::Direct { body, .. } => Ok(body),
            source @ Source::Ahead { .. } => Err(Self { source }),
        }
    }
}

/// An empty body.
impl<B: Body + Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B: Body + fmt::Debug> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResponseBody").field(self.get_ref()).finish()
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().source.project() {
            SourceProjection::Direct { mut body, share } => {
                let frame = ready!(body.as_mut().poll_frame(cx));
                // A reader may not poll again after the last frame.
                if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
                    *share = None;
                }
                Poll::Ready(frame)
            }
            SourceProjection::Ahead { ahead } => ahead.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Direct { body, .. } => body.is_end_stream(),
            Source::Ahead { ahead } => ahead.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Direct { body, .. } => body.size_hint(),
            Source::Ahead { ahead } => ahead.size_hint(),
        }
    }
}
