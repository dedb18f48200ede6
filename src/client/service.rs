use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower::BoxError;
use tower::retry::Retry;
use tower::retry::future::ResponseFuture;
use tower_service::Service;

use super::pace::{Pace, Pacer, ResponseBody};
use super::retry::{CloneBodies, CloneBody, RetryPolicy};

/// Keeps the requests to the wrapped service within the limits, and retries refused requests.
/// Created by [`BolnaClientLayer`](super::BolnaClientLayer).
///
/// It is a service of `http::Request` if these conditions are met:
/// * the wrapped service is a service of `http::Request` and can be cloned;
/// * the body of its responses is a [`Body`];
/// * the body of the requests can be cloned, or the [`RetryPolicy`] defines [what to do
///   instead](super::RetryPolicyBuilder::clone_bodies_with).
///
/// The body of its responses is a [`ResponseBody`], which counts the requests in flight. Its error
/// is a [`BoxError`] that contains either the error of the wrapped service or a
/// [`WaitError`](super::WaitError).
///
/// The [example of the module](crate::client) sends requests through one.
///
/// # Panics
/// A request that has to wait, is refused or is retried may panic outside of a tokio runtime with
/// timers enabled.
#[derive(Clone, Debug)]
pub struct BolnaClient<S, C = CloneBodies> {
    inner: Retry<RetryPolicy<C>, Pace<S>>,
}

impl<S, C> BolnaClient<S, C> {
    pub(super) const fn new(inner: Retry<RetryPolicy<C>, Pace<S>>) -> Self {
        Self { inner }
    }

    /// The pacer, for example to read the usage.
    #[must_use]
    pub fn pacer(&self) -> &Pacer {
        self.inner.get_ref().pacer()
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
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner.into_inner().into_inner()
    }
}

impl<S, C, ReqBody, ResBody> Service<Request<ReqBody>> for BolnaClient<S, C>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error: Into<BoxError>> + Clone,
    C: CloneBody<ReqBody>,
    ResBody: Body,
{
    type Response = Response<ResponseBody<ResBody>>;
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
