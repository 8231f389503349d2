//! A connection to a port of a sandbox: a stream of bytes to what listens in it.
//!
//! A connection must never need a network of the sandbox: it is made from outside.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

trait Duplex: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> Duplex for T {}

/// A connection to a port of a sandbox: an [`AsyncRead`] and [`AsyncWrite`], from
/// [`connect_port`](crate::Sandbox::connect_port).
///
/// Shutting it down ends what the server reads; dropping it closes the connection.
pub struct PortStream {
    stream: Pin<Box<dyn Duplex + Send + Sync>>,
    /// Dropped last.
    pub(crate) alive: Vec<Arc<dyn Any + Send + Sync>>,
}

impl PortStream {
    /// Wraps a backend's connection.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Sync + 'static) -> Self {
        Self {
            stream: Box::pin(stream),
            alive: Vec::new(),
        }
    }
}

impl AsyncRead for PortStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}

impl fmt::Debug for PortStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PortStream")
    }
}
