//! A process's streams on the host's side.
//!
//! An [`Output`] ends when the pipe does, or when the main process has ended and
//! what was in the pipe by then is read: a grandchild that holds the pipe, or
//! fills it for ever, must never hold the reader.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::outcome::{Progress, Waiter};
use crate::sys::{pipe, watch};

/// Standard output or error.
pub(crate) struct Output {
    fd: Option<AsyncFd<OwnedFd>>,
    shared: Arc<Progress>,
    waiter: Waiter,
    /// Bytes still to come once the process has ended.
    rest: Option<usize>,
}

impl Output {
    pub(super) fn new(fd: OwnedFd, shared: Arc<Progress>, waiter: Waiter) -> io::Result<Self> {
        let fd = Some(watch::watch(fd, Interest::READABLE)?);
        Ok(Self {
            fd,
            shared,
            waiter,
            rest: None,
        })
    }

    fn read(&mut self, context: &Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(fd) = &self.fd else {
            return Poll::Ready(Ok(()));
        };
        if self.rest.is_none() && self.shared.poll_ended(self.waiter, context) {
            let rest = rustix::io::ioctl_fionread(fd)?;
            self.rest = Some(usize::try_from(rest).unwrap_or(usize::MAX));
        }
        if let Some(rest) = self.rest {
            // No need to wait any more: what there is, is there now.
            return Poll::Ready(match pipe::read(fd.get_ref().as_fd(), buffer, rest) {
                Ok(0) | Err(Errno::AGAIN) => {
                    self.rest = Some(0);
                    Ok(())
                }
                Ok(len) => {
                    self.rest = Some(rest - len);
                    Ok(())
                }
                Err(errno) => Err(errno.into()),
            });
        }
        Poll::Pending
    }
}

impl AsyncRead for Output {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Poll::Ready(result) = this.read(context, buffer) {
                if this.rest == Some(0) {
                    this.fd = None;
                }
                return Poll::Ready(result);
            }
            let Some(fd) = &this.fd else {
                return Poll::Ready(Ok(()));
            };
            let mut guard = ready!(fd.poll_read_ready(context))?;
            match pipe::read(fd.get_ref().as_fd(), buffer, usize::MAX) {
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Ok(0) => {
                    this.fd = None;
                    return Poll::Ready(Ok(()));
                }
                Ok(_) => return Poll::Ready(Ok(())),
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

/// Standard input. Shutting it down or dropping it is the end of input.
pub(crate) struct StdinWriter {
    fd: Option<AsyncFd<OwnedFd>>,
}

impl StdinWriter {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            fd: Some(watch::watch(fd, Interest::WRITABLE)?),
        })
    }
}

impl AsyncWrite for StdinWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(fd) = &this.fd else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            let mut guard = ready!(fd.poll_write_ready(context))?;
            match pipe::write(fd.get_ref().as_fd(), bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().fd = None;
        Poll::Ready(Ok(()))
    }
}
