//! A process's streams on the host's side.
//!
//! An [`Output`] ends when the pipe does. After the main process has ended it also ends when
//! nothing has come for a short time, or when that has gone on for long: what is just being written
//! by the rest of the tree is not lost, and a grandchild that holds the pipe, or fills it for ever,
//! must never hold the reader. The pipe itself is [drained](super::drain) until its last writer is
//! gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::time::Sleep;

use super::connection::Connection;
use super::outcome::{Progress, Waiter};
use crate::later::after;
use crate::sys::{pipe, watch};

/// Multiple of the grace that a stream that goes on may take after the end of the main process.
const PATIENCE: u32 = 10;
/// Capacity of a pipe, and with it what the main process may have written last: that much
/// is read however long it takes.
const PIPE: u64 = 1 << 20;

/// Standard output or error.
pub(crate) struct Output {
    pipe: Option<AsyncFd<OwnedFd>>,
    connection: Arc<Connection>,
    progress: Arc<Progress>,
    waiter: Waiter,
    /// Whether it is a terminal: the kernel says EIO when nothing has it open any more.
    terminal: bool,
    /// Once the main process has ended.
    ending: Option<Ending>,
}

/// The last part of a stream: what is read after the main process has ended.
struct Ending {
    grace: Duration,
    /// When reading stops even if more comes.
    last: Instant,
    /// Bytes read so far; `PIPE` once the pipe was seen empty.
    read: u64,
    /// Resolves when nothing has come for the grace.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Ending {
    fn new(grace: Duration) -> Self {
        Self {
            grace,
            last: after(grace.saturating_mul(PATIENCE)),
            read: 0,
            silence: None,
        }
    }

    /// Whether all that the main process wrote was read and the time is up.
    fn is_over(&self) -> bool {
        self.read >= PIPE && Instant::now() >= self.last
    }

    /// Whether the pipe, which is empty, has been so for the grace; if not, the task is woken then.
    fn is_silent(&mut self, connection: &Connection, context: &mut Context<'_>) -> bool {
        self.read = PIPE;
        let until = after(self.grace).min(self.last);
        let silence = self.silence.get_or_insert_with(|| {
            // The caller may poll it in a runtime without a clock.
            let _entered = connection.runtime.enter();
            Box::pin(tokio::time::sleep_until(until.into()))
        });
        silence.as_mut().poll(context).is_ready()
    }
}

impl Output {
    pub(super) fn new(
        pipe: OwnedFd,
        connection: Arc<Connection>,
        progress: Arc<Progress>,
        waiter: Waiter,
    ) -> io::Result<Self> {
        Ok(Self {
            pipe: Some(watch::watch(pipe, Interest::READABLE)?),
            connection,
            progress,
            waiter,
            terminal: false,
            ending: None,
        })
    }

    /// Marks the stream as what a terminal shows.
    pub(super) fn of_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// Ends the stream, and leaves the pipe to its writers.
    fn leave(&mut self) {
        // A terminal hangs up when it is closed.
        if let Some(pipe) = self.pipe.take()
            && !self.terminal
        {
            self.connection.drain(pipe);
        }
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
        while let Some(pipe) = &this.pipe {
            if this.ending.is_none() && this.progress.poll_ended(this.waiter, context) {
                this.ending = Some(Ending::new(this.connection.grace));
            }
            if this.ending.as_ref().is_some_and(Ending::is_over) {
                this.leave();
                break;
            }
            // Asked before the pipe is, so that nothing that comes in between goes unnoticed.
            let readiness = pipe.poll_read_ready(context)?;
            if readiness.is_pending() && this.ending.is_none() {
                return Poll::Pending;
            }
            // After the end also without readiness: the reactor may not know yet what is there.
            match pipe::read(pipe.get_ref().as_fd(), buffer, usize::MAX) {
                Ok(0) => this.pipe = None,
                Err(Errno::IO) if this.terminal => this.pipe = None,
                Ok(len) => {
                    if let Some(ending) = &mut this.ending {
                        ending.read = ending.read.saturating_add(len as u64);
                        ending.silence = None;
                    }
                    break;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => match (readiness, &mut this.ending) {
                    (Poll::Ready(mut ready), _) => ready.clear_ready(),
                    (Poll::Pending, Some(ending)) => {
                        if !ending.is_silent(&this.connection, context) {
                            return Poll::Pending;
                        }
                        this.leave();
                    }
                    (Poll::Pending, None) => return Poll::Pending,
                },
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Before the end it is the reader who has closed the stream, and the program's to notice.
        if self.progress.has_ended() {
            self.leave();
        }
    }
}

/// Standard input. Shutting it down or dropping it is the end of input.
pub(crate) struct StdinWriter {
    fd: Option<AsyncFd<OwnedFd>>,
}

impl StdinWriter {
    /// Writes to a pipe or terminal that does not block.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
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
