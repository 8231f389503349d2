//! Hearing an agent: one task per sandbox passes replies on to who waits.
//!
//! When the agent is gone, everybody who waits must hear of it at once; the task
//! sees to it, however it ends, and reaps the agent.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};
use tokio::io::Interest;

use super::client::Inner;
use super::wire;
use crate::protocol::{Message, reply};
use crate::sys::watch;

impl Inner {
    fn dispatch(&self, message: &Message) {
        let mut state = self.lock();
        match message.kind {
            reply::STARTED => {
                let exec = state.execs.get(&message.exec).cloned();
                drop(state);
                if let Some(exec) = exec {
                    exec.started();
                }
            }
            reply::EXITED | reply::FAILED => {
                let exec = state.execs.remove(&message.exec);
                drop(state);
                if let Some(exec) = exec {
                    if message.kind == reply::EXITED {
                        exec.exited(message);
                    } else {
                        exec.failed(message);
                    }
                }
            }
            reply::TREE_KILLED => {
                for waiter in state.kills.remove(&message.exec).unwrap_or_default() {
                    let _ = waiter.send(*message);
                }
            }
            _ => {
                if let Some(waiter) = state.answers.remove(&message.a) {
                    let _ = waiter.send(*message);
                }
            }
        }
    }

    /// Tells everybody who waits that the agent is gone.
    pub(super) fn lose(&self) {
        let mut state = self.lock();
        state.lost = true;
        let execs = std::mem::take(&mut state.execs);
        // Dropping the senders is the message.
        state.kills.clear();
        state.answers.clear();
        drop(state);
        execs.into_values().for_each(|exec| exec.lost());
    }

    /// Reaps the agent if it has ended.
    fn reap(&self) -> bool {
        let pidfd = WaitId::PidFd(self.process.pidfd.as_fd());
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        // An error means that somebody else reaped it.
        !matches!(
            rustix::process::waitid(pidfd, options),
            Ok(None) | Err(Errno::INTR)
        )
    }
}

/// The task's hold on the sandbox: however the task ends, also by its runtime's
/// end, nobody is left waiting.
pub(super) struct Listener {
    inner: Arc<Inner>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.inner.kill();
        self.inner.lose();
        if !*self.inner.reaped.borrow() {
            reap_later(&self.inner);
        }
    }
}

impl Listener {
    /// To be made before the task is: a task may be dropped without ever running.
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Listens until the agent is gone, then reaps it.
    pub(super) async fn listen(self) {
        let inner = &self.inner;
        'listen: while let Ok(mut guard) = inner.socket.readable().await {
            loop {
                match wire::receive(inner.socket.get_ref().as_fd()) {
                    Ok(Some(message)) => inner.dispatch(&message),
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
        inner.lose();
        ended(inner).await;
    }
}

/// Waits until the agent has ended, and reaps it.
pub(super) async fn ended(inner: &Inner) -> bool {
    let Ok(watched) = inner.process.pidfd.try_clone() else {
        return false;
    };
    let ended = match watch::watch(watched, Interest::READABLE) {
        Ok(watched) => watched.readable().await.is_ok() && inner.reap(),
        Err(_) => false,
    };
    if ended {
        inner.reaped.send_replace(true);
    }
    ended
}

/// Agents whose runtime went away before they had ended.
static ORPHANS: Mutex<Vec<Arc<Inner>>> = Mutex::new(Vec::new());

/// Keeps `inner` until it can be reaped.
fn reap_later(inner: &Arc<Inner>) {
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
