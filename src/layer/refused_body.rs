//! What becomes of the body of a refused request.
//!
//! Below HTTP/2 a server that does not read a request's body has to close the connection after its
//! response. If the client is still sending by then, the connection is reset, and the client sees
//! that instead of the response. So the body is read, and dropped, before the response is sent.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Buf;
use http::header::EXPECT;
use http::{Request, Version};
use http_body::Body;
use pin_project_lite::pin_project;

/// A timer of the user's runtime. It ends when no more is to be read.
pub(super) type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

type MakeTimer = Arc<dyn Fn() -> Timer + Send + Sync>;

/// How much of the body of a refused request is read, and for how long.
#[derive(Clone)]
pub(super) struct Bounds {
    /// In bytes.
    pub(super) most: u64,
    pub(super) timer: Option<MakeTimer>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { most: 1 << 20, timer: None }
    }
}

impl fmt::Debug for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounds").field("most", &self.most).finish_non_exhaustive()
    }
}

/// What is to be done about the body before the refusal is sent.
pub(super) enum RefusedBody<B> {
    /// Nothing: it has ended, or the server drops it without harm to the connection.
    Ignored,
    /// It is not read, or not to its end. So the refusal says that the connection is closed.
    Left,
    Read(Pin<Box<Reading<B>>>),
}

impl<B: Body> RefusedBody<B> {
    /// Whether something is left of the body that the server can't drop without harm to the
    /// connection. HTTP/2 and HTTP/3 can end the upload alone (RFC 9113, section 8.1).
    #[inline]
    pub(super) fn is_unread(request: &Request<B>) -> bool {
        request.version() < Version::HTTP_2 && !request.body().is_end_stream()
    }

    #[inline(never)]
    pub(super) fn of(request: Request<B>, bounds: &Bounds) -> Self {
        // To read would ask the client to send what it has kept back (RFC 9110, section 10.1.1).
        // And of a body that is known to be too long, reading a part is of no use: the client gets
        // the response sooner without that.
        let is_too_long = || request.body().size_hint().lower() > bounds.most;
        if bounds.most == 0 || waits_for_continue(&request) || is_too_long() {
            return Self::Left;
        }
        let timer = bounds.timer.clone();
        let (body, left) = (request.into_body(), bounds.most);
        Self::Read(Box::pin(Reading { body, left, timer, end: None }))
    }

    /// Reads what is to be read. Returns whether the connection can be used again.
    #[inline]
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self {
            Self::Ignored => Poll::Ready(true),
            Self::Left => Poll::Ready(false),
            Self::Read(reading) => reading.as_mut().poll_end(cx),
        }
    }
}

pin_project! {
    pub(super) struct Reading<B> {
        #[pin]
        body: B,
        // The bytes that may still be read.
        left: u64,
        timer: Option<MakeTimer>,
        // There once the body had to be waited for.
        end: Option<Timer>,
    }
}

impl<B: Body> Reading<B> {
    #[cold]
    #[inline(never)]
    fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let mut this = self.project();
        while let Poll::Ready(frame) = this.body.as_mut().poll_frame(cx) {
            let frame = match frame {
                None => return Poll::Ready(true),
                Some(Err(_)) => return Poll::Ready(false),
                Some(Ok(frame)) => frame,
            };
            // At least 1, or else a body of empty frames only would be read for ever.
            let bytes = frame.data_ref().map_or(1, |data| data.remaining().max(1));
            match this.left.checked_sub(bytes as u64) {
                Some(left) => *this.left = left,
                None => return Poll::Ready(false),
            }
        }
        let Some(timer) = this.timer else { return Poll::Pending };
        this.end.get_or_insert_with(|| timer()).as_mut().poll(cx).map(|()| false)
    }
}

/// Whether the client sends the body only after the response `100 Continue`. In HTTP/1.0 there is
/// no such response, and the field is ignored.
fn waits_for_continue<B>(request: &Request<B>) -> bool {
    let is_continue = |it: &[u8]| it.trim_ascii().eq_ignore_ascii_case(b"100-continue");
    let mut values = request.headers().get_all(EXPECT).iter();
    request.version() > Version::HTTP_10
        && values.any(|value| value.as_bytes().split(|byte| *byte == b',').any(is_continue))
}
