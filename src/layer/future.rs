use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::after::After;
use super::body::ResponseBody;
use super::config::Next;
use super::refused_body::RefusedBody;
use super::response::{Fields, RefusalResponse};
use super::shared::Shared;
use crate::limiter::Deciding;
use crate::store::Store;

pin_project! {
    /// The future of a [`BolnaRateLimit`](crate::BolnaRateLimit): the response of the inner
    /// service, or a refusal.
    ///
    /// It is awaited in the [example of the module](crate::layer).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, St, ReqBody>
    where
        S: Service<Request<ReqBody>>,
        St: Store,
    {
        #[pin]
        state: State<S, St, ReqBody>,
        // The header fields for the response of the inner service.
        fields: Fields,
        // What is to be done when the response is there.
        after: Option<Box<After>>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, St, ReqBody>
    where
        S: Service<Request<ReqBody>>,
        St: Store,
    {
        /// The store has not answered yet. The ready service waits with its request.
        Checking {
            #[pin]
            deciding: Deciding<St::Check>,
            waiting: Option<Box<Waiting<S, St, ReqBody>>>,
        },
        /// The inner service has been called.
        Calling {
            #[pin]
            call: S::Future,
        },
        /// The inner service is not called. The refusal is sent once the body has been dealt with.
        Refused {
            answer: Option<RefusalResponse>,
            body: RefusedBody<ReqBody>,
        },
    }
}

struct Waiting<S, St, ReqBody> {
    shared: Arc<Shared<S, St>>,
    service: S,
    request: Request<ReqBody>,
}

impl<S, St, ReqBody> ResponseFuture<S, St, ReqBody>
where
    S: Service<Request<ReqBody>>,
    St: Store,
{
    pub(super) fn checking(
        deciding: Deciding<St::Check>,
        shared: Arc<Shared<S, St>>,
        service: S,
        request: Request<ReqBody>,
    ) -> Self {
        // In a box, so that the future does not get larger by a request that seldom waits.
        let waiting = Some(Box::new(Waiting { shared, service, request }));
        let state = State::Checking { deciding, waiting };
        Self { state, fields: Fields::default(), after: None }
    }

    #[inline]
    pub(super) fn calling(call: S::Future, fields: Fields, after: Option<Box<After>>) -> Self {
        Self { state: State::Calling { call }, fields, after }
    }

    #[inline]
    pub(super) fn refused(answer: RefusalResponse, body: RefusedBody<ReqBody>) -> Self {
        let state = State::Refused { answer: Some(answer), body };
        Self { state, fields: Fields::default(), after: None }
    }
}

impl<S, St, ReqBody, ResBody> Future for ResponseFuture<S, St, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    St: Store,
    ReqBody: Body,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut state = this.state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Checking { deciding, waiting } => {
                    let request = &waiting.as_ref().expect("polled after completion").request;
                    let mut conclusion = ready!(deciding.poll_conclusion(cx, request));
                    let Waiting { shared, mut service, mut request } =
                        *waiting.take().expect("it was there just before");
                    match shared.config.next(&mut request, &mut conclusion) {
                        Next::Call(fields, after) => {
                            (*this.fields, *this.after) = (fields, after);
                            State::Calling { call: service.call(request) }
                        }
                        Next::Refuse(answer) => {
                            drop(service);
                            let body = match RefusedBody::is_unread(&request) {
                                true => RefusedBody::of(request, &shared.config.refused_bodies),
                                false => RefusedBody::Ignored,
                            };
                            State::Refused { answer: Some(answer), body }
                        }
                    }
                }
                StateProjection::Calling { call } => {
                    let result = ready!(call.poll(cx));
                    if this.after.is_some() {
                        return Poll::Ready(conclude(result, this.after, this.fields));
                    }
                    let mut response = result?;
                    mem::take(this.fields).append_to(&mut response);
                    return Poll::Ready(Ok(response.map(|body| ResponseBody::inner(body, None))));
                }
                StateProjection::Refused { answer, body } => {
                    let stays_open = ready!(body.poll_end(cx));
                    let answer = answer.take().expect("polled after completion");
                    let mut response = answer.into_response();
                    if !stays_open {
                        say_close(response.headers_mut());
                    }
                    return Poll::Ready(Ok(response.map(ResponseBody::refusal)));
                }
            };
            state.set(next);
        }
    }
}

/// The response to a request that is in flight, or whose charge may be corrected.
#[cold]
#[inline(never)]
fn conclude<B, E>(
    result: Result<Response<B>, E>,
    after: &mut Option<Box<After>>,
    fields: &mut Fields,
) -> Result<Response<ResponseBody<B>>, E> {
    let after = after.take().expect("it was there just before");
    let response = match result {
        Ok(response) => response,
        Err(error) => {
            after.failed();
            return Err(error);
        }
    };
    let (mut response, admission) = after.answered(response);
    mem::take(fields).append_to(&mut response);
    Ok(response.map(|body| ResponseBody::inner(body, admission)))
}

#[cold]
fn say_close(headers: &mut HeaderMap) {
    // A map that is full stays as it is: `insert` would panic.
    let _ = headers.try_insert(CONNECTION, HeaderValue::from_static("close"));
}

impl<S, St, ReqBody> fmt::Debug for ResponseFuture<S, St, ReqBody>
where
    S: Service<Request<ReqBody>>,
    St: Store,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Checking { .. } => "Checking",
            State::Calling { .. } => "Calling",
            State::Refused { .. } => "Refused",
        };
        f.debug_tuple("ResponseFuture").field(&format_args!("{state}")).finish()
    }
}
