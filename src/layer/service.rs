use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::body::ResponseBody;
use super::config::{Config, Next, Step};
use super::future::ResponseFuture;
use super::refused_body::RefusedBody;
use super::shared::Shared;
use crate::store::{MemoryStore, Store};

/// The service that limits the requests to the service that it wraps. It is made by a
/// [`BolnaRateLimitLayer`](crate::BolnaRateLimitLayer).
///
/// It is ready when the inner service is. When it refuses a request, it drops the ready inner
/// service, so that what that has reserved is released, such as the permit of a concurrency limit.
/// When the store does not answer at once, the ready inner service waits together with the request.
///
/// In both cases the next `poll_ready` goes on with a new clone of the inner service that the layer
/// was given. That original is never polled, so its clones are never wrongly believed to be ready.
/// State that the inner service does not share among its clones begins anew with each of them.
///
/// The [example of the module](crate::layer) calls one.
pub struct BolnaRateLimit<S, St = MemoryStore> {
    /// `None` after it was dropped, or left with a request, until the next `poll_ready`.
    inner: Option<S>,
    /// A clone of the original that is never polled either, once one was needed. With it, services
    /// that several threads use do not meet at the original's lock at each refusal.
    unpolled: Option<S>,
    shared: Arc<Shared<S, St>>,
}

impl<S: Clone, St> BolnaRateLimit<S, St> {
    pub(super) fn new(inner: S, config: Config<St>) -> Self {
        let shared = Arc::new(Shared::new(config, inner.clone()));
        Self { inner: Some(inner), unpolled: None, shared }
    }
}

impl<S, St, ReqBody, ResBody> Service<Request<ReqBody>> for BolnaRateLimit<S, St>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    St: Store,
    ReqBody: Body,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, St, ReqBody>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let Self { inner, unpolled, shared } = self;
        inner.get_or_insert_with(|| clone_unpolled(unpolled, shared)).poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let Self { inner, unpolled, shared } = self;
        let on_panic = GiveUp(inner);
        match shared.config.decide(&mut request) {
            Step::Now(Next::Call(fields, after)) => {
                mem::forget(on_panic);
                // It is the one that was polled ready, so it is the one to call.
                let ready = inner.get_or_insert_with(|| clone_unpolled(unpolled, shared));
                ResponseFuture::calling(ready.call(request), fields, after)
            }
            Step::Now(Next::Refuse(answer)) => {
                // Neither a connection that waits for its next request nor one that still sends
                // this one's body must hold a permit that other callers wait for.
                drop(on_panic);
                let bounds = &shared.config.refused_bodies;
                let body = match RefusedBody::is_unread(&request) {
                    true => RefusedBody::of(request, bounds),
                    false => RefusedBody::Ignored,
                };
                ResponseFuture::refused(answer, body)
            }
            Step::Later(deciding) => {
                mem::forget(on_panic);
                let ready = inner.take().unwrap_or_else(|| clone_unpolled(unpolled, shared));
                ResponseFuture::checking(deciding, Arc::clone(shared), ready, request)
            }
        }
    }
}

/// A guard: when it is dropped, the ready service is given up. That happens if the request is
/// refused, and if an observer or a closure of the user panics.
struct GiveUp<'a, S>(&'a mut Option<S>);

impl<S> Drop for GiveUp<'_, S> {
    fn drop(&mut self) {
        *self.0 = None;
    }
}

impl<S: Clone, St> Clone for BolnaRateLimit<S, St> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), unpolled: None, shared: Arc::clone(&self.shared) }
    }
}

/// An inner service that was never polled.
#[cold]
fn clone_unpolled<S: Clone, St>(unpolled: &mut Option<S>, shared: &Shared<S, St>) -> S {
    unpolled.get_or_insert_with(|| shared.unpolled()).clone()
}

impl<S: fmt::Debug, St: fmt::Debug> fmt::Debug for BolnaRateLimit<S, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BolnaRateLimit")
            .field("inner", &self.inner)
            .field("config", &self.shared.config)
            .finish()
    }
}
