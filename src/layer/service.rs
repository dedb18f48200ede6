use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::body::ResponseBody;
use super::config::{Config, Next, Step};
use super::future::ResponseFuture;
use crate::store::{MemoryStore, Store};

/// The service that limits the requests to the service that it wraps. It is made by a
/// [`BolnaRateLimitLayer`](crate::BolnaRateLimitLayer).
pub struct BolnaRateLimit<S, St = MemoryStore> {
    inner: S,
    config: Arc<Config<St>>,
}

impl<S, St> BolnaRateLimit<S, St> {
    pub(super) fn new(inner: S, config: Arc<Config<St>>) -> Self {
        Self { inner, config }
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
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone, St> BolnaRateLimit<S, St> {
    /// Takes the service that was polled ready, and leaves a fresh clone that was not.
    ///
    /// What the ready service holds, such as a concurrency permit or a place in a buffer, is taken
    /// with it. The clone must not be called before it is polled ready itself.
    fn replace_ready(&mut self) -> S {
        let fresh = self.inner.clone();
        mem::replace(&mut self.inner, fresh)
    }
}

impl<S, St, ReqBody, ResBody> Service<Request<ReqBody>> for BolnaRateLimit<S, St>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    St: Store,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, St, ReqBody>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        match self.config.decide(&mut request) {
            Step::Now(Next::Call(fields)) => {
                ResponseFuture::calling(self.inner.call(request), fields)
            }
            Step::Now(Next::Refuse(answer)) => {
                // A connection that waits for its next request must not hold a permit that other
                // callers wait for.
                drop(self.replace_ready());
                ResponseFuture::refused(answer)
            }
            Step::Later(deciding) => {
                let (config, service) = (Arc::clone(&self.config), self.replace_ready());
                ResponseFuture::checking(deciding, config, service, request)
            }
        }
    }
}

impl<S: Clone, St> Clone for BolnaRateLimit<S, St> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), config: Arc::clone(&self.config) }
    }
}

impl<S: fmt::Debug, St: fmt::Debug> fmt::Debug for BolnaRateLimit<S, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BolnaRateLimit")
            .field("inner", &self.inner)
            .field("config", &self.config)
            .finish()
    }
}
