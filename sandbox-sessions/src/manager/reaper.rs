//! Ends what has expired, and compares what is known with what the backend has.
//!
//! It must never destroy a sandbox that carries another owner's mark, nor one that is just being
//! made.

use std::collections::HashSet;
use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use sandbox_core::{
    Capability, GuestPath, Labels, Sandbox, SandboxExt as _, SandboxId, SandboxInfo,
};
use tokio::task::JoinSet;

use super::entry::Entry;
use super::steps::step;
use super::{Manager, OWNER_LABEL, Phase, SESSION_LABEL};
use crate::journal::{Record, to_ms};
use crate::{OnIdle, Result, SessionId, Why};

/// Limit of the time for a sandbox to say that it is there.
const ANSWER: Duration = Duration::from_secs(10);
/// Sandboxes that are asked for or destroyed at once by a sweep.
const AT_ONCE: usize = 16;
/// Time for which a session that could not be suspended is kept before it is tried again.
const AGAIN: Duration = Duration::from_secs(60);

impl Manager {
    /// Ends every session whose time has come; gives when the next one's comes.
    pub(super) fn expire(self: &Arc<Self>) -> Option<SystemTime> {
        let now = self.config.clock.now();
        let entries: Vec<Arc<Entry>> = self.entries().values().cloned().collect();
        let mut next: Option<SystemTime> = None;
        for entry in entries {
            let Some(expired) = entry.expiry(&entry.activity.seen(), now) else {
                continue;
            };
            if expired.at > now {
                next = Some(next.map_or(expired.at, |next| next.min(expired.at)));
                continue;
            }
            if entry.expiring.swap(true, Relaxed) {
                continue;
            }
            let inner = self.clone();
            self.handle.spawn(async move {
                if let Err(error) = inner.expire_one(&entry, expired.why).await {
                    tracing::warn!(id = %entry.id, %error, "an expired session was not ended cleanly");
                }
                entry.expiring.store(false, Relaxed);
                if inner.is_current(&entry) {
                    let now = inner.config.clock.now();
                    inner.wake_by(entry.expiry(&entry.activity.seen(), now).map(|e| e.at));
                }
            });
        }
        next
    }

    async fn expire_one(self: &Arc<Self>, entry: &Arc<Entry>, why: Why) -> Result<()> {
        if why == Why::Idle && self.has_running_job(entry).await {
            entry.activity.touch();
            return Ok(());
        }
        if why == Why::Idle && self.config.on_idle == OnIdle::Suspend {
            let suspended = Self::suspend(self, entry, false).await;
            if suspended.is_err() {
                // Its files are what it is kept for: it stays, and is tried again.
                let now = self.config.clock.now();
                entry.activity.keep_until(now + AGAIN);
            }
            return suspended;
        }
        Self::end_if(self, entry, why, |entry, now| entry.due(now).is_some()).await
    }

    /// Compares what is known with what the backend has, tries again what was not destroyed, looks
    /// at the pool, and writes down what was used. One at a time; a shutdown stops it, since what the
    /// backend has is the next process's then.
    pub(super) async fn sweep(self: &Arc<Self>) {
        let _sweeping = self.sweeping.lock().await;
        let mut phase = self.phase.subscribe();
        let down = phase.wait_for(|phase| *phase != Phase::Open);
        let sweep = async {
            self.turns.tidy();
            self.gates.tidy();
            self.write_uses().await;
            let compared = async {
                if let Err(error) = self.compare().await {
                    tracing::warn!(%error, "the backend's sandboxes were not compared with the sessions");
                }
            };
            let snapshots = async {
                if let Err(error) = self.compare_snapshots().await {
                    tracing::warn!(%error, "the backend's snapshots were not compared with the sessions");
                }
            };
            // What does not answer in one of them holds none of the others up.
            tokio::join!(
                self.try_doomed_again(),
                compared,
                snapshots,
                self.check_pool()
            );
        };
        tokio::select! {
            biased;
            _ = down => {}
            () = sweep => {}
        }
    }

    /// Whether a job runs in a session that nothing else holds.
    async fn has_running_job(self: &Arc<Self>, entry: &Arc<Entry>) -> bool {
        if !self.provider.capabilities().has(Capability::Jobs) {
            return false;
        }
        if let Err(error) = self.take_up_to_look(entry).await {
            // Ended on a guess, work could be lost.
            tracing::warn!(id = %entry.id, %error, "an idle session can't be looked into; it is kept");
            return true;
        }
        let raw = entry.hold().raw.clone();
        let Some(raw) = raw else { return false };
        if !raw.capabilities().has(Capability::Jobs) {
            return false;
        }
        use sandbox_core::ErrorKind;
        match tokio::time::timeout(ANSWER, raw.list_jobs()).await {
            Ok(Ok(jobs)) => jobs.iter().any(|job| !job.state.is_final()),
            Ok(Err(error)) => !matches!(
                error.kind(),
                ErrorKind::Closed | ErrorKind::Expired | ErrorKind::Lost | ErrorKind::NotFound
            ),
            Err(_) => true,
        }
    }

    /// Takes up a session that no call has asked for since a restart, so that what runs in it is seen.
    /// It does not count as a use.
    async fn take_up_to_look(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<()> {
        let _gate = self.gates.enter(&entry.name).await;
        let is_there = {
            let hold = entry.hold();
            hold.raw.is_some() || hold.sandbox.is_none() || hold.snapshot.is_some()
        };
        if is_there || !self.is_current(entry) {
            return Ok(());
        }
        Self::take_up(self, entry, None).await?;
        Ok(())
    }

    pub(super) async fn write_uses(&self) {
        let entries: Vec<Arc<Entry>> = self.entries().values().cloned().collect();
        let mut records = Vec::new();
        for entry in entries {
            let seen = entry.activity.seen();
            let at = if seen.in_use {
                self.config.clock.now()
            } else {
                seen.last_use
            };
            let mut written = entry.written.lock().unwrap_or_else(PoisonError::into_inner);
            if at > *written || seen.keep_until.is_some() {
                *written = at;
                records.push(Record::Used {
                    id: entry.id.clone(),
                    at_ms: to_ms(at),
                    keep_ms: seen.keep_until.map(to_ms),
                });
            }
        }
        if !records.is_empty()
            && let Err(error) = self.journal.append_all(records).await
        {
            tracing::warn!(%error, "the last uses were not written down");
        }
    }

    pub(super) async fn try_doomed_again(self: &Arc<Self>) {
        let doomed: Vec<_> = {
            let doomed = self.doomed();
            doomed.iter().map(|doomed| doomed.sandbox.clone()).collect()
        };
        self.some_at_once(doomed, |inner, sandbox| async move {
            // A step of its own: it goes on when the sweep is stopped.
            let busy = inner.busy();
            let task = step(&inner.handle.clone(), async move {
                inner.try_again(sandbox).await;
                drop(busy);
            });
            let _ = task.await;
        })
        .await;
    }

    async fn try_again(&self, sandbox: SandboxId) {
        let raw = {
            let mut doomed = self.doomed();
            let mut idle = doomed.iter_mut().filter(|doomed| !doomed.is_tried);
            let Some(doomed) = idle.find(|doomed| doomed.sandbox == sandbox) else {
                return;
            };
            doomed.is_tried = true;
            doomed.raw.clone()
        };
        let destroyed = self.destroy(raw, Some(&sandbox)).await;
        let gone = {
            let mut doomed = self.doomed();
            let at = doomed.iter().position(|doomed| doomed.sandbox == sandbox);
            match destroyed {
                Ok(()) => at.map(|at| doomed.swap_remove(at)),
                Err(error) => {
                    tracing::warn!(%error, "a sandbox was not destroyed; it is tried again");
                    if let Some(doomed) = at.and_then(|at| doomed.get_mut(at)) {
                        doomed.is_tried = false;
                    }
                    None
                }
            }
        };
        if let Some(gone) = gone
            && gone.ends
        {
            self.record_closed(&gone.id).await;
        }
    }

    async fn compare(self: &Arc<Self>) -> Result<()> {
        let capabilities = self.provider.capabilities();
        if !capabilities.has(Capability::List) {
            return Ok(());
        }
        let expected: Vec<Arc<Entry>> = self
            .entries()
            .values()
            .filter(|entry| entry.hold().sandbox.is_some())
            .cloned()
            .collect();
        let ours = Labels::from([(OWNER_LABEL.to_owned(), self.owner.to_string())]);
        let list = self.bounded(self.provider.list(&ours)).await?;
        let there: HashSet<_> = list.iter().map(|info| &info.id).collect();
        let missing = expected.into_iter().filter_map(|entry| {
            let sandbox = entry.hold().sandbox.clone()?;
            (!there.contains(&sandbox)).then_some((entry, sandbox))
        });
        let missed = self.some_at_once(missing.collect(), |inner, (entry, sandbox)| async move {
            if !inner.is_gone(&entry).await {
                return;
            }
            tracing::warn!(id = %entry.id, %sandbox, "the sandbox of a session is gone");
            if let Err(error) = Self::end_lost(&inner, &entry, sandbox).await {
                tracing::warn!(id = %entry.id, %error, "a lost session was not ended cleanly");
            }
        });
        // Looked at after the list: what has begun since is among them.
        let known = self.known();
        let leftovers = match capabilities.has(Capability::Attach) {
            true => list.iter().filter(|info| known.lacks(info)).collect(),
            false => Vec::new(),
        };
        let leftovers = leftovers.into_iter().map(|info| info.id.clone()).collect();
        let destroyed = self.some_at_once(leftovers, |inner, sandbox| async move {
            tracing::warn!(%sandbox, "a sandbox that no session has is destroyed");
            let destroyed = inner.bounded(inner.provider.destroy(&sandbox)).await;
            if let Err(error) = destroyed
                && error.kind() != sandbox_core::ErrorKind::NotFound
            {
                tracing::warn!(%sandbox, %error, "it was not destroyed; it is tried again");
            }
        });
        tokio::join!(missed, destroyed);
        Ok(())
    }

    /// Asks for a sandbox that a list lacks: the lists of some services are late.
    async fn is_gone(self: &Arc<Self>, entry: &Arc<Entry>) -> bool {
        use sandbox_core::ErrorKind;
        if self.take_up_to_look(entry).await.is_err() {
            return false;
        }
        let raw = entry.hold().raw.clone();
        let Some(raw) = raw else { return true };
        let answer = tokio::time::timeout(ANSWER, raw.stat(GuestPath::root())).await;
        matches!(answer, Ok(Err(error)) if matches!(
            error.kind(),
            ErrorKind::Closed | ErrorKind::Expired | ErrorKind::Lost | ErrorKind::NotFound
        ))
    }

    async fn compare_snapshots(self: &Arc<Self>) -> Result<()> {
        let capabilities = self.provider.capabilities();
        if !capabilities.has(Capability::SnapshotList)
            || !capabilities.has(Capability::SnapshotDelete)
        {
            return Ok(());
        }
        let ours = Labels::from([(OWNER_LABEL.to_owned(), self.owner.to_string())]);
        let mut unneeded = self.bounded(self.provider.list_snapshots(&ours)).await?;
        unneeded.retain(|snapshot| {
            let mark = snapshot.labels.get(SESSION_LABEL).cloned();
            let needed = mark.is_some_and(|mark| {
                let entries = self.entries();
                let mut holders = entries.values().filter(|entry| entry.id.as_str() == mark);
                // One that is just being taken is not in its entry yet.
                holders.any(|entry| {
                    let kept = entry.hold().snapshot.clone();
                    kept.is_none_or(|kept| kept == snapshot.id)
                })
            });
            !needed
        });
        self.some_at_once(unneeded, |inner, snapshot| async move {
            inner.delete_snapshot(&snapshot.id).await;
        })
        .await;
        Ok(())
    }

    /// Every sandbox that is known: of sessions, of the pool, being made or destroyed.
    fn known(&self) -> Known {
        let mut known = Known::default();
        // One that is being made comes into the pool, goes from there to those that are pending, and
        // becomes a session's. Looked for in this order it is in one of them.
        known.marks.extend(self.pending().iter().cloned());
        for shape in &self.shapes {
            known.marks.extend(shape.ids());
        }
        known.marks.extend(self.pending().iter().cloned());
        for entry in self.entries().values() {
            known.ids.extend(entry.hold().sandbox.clone());
        }
        let doomed = self.doomed();
        known.ids.extend(doomed.iter().map(|d| d.sandbox.clone()));
        known
    }

    #[cfg(test)]
    pub(super) fn knows(&self, mark: &SessionId) -> bool {
        self.known().marks.contains(mark)
    }

    /// Runs something for each, a few at a time, so that one that does not answer holds up few
    /// others. Dropping the future stops what is under way.
    pub(super) async fn some_at_once<T, F>(
        self: &Arc<Self>,
        items: Vec<T>,
        each: impl Fn(Arc<Self>, T) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut under_way = JoinSet::new();
        for item in items {
            if under_way.len() >= AT_ONCE {
                under_way.join_next().await;
            }
            under_way.spawn(each(self.clone(), item));
        }
        while under_way.join_next().await.is_some() {}
    }
}

/// Findings of [`Manager::known`].
#[derive(Debug, Default)]
struct Known {
    /// Marks under which there may be any sandbox.
    marks: HashSet<SessionId>,
    ids: HashSet<SandboxId>,
}

impl Known {
    /// Whether this sandbox has a mark of ours, and nothing that it could be is known.
    fn lacks(&self, info: &SandboxInfo) -> bool {
        let Some(mark) = info.labels.get(SESSION_LABEL) else {
            return false;
        };
        let is_marked = mark.parse().is_ok_and(|mark| self.marks.contains(&mark));
        !is_marked && !self.ids.contains(&info.id)
    }
}

/// Runs until the sessions are gone or shut down.
pub(super) async fn run(inner: Weak<Manager>) {
    let mut swept: Option<SystemTime> = None;
    loop {
        let (wake, clock, until) = {
            let Some(inner) = inner.upgrade() else { return };
            if inner.is_down() {
                return;
            }
            let clock = inner.config.clock.clone();
            let due = swept.and_then(|swept| swept.checked_add(inner.config.sweep_every));
            if swept.is_none() || due.is_some_and(|due| due <= clock.now()) {
                swept = Some(clock.now());
                // A task of its own: a backend that does not answer keeps nothing beyond its time.
                let sweeps = inner.sweeping.try_lock().is_ok();
                let sweeper = inner.clone();
                if sweeps {
                    inner.handle.spawn(async move { sweeper.sweep().await });
                }
            }
            // Set before the look, so that what comes during it is seen.
            inner.plan(None);
            let next = inner.expire();
            let due = swept.and_then(|swept| swept.checked_add(inner.config.sweep_every));
            let until = next.into_iter().chain(due).min();
            inner.plan(until);
            (inner.wake.clone(), clock, until)
        };
        let at_least = Duration::from_millis(10);
        tokio::select! {
            () = wake.notified() => {}
            () = async {
                match until {
                    Some(until) => clock.sleep_until(until).await,
                    None => std::future::pending().await,
                }
                // What is due is ended by tasks; it is not asked for again at once.
                tokio::time::sleep(at_least).await;
            } => {}
        }
    }
}
