//! Rest and return of a session: suspended with its files, resumed, taken up after a restart.
//!
//! Must never have two sandboxes for one session.

use std::sync::Arc;

use sandbox_core::{
    Capability, ErrorKind as CoreKind, Sandbox, SandboxSpec, SnapshotId, SnapshotOptions, Source,
};

use super::{joined, step};
use crate::activity::Life;
use crate::journal::Record;
use crate::manager::entry::Entry;
use crate::manager::gates::Gate;
use crate::manager::{Doomed, Manager, OWNER_LABEL, SESSION_LABEL};
use crate::queue::Place;
use crate::{Error, ErrorKind, Result, Why};

impl Manager {
    /// The sandbox of a session that is not suspended: the handle that is there, or one to what an
    /// earlier process left. `None` if the backend does not have it any more.
    pub(in crate::manager) async fn take_up(
        inner: &Arc<Self>,
        entry: &Arc<Entry>,
        spec: Option<&SandboxSpec>,
    ) -> Result<Option<Arc<dyn Sandbox>>> {
        if let Some(ready) = entry.ready(spec) {
            return Ok(Some(ready));
        }
        let sandbox = entry.hold().sandbox.clone();
        let Some(sandbox) = sandbox else {
            return Ok(None);
        };
        match inner.bounded(inner.provider.attach(&sandbox)).await {
            Ok(raw) => {
                entry.activity.follow_all(&raw);
                entry.set_sandbox(raw);
                Ok(entry.ready(spec))
            }
            Err(error) if matches!(error.kind(), CoreKind::NotFound | CoreKind::Lost) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the sandbox of a suspended session from its snapshot. The step has the gate: if its
    /// caller goes away, the next one must not make another.
    pub(super) async fn resume(
        inner: &Arc<Self>,
        gate: Gate,
        entry: &Arc<Entry>,
        spec: SandboxSpec,
        place: Place,
    ) -> Result<Arc<dyn Sandbox>> {
        let missing = || Error::new(ErrorKind::NotFound).with_message("it has no snapshot");
        let snapshot = entry.hold().snapshot.clone().ok_or_else(missing)?;
        let (inner, entry, busy) = (inner.clone(), entry.clone(), inner.begin()?);
        let task = step(&inner.handle.clone(), async move {
            let from = spec.clone().source(Source::Snapshot(snapshot.clone()));
            inner.pending().insert(entry.id.clone());
            let made = inner
                .bounded(inner.provider.create(inner.marked(&entry.id, from)))
                .await;
            let raw = match made {
                Ok(raw) => raw,
                Err(error) => {
                    inner.pending().remove(&entry.id);
                    return Err(Error::from(error));
                }
            };
            let created = Record::Created {
                id: entry.id.clone(),
                sandbox: raw.info().id.to_string(),
            };
            if let Err(error) = inner.journal.append(created).await {
                let _ = inner.bounded(raw.close()).await;
                inner.pending().remove(&entry.id);
                return Err(error);
            }
            let sandbox = entry.set_sandbox(raw);
            {
                let mut hold = entry.hold();
                hold.place = Some(place);
                hold.spec = Some(spec);
                hold.snapshot = None;
            }
            inner.pending().remove(&entry.id);
            entry.activity.touch();
            entry.activity.set_life(Life::Live);
            inner.delete_snapshot(&snapshot).await;
            drop((gate, busy));
            Ok(sandbox)
        });
        joined(task).await
    }

    pub(in crate::manager) async fn delete_snapshot(&self, snapshot: &SnapshotId) {
        if !self.provider.capabilities().has(Capability::SnapshotDelete) {
            return;
        }
        let deleted = self.bounded(self.provider.delete_snapshot(snapshot)).await;
        if let Err(error) = deleted
            && error.kind() != CoreKind::NotFound
        {
            tracing::warn!(%snapshot, %error, "a snapshot was not deleted; it is tried again");
        }
    }

    pub(in crate::manager) async fn suspend(
        inner: &Arc<Self>,
        entry: &Arc<Entry>,
        by_call: bool,
    ) -> Result<()> {
        let gate = inner.gates.enter(&entry.name).await;
        let (inner, entry, busy) = (inner.clone(), entry.clone(), inner.begin()?);
        let task = step(&inner.handle.clone(), async move {
            let result = Self::suspend_in(&inner, &gate, &entry, by_call).await;
            drop(busy);
            result
        });
        joined(task).await
    }

    async fn suspend_in(
        inner: &Arc<Self>,
        gate: &Gate,
        entry: &Arc<Entry>,
        by_call: bool,
    ) -> Result<()> {
        let now = inner.config.clock.now();
        if !inner.is_current(entry) || (!by_call && entry.due(now) != Some(Why::Idle)) {
            return Ok(());
        }
        if entry.hold().snapshot.is_some() {
            return Ok(());
        }
        let named = |error: Error| error.with_name(&entry.name.tenant, &entry.name.key);
        let raw = entry.hold().raw.clone();
        let raw = match raw {
            Some(raw) => raw,
            None => match Self::take_up(inner, entry, None).await? {
                Some(tracked) => entry.hold().raw.clone().unwrap_or(tracked),
                None => return Self::end_in(inner, gate, entry, Why::Lost).await,
            },
        };
        if !entry.activity.suspend() {
            return Err(named(Error::new(ErrorKind::Busy).with_message(
                "a call, a command, a stream or a connection uses it",
            )));
        }
        let kept = inner.keep_files(entry, &*raw).await;
        let place = match &kept {
            Ok(snapshot) => {
                let mut hold = entry.hold();
                hold.snapshot = Some(snapshot.clone());
                hold.tracked = None;
                hold.raw = None;
                Some((hold.place.take(), hold.sandbox.take()))
            }
            Err(_) => None,
        };
        entry.activity.suspended(kept.is_ok());
        kept.map_err(named)?;
        let (place, sandbox) = place.unwrap_or_default();
        let gone = inner.destroy(Some(raw.clone()), sandbox.as_ref()).await;
        match (gone, sandbox) {
            (Err(error), Some(sandbox)) => {
                // The session goes on without it: the journal has its snapshot.
                let doomed = Doomed::new(entry.id.clone(), Some(raw), sandbox, place, false);
                Err(named(inner.doom(doomed, error)))
            }
            (gone, _) => gone.map_err(named),
        }
    }

    /// Takes the snapshot of a session that is being suspended, and writes that down.
    async fn keep_files(&self, entry: &Entry, raw: &dyn Sandbox) -> Result<SnapshotId> {
        let options = SnapshotOptions::new()
            .label(OWNER_LABEL, self.owner.as_str())
            .label(SESSION_LABEL, entry.id.as_str());
        let snapshot = self.bounded(raw.snapshot(options)).await?;
        let suspended = Record::Suspended {
            id: entry.id.clone(),
            snapshot: snapshot.id.to_string(),
        };
        if let Err(error) = self.journal.append(suspended).await {
            self.delete_snapshot(&snapshot.id).await;
            return Err(error);
        }
        Ok(snapshot.id)
    }
}
