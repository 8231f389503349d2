//! End of a session, and of its sandbox with it.
//!
//! What could not be destroyed keeps its place and is tried again: it must never be forgotten.

use std::sync::Arc;
use std::time::SystemTime;

use sandbox_core::{Capability, ErrorKind as CoreKind, Sandbox, SandboxId};

use super::{joined, step};
use crate::activity::ended;
use crate::journal::Record;
use crate::manager::entry::Entry;
use crate::manager::gates::Gate;
use crate::manager::{Doomed, Manager};
use crate::queue::Place;
use crate::{Error, Result, SessionId, Why};

impl Manager {
    /// Ends a session, if it is still the one of its name.
    pub(in crate::manager) async fn end(
        inner: &Arc<Self>,
        entry: &Arc<Entry>,
        why: Why,
    ) -> Result<()> {
        Self::end_if(inner, entry, why, |_, _| true).await
    }

    /// Ends a session whose sandbox is gone, unless it has another one by now.
    pub(in crate::manager) async fn end_lost(
        inner: &Arc<Self>,
        entry: &Arc<Entry>,
        gone: SandboxId,
    ) -> Result<()> {
        let is_its = move |entry: &Entry, _| entry.hold().sandbox.as_ref() == Some(&gone);
        Self::end_if(inner, entry, Why::Lost, is_its).await
    }

    /// Ends a session, if it is still the one of its name and the condition holds then.
    pub(in crate::manager) async fn end_if(
        inner: &Arc<Self>,
        entry: &Arc<Entry>,
        why: Why,
        condition: impl FnOnce(&Entry, SystemTime) -> bool + Send + 'static,
    ) -> Result<()> {
        if !inner.is_current(entry) {
            return Ok(());
        }
        let (inner, entry, busy) = (inner.clone(), entry.clone(), inner.begin()?);
        let task = step(&inner.handle.clone(), async move {
            let gate = inner.gates.enter(&entry.name).await;
            let result = match condition(&entry, inner.config.clock.now()) {
                true => Self::end_in(&inner, &gate, &entry, why).await,
                false => Ok(()),
            };
            drop(busy);
            result
        });
        joined(task).await
    }

    pub(in crate::manager) fn is_current(&self, entry: &Arc<Entry>) -> bool {
        self.entries()
            .get(&entry.name)
            .is_some_and(|current| Arc::ptr_eq(current, entry))
    }

    /// Ends a session under its gate.
    pub(in crate::manager) async fn end_in(
        inner: &Arc<Self>,
        _gate: &Gate,
        entry: &Arc<Entry>,
        why: Why,
    ) -> Result<()> {
        if !inner.is_current(entry) {
            return Ok(());
        }
        let id = entry.id.clone();
        inner.pending().insert(id.clone());
        let closing = Record::Closing {
            id: id.clone(),
            why,
        };
        if let Err(error) = inner.journal.append(closing).await {
            tracing::warn!(%id, %error, "the end of a session was not written down");
        }
        entry.activity.set_life(ended(&inner.config.clock, why));
        inner.entries().remove(&entry.name);
        let (raw, sandbox, snapshot, place) = {
            let mut hold = entry.hold();
            hold.tracked = None;
            (
                hold.raw.take(),
                hold.sandbox.clone(),
                hold.snapshot.take(),
                hold.place.take(),
            )
        };
        if let Some(snapshot) = snapshot {
            inner.delete_snapshot(&snapshot).await;
        }
        inner
            .destroy_and_record(id, raw, sandbox, place)
            .await
            .map_err(|error| error.with_name(&entry.name.tenant, &entry.name.key))
    }

    /// Destroys a pending sandbox and writes that down; what fails is tried again by the sweep.
    pub(in crate::manager) async fn destroy_and_record(
        &self,
        id: SessionId,
        raw: Option<Arc<dyn Sandbox>>,
        sandbox: Option<SandboxId>,
        place: Option<Place>,
    ) -> Result<()> {
        match (self.destroy(raw.clone(), sandbox.as_ref()).await, sandbox) {
            (Err(error), Some(sandbox)) => {
                let doomed = Doomed::new(id.clone(), raw, sandbox, place, true);
                let error = self.doom(doomed, error);
                self.pending().remove(&id);
                Err(error)
            }
            (result, _) => {
                self.record_closed(&id).await;
                self.pending().remove(&id);
                drop(place);
                result
            }
        }
    }

    pub(in crate::manager) async fn record_closed(&self, id: &SessionId) {
        let recorded = self.journal.append(Record::Closed { id: id.clone() }).await;
        if let Err(error) = recorded {
            tracing::warn!(%id, %error, "the end of a sandbox was not written down");
        }
    }

    /// Remembers what was not destroyed.
    pub(super) fn doom(&self, doomed: Doomed, error: Error) -> Error {
        self.doomed().push(doomed);
        error.with_hint("it is tried again in the background")
    }

    /// Destroys a sandbox; `Ok` only if it is known to be gone.
    pub(in crate::manager) async fn destroy(
        &self,
        raw: Option<Arc<dyn Sandbox>>,
        sandbox: Option<&SandboxId>,
    ) -> Result<()> {
        let closed = match raw {
            Some(raw) => self.bounded(raw.close()).await,
            None if sandbox.is_none() => return Ok(()),
            None => Err(
                sandbox_core::Error::new(CoreKind::Other, sandbox_core::Operation::Close)
                    .with_message("there is no handle to it"),
            ),
        };
        let error = match closed {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == CoreKind::Lost => return Ok(()),
            Err(error) => error,
        };
        let Some(sandbox) = sandbox else {
            return Err(error.into());
        };
        if !self.provider.capabilities().has(Capability::Attach) {
            return Err(error.into());
        }
        match self.bounded(self.provider.destroy(sandbox)).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), CoreKind::NotFound | CoreKind::Lost) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
