//! A bounded pipe in memory, with the end of file and the broken pipe of a real one.
//!
//! Invariant: no lock is held across an await; closing one end wakes the other.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Capacity of a pipe, as on Linux.
const CAPACITY: usize = 64 << 10;

#[derive(Default)]
struct State {
    buffer: VecDeque<u8>,
    writers_gone: bool,
    readers_gone: bool,
    /// Whether what is written is thrown away: the command whose output this was has ended.
    finished: bool,
    waiting: Vec<Waker>,
}

impl State {
    fn wake(&mut self) {
        for waker in self.waiting.drain(..) {
            waker.wake();
        }
    }
}

#[derive(Default)]
struct Shared(Mutex<State>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ReadEnd(Arc<Shared>);
struct WriteEnd(Arc<Shared>);

impl Drop for ReadEnd {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.readers_gone = true;
        state.wake();
    }
}

impl Drop for WriteEnd {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.writers_gone = true;
        state.wake();
    }
}

/// The reading end; clones share it.
#[derive(Clone)]
pub(crate) struct Reader(Arc<ReadEnd>);

/// The writing end; clones share it.
#[derive(Clone)]
pub(crate) struct Writer(Arc<WriteEnd>);

/// A new pipe.
pub(crate) fn pipe() -> (Reader, Writer) {
    let shared = Arc::<Shared>::default();
    (
        Reader(Arc::new(ReadEnd(shared.clone()))),
        Writer(Arc::new(WriteEnd(shared))),
    )
}

impl Writer {
    /// Ends the stream for the reader, even while other writers hold it: what they write is thrown away.
    pub(crate) fn finish(&self) {
        let mut state = self.0.0.lock();
        state.finished = true;
        state.writers_gone = true;
        state.wake();
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.0.lock();
        if state.buffer.is_empty() {
            if state.writers_gone {
                return Poll::Ready(Ok(()));
            }
            state.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        let (front, _) = state.buffer.as_slices();
        let count = front.len().min(buf.remaining());
        buf.put_slice(&front[..count]);
        state.buffer.drain(..count);
        state.wake();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.0.lock();
        if state.finished {
            return Poll::Ready(Ok(bytes.len()));
        }
        if state.readers_gone || state.writers_gone {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(CAPACITY - state.buffer.len());
        if count == 0 && !bytes.is_empty() {
            state.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        state.buffer.extend(&bytes[..count]);
        state.wake();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.0.lock();
        state.writers_gone = true;
        state.wake();
        Poll::Ready(Ok(()))
    }
}
