//! One process's progress: what the agent has said about it so far, and which tasks wait for more.
//!
//! Waiting must end when the sandbox does: every path that loses the agent goes through
//! [`Progress::lost`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::error::{ExitError, Failure, Lost, SpawnError};
use crate::protocol::Message;

/// End of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Exit code, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// Processor time in user mode, descendants it waited for included.
    pub(crate) user: Duration,
    /// Processor time in the kernel.
    pub(crate) system: Duration,
    /// Largest resident set, in KiB.
    pub(crate) peak_kib: u64,
}

impl Exit {
    fn new(message: &Message) -> Self {
        let status = message.a as i32;
        let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
        Self {
            code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
            signal,
            user: Duration::from_micros(message.b),
            system: Duration::from_micros(message.c),
            peak_kib: message.d,
        }
    }
}

/// The end of a process, as far as it is known.
pub(super) type Outcome = Result<Exit, ExitError>;

/// Waiter for news of a process.
#[derive(Clone, Copy)]
pub(super) enum Waiter {
    Start,
    Stdout,
    Stderr,
    Exit,
}

#[derive(Default)]
pub(super) struct State {
    started: bool,
    pub(super) outcome: Option<Outcome>,
    wakers: [Option<Waker>; 4],
}

/// Progress that the dispatcher and the waiters share.
#[derive(Default)]
pub(super) struct Progress {
    /// `state.outcome` is set: spares the readers the lock.
    ended: AtomicBool,
    state: Mutex<State>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, change: impl FnOnce(&mut State)) {
        let wakers = {
            let mut state = self.lock();
            change(&mut state);
            self.ended.store(state.outcome.is_some(), Ordering::Release);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    pub(super) fn started(&self) {
        self.wake(|state| state.started = true);
    }

    pub(super) fn exited(&self, message: &Message) {
        self.finish(Ok(Exit::new(message)));
    }

    pub(super) fn failed(&self, message: &Message) {
        self.finish(Err(Failure::new(message.a, message.b).into()));
    }

    pub(super) fn lost(&self, why: Lost) {
        self.finish(Err(why.into()));
    }

    fn finish(&self, outcome: Outcome) {
        self.wake(|state| {
            state.outcome.get_or_insert(outcome);
        });
    }

    /// End of the process, if it has come.
    #[cfg(test)]
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.lock().outcome
    }

    /// Whether the process has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether the process has ended; if not, `waiter` is woken when it does.
    pub(super) fn poll_ended(&self, waiter: Waiter, context: &Context<'_>) -> bool {
        if self.has_ended() {
            return true;
        }
        self.poll(waiter, context, |state| state.outcome.map(drop))
            .is_ready()
    }

    pub(super) fn poll<T>(
        &self,
        waiter: Waiter,
        context: &Context<'_>,
        look: impl FnOnce(&State) -> Option<T>,
    ) -> Poll<T> {
        let mut state = self.lock();
        if let Some(found) = look(&state) {
            return Poll::Ready(found);
        }
        if let Some(place) = state.wakers.get_mut(waiter as usize) {
            match place {
                Some(waker) if waker.will_wake(context.waker()) => {}
                _ => *place = Some(context.waker().clone()),
            }
        }
        Poll::Pending
    }

    /// Waits until the program runs.
    pub(super) async fn confirmed(&self) -> Result<(), SpawnError> {
        std::future::poll_fn(|context| {
            self.poll(Waiter::Start, context, |state| match state.outcome {
                // It may have ended before the first look.
                _ if state.started => Some(Ok(())),
                Some(Ok(_)) => Some(Ok(())),
                Some(Err(ExitError::NotStarted(failure))) => Some(Err(failure.into())),
                Some(Err(ExitError::Lost(lost))) => Some(Err(SpawnError::Unconfirmed(lost))),
                None => None,
            })
        })
        .await
    }
}
