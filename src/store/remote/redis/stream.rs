//! Streams to servers: TCP, TLS and Unix sockets.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
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
                return Ok(Box::new(tls.connect(host, stream).await?));
            }
            Ok(Box::new(stream))
        }
        #[cfg(unix)]
        Place::Socket(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
        #[cfg(not(unix))]
        Place::Socket(_) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets"))
        }
    }
}
