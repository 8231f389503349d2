//! An output pipe that ends with the main process, whoever else holds it.
//!
//! It must never lose what the main process wrote, and never wait for a grandchild.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Resolves when the main process has ended.
pub(super) type Ended = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// The reading end of a pipe to a command.
pub(super) struct Stream<R> {
    pipe: R,
    ended: Option<Ended>,
    rest: imp::Rest,
}

impl<R> Stream<R> {
    pub(super) fn new(pipe: R, ended: Ended) -> Self {
        Self {
            pipe,
            ended: Some(ended),
            rest: imp::Rest::default(),
        }
    }
}

impl<R: imp::Pipe> AsyncRead for Stream<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(ended) = &mut this.ended {
            if let Poll::Ready(read) = Pin::new(&mut this.pipe).poll_read(cx, buf) {
                return Poll::Ready(read);
            }
            ready!(ended.as_mut().poll(cx));
            this.ended = None;
        }
        this.rest.poll_read(&mut this.pipe, cx, buf)
    }
}

#[cfg(unix)]
mod imp {
    use std::os::fd::AsFd;

    use super::*;

    pub(super) trait Pipe: AsyncRead + AsFd + Unpin {}
    impl<R: AsyncRead + AsFd + Unpin> Pipe for R {}

    /// How much is still to be read after the main process has ended: what is in the pipe then.
    #[derive(Default)]
    pub(super) struct Rest(Option<u64>);

    impl Rest {
        pub(super) fn poll_read<R: Pipe>(
            &mut self,
            pipe: &mut R,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let left = match self.0 {
                Some(left) => left,
                None => rustix::io::ioctl_fionread(&*pipe)?,
            };
            let room = buf
                .remaining()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            // The runtime may not know yet that there is something, so ask the pipe itself. It
            // does not block.
            let window = &mut buf.initialize_unfilled()[..room];
            let read = match rustix::io::retry_on_intr(|| rustix::io::read(&*pipe, &mut *window)) {
                Ok(read) => read,
                Err(rustix::io::Errno::AGAIN) => 0,
                Err(e) => return Poll::Ready(Err(e.into())),
            };
            buf.advance(read);
            self.0 = Some(if read == 0 { 0 } else { left - read as u64 });
            Poll::Ready(Ok(()))
        }
    }
}

#[cfg(not(unix))]
mod imp {
    use std::time::Duration;

    use super::*;

    pub(super) trait Pipe: AsyncRead + Unpin {}
    impl<R: AsyncRead + Unpin> Pipe for R {}

    /// Nothing says how much is in the pipe, so silence of this length is taken for the end.
    const SILENCE: Duration = Duration::from_millis(100);

    /// The time until silence is taken for the end.
    #[derive(Default)]
    pub(super) struct Rest(Option<Pin<Box<tokio::time::Sleep>>>);

    impl Rest {
        pub(super) fn poll_read<R: Pipe>(
            &mut self,
            pipe: &mut R,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Poll::Ready(read) = Pin::new(pipe).poll_read(cx, buf) {
                return Poll::Ready(read);
            }
            let sleep = self
                .0
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(SILENCE)));
            ready!(sleep.as_mut().poll(cx));
            Poll::Ready(Ok(()))
        }
    }
}
