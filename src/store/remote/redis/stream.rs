//! Streams to servers: TCP, TLS and Unix sockets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::address::{Address, Place};
#[cfg(feature = "redis-tls")]
use super::tls::Tls;

/// A connected stream.
pub(super) type Stream = Box<dyn Duplex>;

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// Connects to the address. It does not time out.
pub(super) async fn open(
    address: &Address,
    #[cfg(feature = "redis-tls")] tls: &Tls,
) -> io::Result<Stream> {
    match &address.place {
        Place::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            // Nagle's algorithm would delay a call until the server has acknowledged the calls
            // before it.
            stream.set_nodelay(true)?;
            #[cfg(feature = "redis-tls")]
            if address.tls {
                return Ok(Box::new(Attentive::new(tls.connect(host, stream).await?)));
            }
            Ok(Box::new(Attentive::new(stream)))
        }
        #[cfg(unix)]
        Place::Socket(path) => {
            let stream = tokio::net::UnixStream::connect(path).await?;
            Ok(Box::new(Attentive::new(stream)))
        }
        #[cfg(not(unix))]
        Place::Socket(_) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets"))
        }
    }
}

/// A stream on which the error of a server that closes the connection is read.
///
/// A server that turns a client away, for example because it has too many, says so without being
/// asked and closes the connection. The client library drops an answer to no command, and fails a
/// command that it can't write. So nothing is read before the first write, and a write to a
/// connection that the server has closed succeeds: the next read tells.
struct Attentive<S> {
    stream: S,
    has_written: bool,
    reader: Option<Waker>,
}

impl<S> Attentive<S> {
    fn new(stream: S) -> Self {
        Self { stream, has_written: false, reader: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Attentive<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.has_written {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Attentive<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.has_written = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Ready(Err(error)) if is_closed(&error) => Poll::Ready(Ok(buf.len())),
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(error)) if is_closed(&error) => Poll::Ready(Ok(())),
            flushed => flushed,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
