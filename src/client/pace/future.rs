use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::body::ResponseBody;
use super::endpoint::Sent;
use super::error::WaitError;
use super::queued::QueuedRequest;

pin_project! {
    /// The future of the response to a request that may have to wait.
    ///
    /// Dropping it removes the request from the queue. If the request was dispatched and not sent
    /// yet, its unit is given back. The unit of a request that was sent stays spent, because the
    /// client can't know whether the server has charged the request. It is no longer in flight.
    ///
    /// A request that need not wait is sent when the service is called, and not when this future is
    /// first polled.
    #[must_use = "futures do nothing unless polled"]
    pub struct PaceFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        state: State<S, ReqBody>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        /// The request waits to be dispatched.
        Waiting {
            waiting: Option<Box<Waiting<S, ReqBody>>>,
        },
        /// The request is dispatched, and the inner service may not be ready yet.
        Readying {
            waiting: Option<Box<Waiting<S, ReqBody>>>,
        },
        /// The inner service has been called.
        Calling {
            #[pin]
            call: S::Future,
            sent: Option<Sent>,
        },
        /// The request fails, and the inner service was not called.
        Refused {
            error: Option<WaitError>,
        },
    }
}

struct Waiting<S, ReqBody> {
    place: QueuedRequest,
    service: S,
    request: Request<ReqBody>,
}

impl<S: Clone, ReqBody> Waiting<S, ReqBody> {
    /// Replaces the service that was polled ready with a clone, which releases what it holds.
    fn release(&mut self) {
        self.service = self.service.clone();
    }
}

impl<S, ReqBody> PaceFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    pub(super) fn waiting(place: QueuedRequest, service: S, request: Request<ReqBody>) -> Self {
        // In a box, so that the future of a request that never waits is small.
        let waiting = Some(Box::new(Waiting { place, service, request }));
        Self { state: State::Waiting { waiting } }
    }

    #[inline]
    pub(super) fn calling(call: S::Future, sent: Option<Sent>) -> Self {
        Self { state: State::Calling { call, sent } }
    }

    pub(super) fn refused(error: WaitError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }
}

impl<S, ReqBody, ResBody> Future for PaceFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error: Into<BoxError>> + Clone,
{
    type Output = Result<Response<ResponseBody<ResBody>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Waiting { waiting } => {
                    let place = &mut waiting.as_mut().expect("polled after completion").place;
                    match ready!(place.poll(cx)) {
                        Ok(()) => State::Readying { waiting: waiting.take() },
                        Err(error) => State::Refused { error: Some(error) },
                    }
                }
                StateProjection::Readying { waiting } => {
                    let Waiting { service, place, .. } =
                        &mut **waiting.as_mut().expect("polled after completion");
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        // Drop the place, so that it delays no other request while this future is
                        // kept.
                        *waiting = None;
                        return Poll::Ready(Err(error.into()));
                    }
                    let sent = ready!(place.send(cx));
                    let mut held = waiting.take().expect("still there: it was borrowed just above");
                    if sent.is_some() {
                        let Waiting { mut service, request, .. } = *held;
                        State::Calling { call: service.call(request), sent }
                    } else {
                        held.release();
                        State::Waiting { waiting: Some(held) }
                    }
                }
                StateProjection::Calling { call, sent } => {
                    let response = ready!(call.poll(cx));
                    let sent = sent.take();
                    let mut response = response.map_err(Into::into)?;
                    let share = sent.and_then(|sent| sent.answered(&mut response));
                    return Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, share))));
                }
                StateProjection::Refused { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after completion").into()));
                }
            };
            state.set(next);
        }
    }
}

impl<S, ReqBody> fmt::Debug for PaceFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting { .. } => "Waiting",
            State::Readying { .. } => "Readying",
            State::Calling { .. } => "Calling",
            State::Refused { .. } => "Refused",
        };
        f.debug_tuple("PaceFuture").field(&format_args!("{state}")).finish()
    }
}
