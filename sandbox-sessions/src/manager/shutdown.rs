//! An orderly end within a deadline.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::Capability;

use super::{Inner, Phase, SessionInfo, Sessions};
use crate::{Error, ErrorKind, Result, Why};

/// Options of a shutdown.
///
/// ```
/// use std::time::Duration;
/// use sandbox_sessions::ShutdownOptions;
/// let options = ShutdownOptions::new().deadline(Duration::from_secs(20)).keep(true);
/// assert!(options.keep);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ShutdownOptions {
    /// Time after which it returns at the latest. Default: 30 seconds.
    pub deadline: Duration,
    /// Leaves the sandboxes to the next process that opens the journal instead of closing them.
    /// Default: false.
    pub keep: bool,
}

impl Default for ShutdownOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            keep: false,
        }
    }
}

impl ShutdownOptions {
    /// Closes every session, within 30 seconds.
    pub fn new() -> Self {
        Self::default()
    }

    sandbox_core::setters! {
        /// Sets when it returns at the latest.
        deadline: Duration,

        /// Sets whether sandboxes are left to the next process.
        keep: bool,
    }
}

/// Fate of the sessions in a shutdown.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Number of sessions that were closed.
    pub closed: usize,
    /// Number of sessions that are left to the next process.
    pub kept: usize,
    /// Sessions not closed before the deadline. The journal names them, and the next process
    /// collects them.
    pub left: Vec<SessionInfo>,
}

impl Sessions {
    /// Ends: lets waiting callers and new ones fail with [`ErrorKind::ShutDown`], closes every
    /// session and what is in the pool, and returns at the deadline at the latest. A second call
    /// waits for nothing that the first one closed.
    ///
    /// Dropping the future does not take the end back; closing goes on while the runtime lives.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for `keep` without a journal or on a backend whose sandboxes can't
    /// be attached to; nothing has ended then.
    pub async fn shutdown(&self, options: ShutdownOptions) -> Result<ShutdownReport> {
        let inner = &self.inner;
        let keeps =
            inner.config.journal.is_some() && inner.provider.capabilities().has(Capability::Attach);
        if options.keep && !keeps {
            return Err(Error::new(ErrorKind::InvalidInput)
                .with_message(
                    "sessions can't be kept without a journal and a backend that attaches",
                )
                .with_hint("set a journal directory, or shut down without keeping"));
        }
        inner.phase.send_if_modified(|phase| {
            let open = *phase == Phase::Open;
            if open {
                *phase = Phase::Down;
            }
            open
        });
        inner.queue.close();
        inner.wake.notify_one();
        inner.refill.notify_one();
        let mut report = ShutdownReport::default();
        let entries: Vec<_> = inner.entries().values().cloned().collect();
        let count = entries.len();
        if options.keep {
            inner.write_uses().await;
            for entry in entries {
                let mut hold = entry.hold();
                // Some backends destroy what a dropped handle names; this one's sandbox stays.
                std::mem::forget(hold.raw.take());
                std::mem::forget(hold.tracked.take());
            }
            report.kept = count;
        } else {
            for entry in entries {
                let inner = inner.clone();
                inner.handle.clone().spawn(async move {
                    if let Err(error) = Inner::end(&inner, &entry, Why::ShutDown).await {
                        tracing::warn!(id = %entry.id, %error, "a session was not closed cleanly");
                    }
                });
            }
        }
        for member in inner.empty_pool() {
            Arc::clone(inner).discard(member);
        }
        let finished = async {
            let mut steps = inner.steps.subscribe();
            loop {
                let idle = steps.wait_for(|steps| *steps == 0).await.is_ok();
                let empty = options.keep || inner.entries().is_empty();
                if !idle || (empty && inner.pending().is_empty()) {
                    return;
                }
                tokio::task::yield_now().await;
                if steps.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(options.deadline, finished).await;
        if !options.keep {
            let now = inner.config.clock.now();
            let left: Vec<_> = inner.entries().values().cloned().collect();
            report.left = left.iter().map(|entry| entry.info(now)).collect();
            report.closed = count.saturating_sub(report.left.len());
        }
        inner.journal.close().await;
        inner.phase.send_replace(Phase::Ended);
        Ok(report)
    }
}
