//! Hearing an agent: one task per sandbox passes replies on to who waits.
//!
//! When the agent is gone, every waiter must hear of it at once; the task
//! sees to it, however it ends, and reaps the agent.

use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::Interest;

use super::connection::Connection;
use super::error::Lost;
use super::wire;
use crate::sys::watch;

/// Pauses between looks at an agent that is dying and can't be watched.
const UNWATCHED: Duration = Duration::from_millis(5);

/// The task's hold on the sandbox: however the task ends, also by its runtime's
/// end, no waiter is left.
pub(super) struct Listener {
    inner: Arc<Connection>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.inner.kill();
        self.inner.lose(Lost::RuntimeEnded);
        if !*self.inner.reaped.borrow() {
            reap_later(&self.inner);
        }
    }
}

impl Listener {
    /// To be made before the task is: a task may be dropped without ever running.
    pub(super) fn new(inner: Arc<Connection>) -> Self {
        Self { inner }
    }

    /// Listens until the agent is gone, then reaps it.
    pub(super) async fn listen(self) {
        let inner = &self.inner;
        'listen: while let Ok(mut guard) = inner.socket.readable().await {
            loop {
                match wire::receive(inner.socket.get_ref().as_fd()) {
                    Ok(Some((message, fd))) => inner.dispatch(&message, fd),
                    Err(Errno::AGAIN) => {
                        guard.clear_ready();
                        break;
                    }
                    Err(Errno::INTR) => {}
                    // Gone, or not making sense, which is as good as gone.
                    Ok(None) | Err(_) => break 'listen,
                }
            }
        }
        inner.kill();
        inner.lose(Lost::Ended);
        ended(inner).await;
    }
}

/// Waits until the agent has ended, and reaps it.
pub(super) async fn ended(inner: &Connection) -> bool {
    let pidfd = inner.process.pidfd.try_clone();
    let watched = pidfd.and_then(|pidfd| watch::watch(pidfd, Interest::READABLE));
    let ended = match watched {
        Ok(watched) => watched.readable().await.is_ok() && inner.reap(),
        // This process may open no more files, and may close sandboxes for that very reason.
        Err(_) => {
            while !inner.reap() {
                tokio::time::sleep(UNWATCHED).await;
            }
            true
        }
    };
    if ended {
        inner.reaped.send_replace(true);
    }
    ended
}

/// Agents whose runtime went away before they had ended.
static ORPHANS: Mutex<Vec<Arc<Connection>>> = Mutex::new(Vec::new());

/// Keeps `inner` until it can be reaped.
fn reap_later(inner: &Arc<Connection>) {
    let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
    orphans.push(inner.clone());
    drop(orphans);
    reap_orphans();
}

/// Reaps what can be reaped by now.
pub(super) fn reap_orphans() {
    let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
    orphans.retain(|orphan| {
        let reaped = *orphan.reaped.borrow() || orphan.reap();
        if reaped {
            orphan.reaped.send_replace(true);
        }
        !reaped
    });
}
