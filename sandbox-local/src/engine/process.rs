//! The handles of one process: its tree, its end and its streams.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::connection::{Connection, Killed};
use super::error::Lost;
use super::outcome::{Outcome, Progress, Waiter};
use super::stream::{Output, StdinWriter};

/// Resolves when the main process has ended. May be polled again afterwards.
pub(crate) struct ExitFuture {
    pub(super) shared: Arc<Progress>,
}

impl ExitFuture {
    /// To ask whether it has resolved or would.
    pub(crate) fn watch(&self) -> Ended {
        Ended(self.shared.clone())
    }
}

/// Whether a main process has ended.
pub(crate) struct Ended(Arc<Progress>);

impl Ended {
    /// Whether the end is known.
    pub(crate) fn is_known(&self) -> bool {
        self.0.has_ended()
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
    pub(super) inner: Arc<Connection>,
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

    /// Asks for the kill of everything, without waiting.
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
    /// Standard error; `None` with a terminal.
    pub(crate) stderr: Option<Output>,
    /// The host's end of the terminal.
    pub(crate) terminal: Option<OwnedFd>,
    /// The end of the main process.
    pub(crate) exit: ExitFuture,
}
