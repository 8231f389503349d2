//! One output stream of a process, kept until its client confirms it.
//!
//! Invariant: at most a window of bytes is kept; beyond it the program is held up. A byte is
//! dropped only when a client asks for what comes after it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;

use crate::wire::{WINDOW, frame};

/// Interval at which a connection without output says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// When a stream is given a new connection, which some proxies ask for.
const LONGEST: Duration = Duration::from_secs(120);

/// Form in which the failure of a stream is told: a problem in JSON.
pub(super) type Failed = fn(std::io::Error) -> Bytes;

/// The kept part of a stream.
#[derive(Debug)]
pub(super) struct Pipe {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The offset of the first byte that is kept.
    start: u64,
    kept: VecDeque<Bytes>,
    length: usize,
    ended: bool,
    /// Failure that the stream ended with instead of its end.
    failed: Option<Bytes>,
    /// The reader that asked last.
    reader: u64,
}

/// An offset that was never sent, or was confirmed.
#[derive(Debug)]
pub(super) struct WrongOffset {
    pub(super) kept: (u64, u64),
}

enum Next {
    Data(Bytes),
    End,
    /// With the problem as JSON.
    Failed(Bytes),
    Wait,
    /// Another reader has taken over.
    Over,
}

impl Pipe {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a program's stream as long as there is room. A failure is its end, unless `failed` says
    /// how it is told.
    pub(super) async fn fill(
        self: Arc<Self>,
        mut from: impl AsyncRead + Unpin,
        failed: Option<Failed>,
    ) {
        let mut changed = self.changed.subscribe();
        let mut buffer = BytesMut::new();
        loop {
            let room = WINDOW.saturating_sub(self.state().length);
            if room == 0 {
                // The sender is this pipe's own.
                let _ = changed.changed().await;
                continue;
            }
            buffer.reserve(room.min(64 << 10));
            let mut window = (&mut from).take(room.min(64 << 10) as u64);
            match window.read_buf(&mut buffer).await {
                Ok(0) => break,
                Err(error) => {
                    self.state().failed = failed.map(|told| told(error));
                    break;
                }
                Ok(_) => {}
            }
            let bytes = buffer.split().freeze();
            let mut state = self.state();
            state.length += bytes.len();
            state.kept.push_back(bytes);
            drop(state);
            self.changed.send_replace(());
        }
        self.state().ended = true;
        self.changed.send_replace(());
    }

    /// Ends the answers that carry it.
    pub(super) fn close(&self) {
        self.state().reader += 1;
        self.changed.send_replace(());
    }

    /// Drops what comes before an offset, and becomes the stream's reader.
    fn take_over(&self, from: u64) -> Result<u64, WrongOffset> {
        let mut state = self.state();
        let end = state.start + state.length as u64;
        if from < state.start || from > end {
            return Err(WrongOffset {
                kept: (state.start, end),
            });
        }
        while let Some(first) = state.kept.pop_front() {
            let length = first.len() as u64;
            if state.start + length <= from {
                state.start += length;
                state.length -= first.len();
                continue;
            }
            let cut = usize::try_from(from - state.start).unwrap_or(usize::MAX);
            let rest = first.slice(cut.min(first.len())..);
            state.length -= first.len() - rest.len();
            state.start = from;
            if !rest.is_empty() {
                state.kept.push_front(rest);
            }
            break;
        }
        state.reader += 1;
        let reader = state.reader;
        drop(state);
        self.changed.send_replace(());
        Ok(reader)
    }

    fn next(&self, at: u64, reader: u64) -> Next {
        let state = self.state();
        if state.reader != reader {
            return Next::Over;
        }
        let mut offset = state.start;
        for bytes in &state.kept {
            let end = offset + bytes.len() as u64;
            if at < end {
                let skip = usize::try_from(at - offset).unwrap_or(usize::MAX);
                return Next::Data(bytes.slice(skip.min(bytes.len())..));
            }
            offset = end;
        }
        match (state.ended, &state.failed) {
            (false, _) => Next::Wait,
            (true, None) => Next::End,
            (true, Some(problem)) => Next::Failed(problem.clone()),
        }
    }

    /// The frames from an offset on, for one answer, which holds the process until it ends.
    pub(super) fn frames<H: Send>(
        self: &Arc<Self>,
        from: u64,
        held: H,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<H>, WrongOffset> {
        let reader = self.take_over(from)?;
        let answer = Answer {
            pipe: Arc::clone(self),
            changed: self.changed.subscribe(),
            at: from,
            until: from + WINDOW as u64,
            reader,
            since: Instant::now(),
            _held: held,
        };
        Ok(futures_util::stream::unfold(Some(answer), |answer| async {
            let mut answer = answer?;
            let (bytes, more) = answer.next().await;
            Some((Ok(bytes), more.then_some(answer)))
        }))
    }
}

/// One answer that carries a part of a stream.
struct Answer<H> {
    pipe: Arc<Pipe>,
    changed: watch::Receiver<()>,
    at: u64,
    until: u64,
    reader: u64,
    since: Instant,
    _held: H,
}

impl<H> Answer<H> {
    /// The next frame, and whether another follows.
    async fn next(&mut self) -> (Bytes, bool) {
        let empty = |kind| Bytes::copy_from_slice(&frame::head(kind, 0));
        loop {
            self.changed.mark_unchanged();
            if self.at >= self.until || self.since.elapsed() > LONGEST {
                return (empty(frame::MORE), false);
            }
            match self.pipe.next(self.at, self.reader) {
                Next::Data(data) => {
                    let mut bytes = BytesMut::with_capacity(frame::HEAD + data.len());
                    bytes.extend_from_slice(&frame::head(frame::DATA, data.len()));
                    bytes.extend_from_slice(&data);
                    self.at += data.len() as u64;
                    return (bytes.freeze(), true);
                }
                Next::End => return (empty(frame::END), false),
                Next::Failed(problem) => {
                    let mut bytes = BytesMut::from(&frame::head(frame::ERROR, problem.len())[..]);
                    bytes.extend_from_slice(&problem);
                    return (bytes.freeze(), false);
                }
                Next::Over => return (empty(frame::MORE), false),
                Next::Wait => {
                    let changed = tokio::time::timeout(HEARTBEAT, self.changed.changed()).await;
                    if changed.is_err() {
                        return (empty(frame::HEARTBEAT), true);
                    }
                }
            }
        }
    }
}
