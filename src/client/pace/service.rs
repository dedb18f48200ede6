use std::mem;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower::BoxError;
use tower_service::Service;

use super::body::ResponseBody;
use super::endpoint::Entered;
use super::future::PaceFuture;
use super::pacer::Pacer;
use crate::client::max_wait::WaitOptions;
use crate::client::refusals::Refusals;
use crate::client::retry::Again;

/// Paces the requests to the wrapped service. Created by [`PaceLayer`](super::PaceLayer).
///
/// A request that waits in the queue holds nothing of the inner service, neither a permit nor a
/// place in a buffer: it gives the service up that was ready when it arrived, and gets another one
/// ready after it is dispatched. A request that is ready, but comes too soon after others, keeps
/// its ready service for at most 250 ms.
///
/// `poll_ready` waits for the inner service, before there is a request. So
/// [limit what is in flight by the policy](crate::client#layers-in-which-requests-wait), and not by
/// a layer further in.
///
/// It is a service of `http::Request` if the wrapped service is one, can be cloned, and the body of
/// its responses is a [`Body`].
///
/// The [example of `PaceLayer`](super::PaceLayer) calls one.
///
/// # Panics
/// A request that has to wait panics outside of a tokio runtime with timers enabled, and on one
/// that has been shut down. On a runtime without timers, so does a request that is refused, if the
/// body of the response is not there at once.
#[derive(Clone, Debug)]
pub struct Pace<S> {
    inner: S,
    pacer: Pacer,
    refusals: Refusals,
}

impl<S> Pace<S> {
    pub(super) const fn new(inner: S, pacer: Pacer, refusals: Refusals) -> Self {
        Self { inner, pacer, refusals }
    }

    /// The pacer.
    #[must_use]
    pub const fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// The wrapped service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped service.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The wrapped service.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone> Pace<S> {
    /// Replaces the service that was polled ready with a fresh clone, which releases what it holds.
    fn release(&mut self) {
        let fresh = self.inner.clone();
        drop(mem::replace(&mut self.inner, fresh));
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Pace<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error: Into<BoxError>> + Clone,
    ResBody: Body,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = BoxError;
    type Future = PaceFuture<S, ReqBody, ResBody>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let extensions = request.extensions();
        let again = extensions.get::<Again>();
        let options = || WaitOptions {
            priority: extensions.get().copied().unwrap_or_default(),
            max_wait: extensions.get().copied(),
        };
        match self.pacer.enter(&request, again, options) {
            Entered::Exempt => PaceFuture::calling(self.inner.call(request), None, self.refusals),
            Entered::Sent(sent) => {
                PaceFuture::calling(self.inner.call(request), Some(sent), self.refusals)
            }
            Entered::Queued(place) => {
                self.release();
                PaceFuture::waiting(place, self.inner.clone(), request, self.refusals)
            }
            Entered::Failed(error) => {
                self.release();
                PaceFuture::failed(error, self.refusals)
            }
        }
    }
}
