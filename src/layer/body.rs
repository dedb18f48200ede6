use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::limiter::Admission;

pin_project! {
    /// The body of a response: that of the inner service, or that of a refusal.
    ///
    /// If a limit of [requests in flight](crate::policy::PolicyBuilder::concurrent) counts the
    /// request, the body keeps it in flight until the body has ended or is dropped. A clone of the
    /// [`Admission`](crate::limiter::Admission) keeps it longer.
    ///
    /// An [example at `enabled`](crate::BolnaRateLimitLayer::enabled) makes axum's body of it.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        kind: BodyKind<B>,
        // Keeps the request in flight until the body has ended.
        admission: Option<Admission>,
    }
}

pin_project! {
    #[project = BodyKindProjection]
    #[derive(Debug)]
    enum BodyKind<B> {
        Inner {
            #[pin]
            body: B,
        },
        Refusal {
            body: Bytes,
        },
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn inner(body: B, admission: Option<Admission>) -> Self {
        Self { kind: BodyKind::Inner { body }, admission }
    }

    pub(super) fn refusal(body: Bytes) -> Self {
        Self { kind: BodyKind::Refusal { body }, admission: None }
    }
}

/// An empty body. `CorsLayer` and other layers need it to make responses of their own.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::refusal(Bytes::new())
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        match this.kind.project() {
            BodyKindProjection::Inner { mut body } => {
                let frame = body.as_mut().poll_frame(cx);
                if this.admission.is_some() {
                    // A server does not poll for the end of a body whose length is known, and may
                    // drop it late. Its client may have read all of it by then: its next request
                    // would then be one too many.
                    let has_ended = match &frame {
                        Poll::Pending => false,
                        Poll::Ready(None) => true,
                        Poll::Ready(Some(_)) => body.is_end_stream(),
                    };
                    if has_ended {
                        *this.admission = None;
                    }
                }
                frame
            }
            BodyKindProjection::Refusal { body } if body.is_empty() => Poll::Ready(None),
            BodyKindProjection::Refusal { body } => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(body)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Inner { body } => body.is_end_stream(),
            BodyKind::Refusal { body } => body.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Inner { body } => body.size_hint(),
            BodyKind::Refusal { body } => SizeHint::with_exact(body.len() as u64),
        }
    }
}
