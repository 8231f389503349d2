//! Ends what has expired, and compares what is known with what the backend has.
//!
//! It must never destroy a sandbox that carries another owner's mark, nor one that is just being
//! made.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use sandbox_core::{Capability, GuestPath, Labels, Sandbox, SandboxExt as _};

use super::entry::Entry;
use super::{Doomed, Inner, OWNER_LABEL, SESSION_LABEL};
use crate::journal::{Record, to_ms};
use crate::{OnIdle, Result, Why};

/// Limit of the time for a sandbox to say that it is there.
const ANSWER: Duration = Duration::from_secs(10);
/// Time for which a session that could not be suspended is kept before it is tried again.
const AGAIN: Duration = Duration::from_secs(60);

impl Inner {
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
            let inner = self.clone();
            self.handle.spawn(async move {
                if let Err(error) = inner.expire_one(&entry, expired.why).await {
                    tracing::warn!(id = %entry.id, %error, "an expired session was not ended cleanly");
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
    /// at the pool, and writes down what was used.
    pub(super) async fn sweep(self: &Arc<Self>) {
        self.turns.tidy();
        self.gates.tidy();
        self.write_uses().await;
        self.try_doomed_again().await;
        if let Err(error) = self.compare().await {
            tracing::warn!(%error, "the backend's sandboxes were not compared with the sessions");
        }
        if let Err(error) = self.compare_snapshots().await {
            tracing::warn!(%error, "the backend's snapshots were not compared with the sessions");
        }
        self.check_pool().await;
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

    async fn try_doomed_again(self: &Arc<Self>) {
        let doomed = std::mem::take(&mut *self.doomed());
        for Doomed { id, sandbox, place } in doomed {
            let again = self.destroy_and_record(id, None, Some(sandbox), place);
            if let Err(error) = again.await {
                tracing::warn!(%error, "a sandbox was not destroyed; it is tried again");
            }
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
        for entry in expected {
            let (sandbox, raw) = {
                let hold = entry.hold();
                (hold.sandbox.clone(), hold.raw.clone())
            };
            if let Some(sandbox) = sandbox
                && !there.contains(&sandbox)
                && Self::is_gone(raw).await
            {
                tracing::warn!(id = %entry.id, %sandbox, "the sandbox of a session is gone");
                Self::end_lost(self, &entry, sandbox).await?;
            }
        }
        if !capabilities.has(Capability::Attach) {
            return Ok(());
        }
        // Looked at after the list: what has begun since is among them.
        let known = self.known();
        for info in &list {
            let mark = info.labels.get(SESSION_LABEL);
            if mark.is_some_and(|mark| !known.contains(mark.as_str())) {
                tracing::warn!(sandbox = %info.id, "a sandbox that no session has is destroyed");
                let destroyed = self.bounded(self.provider.destroy(&info.id)).await;
                match destroyed {
                    Err(error) if error.kind() != sandbox_core::ErrorKind::NotFound => {
                        return Err(error.into());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Asks a sandbox that a list lacks: the lists of some services are late.
    async fn is_gone(raw: Option<Arc<dyn Sandbox>>) -> bool {
        use sandbox_core::ErrorKind;
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
        for snapshot in self.bounded(self.provider.list_snapshots(&ours)).await? {
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
            if !needed {
                self.delete_snapshot(&snapshot.id).await;
            }
        }
        Ok(())
    }

    /// The marks of every sandbox that is known: sessions, the pool, what is being made or
    /// destroyed.
    fn known(&self) -> HashSet<String> {
        let mut known: HashSet<String> = HashSet::new();
        known.extend(self.pending().iter().map(ToString::to_string));
        for shape in &self.shapes {
            known.extend(shape.ids().iter().map(ToString::to_string));
        }
        known.extend(self.doomed().iter().map(|doomed| doomed.id.to_string()));
        known.extend(
            self.entries()
                .values()
                .filter(|entry| entry.hold().snapshot.is_none())
                .map(|entry| entry.id.to_string()),
        );
        known
    }
}

/// Runs until the sessions are gone or shut down.
pub(super) async fn run(inner: Weak<Inner>) {
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
                inner.sweep().await;
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
