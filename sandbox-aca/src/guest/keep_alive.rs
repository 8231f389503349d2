//! Keeps an idle sandbox from being ended by the service, if the caller asked for that.
//!
//! It must never run anything in the guest, never resume or replace what has ended, and never
//! outlive its handle.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Operation, Result};

use crate::guest::handle::{Guest, KeepAlive};
use crate::guest::transport::{TOUCH, Transport};

/// Refuses what would ask without end.
pub(crate) fn check(every: Option<Duration>) -> Result<()> {
    match every {
        Some(Duration::ZERO) => Err(Error::new(ErrorKind::InvalidInput, Operation::Connect)
            .with_message("keep_alive must be more than zero")
            .with_hint("a third of the time after which the service ends what is idle")),
        _ => Ok(()),
    }
}

impl<T: Transport> Guest<T> {
    /// Touches the sandbox from now on when it was idle for so long.
    pub(crate) fn keep(self: &Arc<Self>, every: Option<Duration>) {
        if let Some(every) = every {
            let task = tokio::spawn(keep(Arc::downgrade(self), every));
            // A handle is kept once, by the one that made it.
            let _ = self.keep_alive.set(KeepAlive::new(task.abort_handle()));
        }
    }

    /// Waits for a touch that is under way, as long as it may take: a late one would bring the
    /// service's next sandbox to life.
    pub(crate) async fn touched_last(&self) {
        // Two requests at most.
        let _ = tokio::time::timeout(2 * TOUCH, self.touching.lock()).await;
    }
}

/// Touches until the sandbox has no handle, is closed, or is gone.
async fn keep<T: Transport>(of: Weak<Guest<T>>, every: Duration) {
    loop {
        let Some(idle) = of.upgrade().map(|guest| guest.idle()) else {
            return;
        };
        let left = every.saturating_sub(idle);
        if !left.is_zero() {
            tokio::time::sleep(left).await;
            continue;
        }
        let Some(guest) = of.upgrade() else { return };
        let _touching = guest.touching.lock().await;
        if guest.closing.load(Ordering::Acquire) {
            return;
        }
        guest.used();
        match guest.transport.touch(guest.id.as_str()).await {
            Ok(()) => {}
            // It is gone, as its next use will show.
            Err(failure) if failure.status == Some(404) && !failure.is_of_group() => return,
            Err(failure) => tracing::debug!(status = ?failure.status, "a touch did not succeed"),
        }
    }
}
