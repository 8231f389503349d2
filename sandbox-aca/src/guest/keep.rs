//! Keeps a sandbox that nobody uses from being ended by the service, if the caller asked for that.
//!
//! It must never run anything in the guest, never resume or replace what has ended, and never
//! outlive its handle.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Operation, Result};
use tokio::task::AbortHandle;

use crate::guest::carrier::{Carrier, TOUCH};
use crate::guest::handle::Inner;

/// The task that keeps one sandbox; ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Keeper(AbortHandle);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Refuses what would ask without end.
pub(crate) fn check(every: Option<Duration>) -> Result<()> {
    match every {
        Some(Duration::ZERO) => Err(Error::new(ErrorKind::InvalidInput, Operation::Connect)
            .with_message("keep_alive must be more than zero")
            .with_hint("a third of the time after which the service ends what is idle")),
        _ => Ok(()),
    }
}

impl<C: Carrier> Inner<C> {
    /// From now on the sandbox is touched when nobody has used it for so long.
    pub(crate) fn keep(self: &Arc<Self>, every: Option<Duration>) {
        if let Some(every) = every {
            let task = tokio::spawn(keep(Arc::downgrade(self), every));
            // A handle is kept once, by the one that made it.
            let _ = self.keeper.set(Keeper(task.abort_handle()));
        }
    }

    /// Waits for a touch that is under way, as long as it may take: a late one would bring the
    /// service's next sandbox to life.
    pub(crate) async fn untouched(&self) {
        // Two requests at most.
        let _ = tokio::time::timeout(2 * TOUCH, self.touching.lock()).await;
    }
}

/// Touches until the sandbox has no handle, is closed, or is gone.
async fn keep<C: Carrier>(of: Weak<Inner<C>>, every: Duration) {
    loop {
        let Some(idle) = of.upgrade().map(|inner| inner.idle()) else {
            return;
        };
        let left = every.saturating_sub(idle);
        if !left.is_zero() {
            tokio::time::sleep(left).await;
            continue;
        }
        let Some(inner) = of.upgrade() else { return };
        let _touching = inner.touching.lock().await;
        if inner.closing.load(Ordering::Acquire) {
            return;
        }
        inner.used();
        match inner.http.touch(inner.id.as_str()).await {
            Ok(()) => {}
            // It is gone; whoever uses it next is told.
            Err(failure) if failure.status == Some(404) && !failure.is_of_group() => return,
            Err(failure) => tracing::debug!(status = ?failure.status, "a touch did not succeed"),
        }
    }
}
