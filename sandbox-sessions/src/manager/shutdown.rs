//! An orderly end within a deadline.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sandbox_core::Capability;
use tokio::task::JoinSet;

use super::steps::{joined, step};
use super::{Manager, Phase, SessionInfo, Sessions};
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
    /// Sessions whose sandbox was not closed, before the deadline or at all. The journal names them,
    /// and the next process collects them.
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
        let inner = self.inner.clone();
        let task = step(
            &self.inner.handle,
            async move { inner.shut_down(options).await },
        );
        joined(task).await
    }
}

impl Manager {
    async fn shut_down(self: &Arc<Self>, options: ShutdownOptions) -> Result<ShutdownReport> {
        let inner = self;
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
        inner.refill();
        let mut left = HashMap::new();
        // Each is a step that goes on when the set is dropped at the deadline.
        let mut ends = JoinSet::new();
        if options.keep {
            inner.write_uses().await;
        } else {
            let entries: Vec<_> = inner.entries().values().cloned().collect();
            for entry in entries {
                left.insert(entry.id.clone(), entry.clone());
                let inner = inner.clone();
                ends.spawn(async move {
                    let ended = Manager::end(&inner, &entry, Why::ShutDown).await;
                    if let Err(error) = &ended {
                        tracing::warn!(id = %entry.id, %error, "a session was not closed cleanly");
                    }
                    ended.is_ok().then(|| entry.id.clone())
                });
            }
        }
        let again = {
            let inner = inner.clone();
            async move { inner.try_doomed_again().await }
        };
        inner.handle.spawn(again);
        for member in inner.empty_pool() {
            Arc::clone(inner).discard(member);
        }
        let mut report = ShutdownReport::default();
        let finished = async {
            while let Some(ended) = ends.join_next().await {
                let closed = ended.ok().flatten();
                report.closed += closed.map_or(0, |id| left.remove(&id).iter().count());
            }
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
        // Nothing begins from here on: the journal becomes another process's.
        inner.phase.send_replace(Phase::Ended);
        if options.keep {
            for entry in inner.entries().values() {
                let mut hold = entry.hold();
                // Some backends destroy what a dropped handle names; this one's sandbox stays.
                std::mem::forget(hold.raw.take());
                std::mem::forget(hold.tracked.take());
                report.kept += 1;
            }
        }
        let now = inner.config.clock.now();
        report.left = left.values().map(|entry| entry.info(now)).collect();
        report.left.sort_by(|a, b| a.id.cmp(&b.id));
        inner.journal.close().await;
        Ok(report)
    }
}
