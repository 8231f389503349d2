//! An output pipe that ends soon after the main process, even if another process holds it.
//!
//! After the main process has ended the stream goes on until the pipe ends, until nothing comes for
//! a short grace, or for ten times that: what the rest of the tree is just writing is not lost. The
//! pipe is then read on and thrown away until its last writer is gone, so that a program in the
//! background does not die of what it prints. It must never lose what the main process wrote, and
//! never wait for a grandchild without a bound.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Sleep;

use crate::later::after;

/// Multiple of the grace that a stream that goes on may take after the end of the main process.
const PATIENCE: u32 = 10;
/// Capacity of a pipe, and with it what the main process may have written last: that much
/// is read however long it takes.
const PIPE: u64 = 1 << 20;
/// Time after each read of what is thrown away.
const PAUSE: Duration = Duration::from_millis(1);

/// Resolves when the main process has ended.
pub(super) type Ended = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// A pipe's reading end.
pub(super) trait Pipe: AsyncRead + Unpin + Send + Sync + 'static {}
impl<R: AsyncRead + Unpin + Send + Sync + 'static> Pipe for R {}

/// The reading end of a pipe to a command.
pub(super) struct Stream<R: Pipe> {
    pipe: Option<R>,
    state: State,
    grace: Duration,
}

enum State {
    /// The main process runs.
    Running(Ended),
    /// The main process has ended.
    Ending {
        last: Instant,
        read: u64,
        silence: Pin<Box<Sleep>>,
    },
}

impl<R: Pipe> Stream<R> {
    /// After the end the pipe is read until nothing comes for `grace`.
    pub(super) fn new(pipe: R, ended: Ended, grace: Duration) -> Self {
        Self {
            pipe: Some(pipe),
            state: State::Running(ended),
            grace,
        }
    }

    /// Whether the main process has ended, as far as is known without waiting.
    fn has_ended(&mut self) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match &mut self.state {
            State::Running(ended) => ended.as_mut().poll(&mut context).is_ready(),
            State::Ending { .. } => true,
        }
    }

    /// Ends the stream, and leaves the pipe to its writers.
    fn leave(&mut self) {
        if let (Some(pipe), Ok(runtime)) = (self.pipe.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(throw_away(pipe));
        }
    }
}

/// Reads to the end, a pipe's content at a time.
async fn throw_away(mut pipe: impl Pipe) {
    let mut buffer = vec![0; 64 << 10];
    while pipe.read(&mut buffer).await.is_ok_and(|read| read > 0) {
        tokio::time::sleep(PAUSE).await;
    }
}

impl<R: Pipe> AsyncRead for Stream<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let Some(pipe) = &mut this.pipe else {
                return Poll::Ready(Ok(()));
            };
            if let State::Ending { last, read, .. } = &this.state
                && *read >= PIPE
                && Instant::now() >= *last
            {
                this.leave();
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            if let Poll::Ready(result) = Pin::new(pipe).poll_read(cx, buf) {
                let came = buf.filled().len() - before;
                if came == 0 {
                    this.pipe = None;
                } else if let State::Ending {
                    read,
                    silence,
                    last,
                } = &mut this.state
                {
                    *read = read.saturating_add(came as u64);
                    silence.as_mut().reset(after(this.grace).min(*last).into());
                }
                return Poll::Ready(result);
            }
            match &mut this.state {
                State::Running(ended) => {
                    std::task::ready!(ended.as_mut().poll(cx));
                    this.state = State::Ending {
                        last: after(this.grace.saturating_mul(PATIENCE)),
                        read: 0,
                        silence: Box::pin(tokio::time::sleep(this.grace)),
                    };
                }
                State::Ending { silence, read, .. } => {
                    // It was seen empty: nothing of the main process's is in it any more.
                    *read = PIPE;
                    std::task::ready!(silence.as_mut().poll(cx));
                    this.leave();
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<R: Pipe> Drop for Stream<R> {
    fn drop(&mut self) {
        // Before the end it is the reader who has closed the stream, and the program's to notice.
        if self.pipe.is_some() && self.has_ended() {
            self.leave();
        }
    }
}
