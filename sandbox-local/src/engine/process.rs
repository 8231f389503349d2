//! One process: what the agent has said about it so far, and who waits for it.
//! Waiting must end when the sandbox does: every path that loses the agent goes
//! through [`Shared::finish`].

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::client::{Inner, Killed};
use super::error::{ExitError, Failure, Lost, SpawnError};
use super::stream::{Output, StdinWriter};
use crate::protocol::Message;

/// How a process ended.
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
type Outcome = Result<Exit, ExitError>;

/// Who waits for news of a process.
#[derive(Clone, Copy)]
pub(super) enum Waiter {
    Start,
    Stdout,
    Stderr,
    Exit,
}

#[derive(Default)]
struct State {
    started: bool,
    outcome: Option<Outcome>,
    wakers: [Option<Waker>; 4],
}

/// What the dispatcher and the waiters share.
#[derive(Default)]
pub(super) struct Shared {
    /// `state.outcome` is set: spares the readers the lock.
    ended: AtomicBool,
    state: Mutex<State>,
}

impl Shared {
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

    pub(super) fn lost(&self) {
        self.finish(Err(Lost.into()));
    }

    fn finish(&self, outcome: Outcome) {
        self.wake(|state| {
            state.outcome.get_or_insert(outcome);
        });
    }

    /// Whether the process has ended; if not, `waiter` is woken when it does.
    pub(super) fn poll_ended(&self, waiter: Waiter, context: &Context<'_>) -> bool {
        if self.ended.load(Ordering::Acquire) {
            return true;
        }
        self.poll(waiter, context, |state| state.outcome.map(drop))
            .is_ready()
    }

    fn poll<T>(
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
                // It may have ended before anybody looked.
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

/// Resolves when the main process has ended. May be polled again afterwards.
pub(crate) struct ExitFuture {
    pub(super) shared: Arc<Shared>,
}

impl ExitFuture {
    /// To ask whether it has resolved or would.
    pub(crate) fn watch(&self) -> Ended {
        Ended(self.shared.clone())
    }
}

/// Whether a main process has ended.
pub(crate) struct Ended(Arc<Shared>);

impl Ended {
    /// Whether the end is known.
    pub(crate) fn is_known(&self) -> bool {
        self.0.ended.load(Ordering::Acquire)
    }
}

impl Future for ExitFuture {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        self.shared
            .poll(Waiter::Exit, context, |state| state.outcome)
    }
}

/// The main process and everything that descends from it.
///
/// Dropping it kills nothing; but only while it is held can the tree be killed
/// or signalled.
pub(crate) struct Tree {
    pub(super) inner: Arc<Inner>,
    pub(super) id: u64,
}

impl Tree {
    /// The engine's number for it, never used twice in a sandbox.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Signals the main process, if it has not ended.
    pub(crate) async fn signal(&self, signal: i32) -> Result<(), Lost> {
        self.inner.signal(self.id, signal).await
    }

    /// Kills everything and waits until it is gone.
    pub(crate) async fn kill(&self) -> Result<Killed, Lost> {
        self.inner.kill_tree(self.id).await
    }

    /// Has everything killed, without waiting.
    pub(crate) fn kill_detached(&self) {
        self.inner.kill_tree_detached(self.id);
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.inner.forget(self.id);
    }
}

/// A process that was started.
pub(crate) struct Running {
    /// The process and its descendants.
    pub(crate) tree: Tree,
    /// Standard input, if it was asked for.
    pub(crate) stdin: Option<StdinWriter>,
    /// Standard output.
    pub(crate) stdout: Output,
    /// Standard error.
    pub(crate) stderr: Output,
    /// The end of the main process.
    pub(crate) exit: ExitFuture,
}
