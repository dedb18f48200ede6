//! The body of a refusal, which is read before the response is handed on: a retry would drop it,
//! and over HTTP/1 a connection whose response was not read to its end is closed.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http::Response;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep};

use super::body::ResponseBody;

/// How much of a body is read.
const MOST: u64 = 64 * 1024;

/// What each frame counts at least, so that many small frames don't take much more memory.
const FRAME: u64 = 128;

/// How long the rest of a body is waited for.
const LONGEST: Duration = Duration::from_secs(1);

/// A refusal whose body is being read.
pub(super) struct Reading<B: Body> {
    parts: Parts,
    ahead: Box<Ahead<B>>,
    timeout: Option<Pin<Box<Sleep>>>,
}

/// A body of which the beginning has been read.
pub(super) struct Ahead<B: Body> {
    body: Pin<Box<B>>,
    /// What was read and not handed on yet.
    frames: VecDeque<Frame<B::Data>>,
    /// The bytes of data in the frames.
    bytes: u64,
    end: End<B::Error>,
}

/// What polling a body for its next frame returns.
type NextFrame<B> = Poll<Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>>;

enum End<E> {
    /// There may be more to read.
    Open,
    /// The body has failed after the frames.
    Failed(E),
    Ended,
}

impl<B: Body> Reading<B> {
    /// Whether a body is to be read: it is not empty, nor known to be too long.
    pub(super) fn suits(body: &B) -> bool {
        !body.is_end_stream() && body.size_hint().lower() <= MOST
    }

    pub(super) fn new(response: Response<B>) -> Self {
        let (parts, body) = response.into_parts();
        let ahead = Box::new(Ahead {
            body: Box::pin(body),
            frames: VecDeque::new(),
            bytes: 0,
            end: End::Open,
        });
        Self { parts, ahead, timeout: None }
    }

    /// Waits until the body has been read, or as much of it as is read at most.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.poll_read(cx).is_ready() {
            return Poll::Ready(());
        }
        // Nothing else on the way of a request that need not wait needs a runtime.
        if self.timeout.is_none() && Handle::try_current().is_err() {
            return Poll::Ready(());
        }
        self.timeout.get_or_insert_with(|| Box::pin(sleep(LONGEST))).as_mut().poll(cx)
    }

    pub(super) fn into_response(self) -> Response<ResponseBody<B>> {
        Response::from_parts(self.parts, ResponseBody::read_ahead(self.ahead))
    }
}

impl<B: Body> Ahead<B> {
    pub(super) fn get_ref(&self) -> &B {
        &self.body
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while matches!(self.end, End::Open) && self.weight() < MOST {
            match ready!(self.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => {
                    self.bytes += data_of(&frame);
                    self.frames.push_back(frame);
                    // A body that knows its end may not be polled again after it.
                    if self.body.is_end_stream() {
                        self.end = End::Ended;
                    }
                }
                Some(Err(error)) => self.end = End::Failed(error),
                None => self.end = End::Ended,
            }
        }
        Poll::Ready(())
    }

    fn weight(&self) -> u64 {
        self.bytes.max(FRAME * self.frames.len() as u64)
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> NextFrame<B> {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= data_of(&frame);
            return Poll::Ready(Some(Ok(frame)));
        }
        match &self.end {
            End::Open => self.body.as_mut().poll_frame(cx),
            End::Ended => Poll::Ready(None),
            End::Failed(_) => match mem::replace(&mut self.end, End::Ended) {
                End::Failed(error) => Poll::Ready(Some(Err(error))),
                _ => Poll::Ready(None),
            },
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
            && match self.end {
                End::Open => self.body.is_end_stream(),
                End::Failed(_) => false,
                End::Ended => true,
            }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let rest = match self.end {
            End::Open | End::Failed(_) => self.body.size_hint(),
            End::Ended => SizeHint::with_exact(0),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(self.bytes));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(self.bytes)) {
            hint.set_upper(upper);
        }
        hint
    }
}

fn data_of<D: Buf>(frame: &Frame<D>) -> u64 {
    frame.data_ref().map_or(0, |data| data.remaining() as u64)
}
