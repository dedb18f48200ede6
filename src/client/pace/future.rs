use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::ahead::Reading;
use super::body::ResponseBody;
use super::endpoint::Sent;
use super::error::WaitError;
use super::queued::{QueuedRequest, Readied};
use crate::client::refusals::Refusals;

pin_project! {
    /// The future of the response to a request that may have to wait.
    ///
    /// Dropping it removes the request from the queue. If the request was dispatched and not sent
    /// yet, its unit is given back. The unit of a request that was sent stays spent, because the
    /// client can't know whether the server has charged the request. It is no longer in flight.
    ///
    /// A request that need not wait is sent when the service is called, and not when this future is
    /// first polled.
    ///
    /// If the request is refused, the body of the response is read, up to 64 KiB and for at most
    /// 1 s, before the response is handed on. See [`ResponseBody`].
    ///
    /// It is awaited in the [example of `PaceLayer`](super::PaceLayer).
    #[must_use = "futures do nothing unless polled"]
    pub struct PaceFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>>,
        ResBody: Body,
    {
        #[pin]
        state: State<S, ReqBody, ResBody>,
        refusals: Refusals,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>>,
        ResBody: Body,
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
        /// The request was refused, and the body of the response is being read.
        Reading {
            reading: Option<Box<Reading<ResBody>>>,
        },
        /// The request fails, and the inner service was not called.
        Failed {
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

impl<S, ReqBody, ResBody> PaceFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    ResBody: Body,
{
    pub(super) fn waiting(
        place: QueuedRequest,
        service: S,
        request: Request<ReqBody>,
        refusals: Refusals,
    ) -> Self {
        // In a box, so that the future of a request that never waits is small.
        let waiting = Some(Box::new(Waiting { place, service, request }));
        Self { state: State::Waiting { waiting }, refusals }
    }

    #[inline]
    pub(super) fn calling(call: S::Future, sent: Option<Sent>, refusals: Refusals) -> Self {
        Self { state: State::Calling { call, sent }, refusals }
    }

    pub(super) fn failed(error: WaitError, refusals: Refusals) -> Self {
        Self { state: State::Failed { error: Some(error) }, refusals }
    }
}

impl<S, ReqBody, ResBody> Future for PaceFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error: Into<BoxError>> + Clone,
    ResBody: Body,
{
    type Output = Result<Response<ResponseBody<ResBody>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut state = this.state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Waiting { waiting } => {
                    let place = &mut waiting.as_mut().expect("polled after completion").place;
                    match ready!(place.poll(cx)) {
                        Ok(()) => State::Readying { waiting: waiting.take() },
                        Err(error) => State::Failed { error: Some(error) },
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
                    let readied = ready!(place.send(cx));
                    let mut held = waiting.take().expect("still there: it was borrowed just above");
                    let sent = match readied {
                        Readied::Sent(sent) => Some(Some(sent)),
                        Readied::Exempt => Some(None),
                        Readied::Back => None,
                    };
                    if let Some(sent) = sent {
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
                    let is_refused = this.refusals.contains(response.status(), response.headers());
                    let share = sent.and_then(|sent| sent.answered(&mut response, is_refused));
                    if !is_refused || !Reading::suits(response.body()) {
                        let response = response.map(|body| ResponseBody::new(body, share));
                        return Poll::Ready(Ok(response));
                    }
                    State::Reading { reading: Some(Box::new(Reading::new(response))) }
                }
                StateProjection::Reading { reading } => {
                    ready!(reading.as_mut().expect("polled after completion").poll(cx));
                    let read = reading.take().expect("still there: it was polled just above");
                    return Poll::Ready(Ok(read.into_response()));
                }
                StateProjection::Failed { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after completion").into()));
                }
            };
            state.set(next);
        }
    }
}

impl<S, ReqBody, ResBody> fmt::Debug for PaceFuture<S, ReqBody, ResBody>
where
    S: Service<Request<ReqBody>>,
    ResBody: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting { .. } => "Waiting",
            State::Readying { .. } => "Readying",
            State::Calling { .. } => "Calling",
            State::Reading { .. } => "Reading",
            State::Failed { .. } => "Failed",
        };
        f.debug_tuple("PaceFuture").field(&format_args!("{state}")).finish()
    }
}
