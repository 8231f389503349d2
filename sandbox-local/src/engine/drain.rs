//! Pipes that outlive their command: read on and thrown away until their last writer is gone.
//!
//! A program in the background that logs must not die of its first line after the command that
//! started it. The work must stay bounded whatever a guest writes: one round at a time for each
//! sandbox, at most [`ROUND`] bytes and followed by a pause, and at most [`MOST`] pipes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::connection::Connection;
use crate::sys::watch;

/// Bytes of one round: what a pipe holds.
const ROUND: usize = 64 << 10;
/// Time after a round in which the sandbox gets no other.
const PAUSE: Duration = Duration::from_millis(1);
/// Pipes of one sandbox. Beyond that the oldest is closed, and its next writer gets SIGPIPE.
const MOST: usize = 256;

/// Result of a round.
#[derive(PartialEq, Eq)]
enum Round {
    Open,
    Ended,
}

impl Connection {
    /// Reads `pipe` on, in the background, and throws away what comes.
    pub(super) fn drain(self: &Arc<Self>, pipe: AsyncFd<OwnedFd>) {
        // Out of the reactor of the caller's runtime, which may end before the sandbox's.
        let pipe = pipe.into_inner();
        if throw_away(pipe.as_fd()) == Round::Ended {
            return;
        }
        let mut state = self.lock();
        if state.lost.is_some() {
            return;
        }
        state.draining.retain(|task| !task.is_finished());
        let turn = state.drained.clone();
        let task = self.runtime.spawn(async move {
            let Ok(pipe) = watch::watch(pipe, Interest::READABLE) else {
                return;
            };
            while let Ok(mut ready) = pipe.readable().await {
                let _turn = turn.lock().await;
                ready.clear_ready();
                if throw_away(pipe.get_ref().as_fd()) == Round::Ended {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        state.draining.push_back(task.abort_handle());
        if state.draining.len() > MOST
            && let Some(oldest) = state.draining.pop_front()
        {
            oldest.abort();
        }
    }
}

/// Reads at most [`ROUND`] bytes.
fn throw_away(pipe: BorrowedFd<'_>) -> Round {
    let mut buffer = [0; 8 << 10];
    for _ in 0..ROUND / buffer.len() {
        match rustix::io::read(pipe, &mut buffer) {
            Ok(0) => return Round::Ended,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Round::Open,
            Err(_) => return Round::Ended,
        }
    }
    Round::Open
}
