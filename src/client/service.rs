use std::task::{Context, Poll};

use http::{Request, Response};
use tower::BoxError;
use tower::retry::Retry;
use tower::retry::future::ResponseFuture;
use tower_service::Service;

use super::pace::Pace;
use super::retry::{CloneBodies, CloneBody, RetryPolicy};
use super::usage::Usage;

/// Keeps the requests to the service that it wraps within the limits, and retries those that are refused all the same. Made by
/// [`BolnaClientLayer`](super::BolnaClientLayer).
///
/// Its error is a [`BoxError`]: the wrapped service's, or a [`WaitError`](super::WaitError).
///
/// # Panics
/// A request that has to wait panics outside of a tokio runtime with time enabled.
#[derive(Clone, Debug)]
pub struct BolnaClient<S, C = CloneBodies> {
    inner: Retry<RetryPolicy<C>, Pace<S>>,
}

impl<S, C> BolnaClient<S, C> {
    pub(super) const fn new(inner: Retry<RetryPolicy<C>, Pace<S>>) -> Self {
        Self { inner }
    }

    /// How each endpoint stands now, in the order of the policy's endpoints.
    #[must_use]
    pub fn usage(&self) -> Vec<Usage> {
        self.inner.get_ref().pacer().usage()
    }

    /// The wrapped service.
    pub fn get_ref(&self) -> &S {
        self.inner.get_ref().get_ref()
    }

    /// The wrapped service.
    pub fn get_mut(&mut self) -> &mut S {
        self.inner.get_mut().get_mut()
    }

    /// The wrapped service.
    pub fn into_inner(self) -> S {
        self.inner.into_inner().into_inner()
    }
}

impl<S, C, ReqBody, ResBody> Service<Request<ReqBody>> for BolnaClient<S, C>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error: Into<BoxError>> + Clone,
    C: CloneBody<ReqBody>,
{
    type Response = Response<ResBody>;
    type Error = BoxError;
    type Future = ResponseFuture<RetryPolicy<C>, Pace<S>, Request<ReqBody>>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        self.inner.call(request)
    }
}
