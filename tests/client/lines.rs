//! A server that counts the requests in flight, each until its body has ended or was dropped.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};
use tower::service_fn;

use crate::support::{Answering, Log};

/// How many are in flight now, and how many have been at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<Mutex<(usize, usize)>>);

/// One that is in flight.
#[derive(Debug)]
pub(crate) struct Busy(Lines);

impl Lines {
    pub(crate) fn enter(&self) -> Busy {
        let (now, most) = &mut *self.0.lock().unwrap();
        *now += 1;
        *most = (*most).max(*now);
        Busy(self.clone())
    }

    pub(crate) fn now(&self) -> usize {
        self.0.lock().unwrap().0
    }

    pub(crate) fn most(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().0 -= 1;
    }
}

/// How a request is answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// The time until the response.
    pub(crate) head: Duration,
    /// The time until each frame of the body.
    pub(crate) frames: Vec<Duration>,
    pub(crate) ends: Ends,
    pub(crate) status: StatusCode,
    pub(crate) fields: Vec<(&'static str, String)>,
}

/// How a response ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ends {
    /// With the last frame, which says so.
    #[default]
    Known,
    /// The body does not know that its last frame is the last.
    Unknown,
    /// The body fails.
    Broken,
    /// There is no response but an error.
    Failed,
}

impl Answer {
    /// After that time, with an empty body.
    pub(crate) fn after(head: Duration) -> Self {
        Self { head, ..Self::default() }
    }

    /// At once, and with one frame after that time.
    pub(crate) fn streams(frame: Duration, ends: Ends) -> Self {
        Self { frames: vec![frame], ends, ..Self::default() }
    }

    pub(crate) fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(crate) fn refused(self) -> Self {
        Self { status: StatusCode::TOO_MANY_REQUESTS, ..self }
    }
}

/// The body of an answer. It counts as in flight, and no longer when it has ended.
#[derive(Debug)]
pub(crate) struct Slow {
    frames: VecDeque<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
    ends: Ends,
    busy: Vec<Arc<Busy>>,
}

/// In the extensions of a response: what its request counts as in flight, as long as its body has
/// not ended.
#[derive(Clone, Debug)]
pub(crate) struct Running(Vec<Weak<Busy>>);

impl Running {
    /// It goes on counting, as a call does.
    pub(crate) fn goes_on(&self) -> Vec<Arc<Busy>> {
        self.0.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Body for Slow {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(time) = self.frames.front() {
            let time = *time;
            let waits = self.sleep.get_or_insert_with(|| Box::pin(sleep(time)));
            ready!(waits.as_mut().poll(cx));
            self.sleep = None;
            self.frames.pop_front();
            if self.frames.is_empty() && self.ends == Ends::Known {
                self.busy.clear();
            }
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"7")))));
        }
        self.busy.clear();
        if self.ends == Ends::Broken {
            return Poll::Ready(Some(Err(io::Error::other("broken"))));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.ends == Ends::Known
    }
}

pub(crate) type Dialled = Answering<Slow>;

/// A server that answers each request as `answer` says, and counts it in those lines.
pub(crate) fn serve(
    log: &Log,
    answer: impl Fn(&Request<String>) -> (Answer, Vec<Lines>) + Clone + Send + 'static,
) -> Dialled {
    let log = log.clone();
    Dialled::new(service_fn(move |request: Request<String>| {
        let (answer, lines) = answer(&request);
        let Answer { head, frames, ends, status, fields } = answer;
        let is_refused = status == StatusCode::TOO_MANY_REQUESTS;
        let enter = |lines: &Lines| Arc::new(lines.enter());
        let busy: Vec<_> = if is_refused { vec![] } else { lines.iter().map(enter).collect() };
        log.add(request.uri().to_string(), status);
        async move {
            sleep(head).await;
            if ends == Ends::Failed {
                return Err(io::Error::other("no response").into());
            }
            let frames = frames.into();
            let mut response = Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(name, value);
            }
            let running = Running(busy.iter().map(Arc::downgrade).collect());
            let response = response.extension(running);
            Ok(response.body(Slow { frames, sleep: None, ends, busy }).unwrap())
        }
    }))
}

/// A server that answers all requests in one way.
pub(crate) fn answers(log: &Log, lines: &Lines, answer: Answer) -> Dialled {
    let lines = lines.clone();
    serve(log, move |_| (answer.clone(), vec![lines.clone()]))
}
