//! The steps that change a session: create, take up, suspend, resume, end.
//!
//! Each is written down before it is made and after it; what a failed step leaves is named by the
//! journal or marked by a label.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sandbox_core::{
    Capability, ErrorKind as CoreKind, ForkOptions, Labels, Sandbox, SandboxId, SandboxSpec,
    SnapshotId, SnapshotOptions, Source,
};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::entry::{Entry, Hold, describe};
use super::gates::{Gate, Gates};
use super::{Doomed, Inner, OWNER_LABEL, SESSION_LABEL, Session};
use crate::activity::{Life, Use, ended};
use crate::journal::Record;
use crate::name::Name;
use crate::queue::Place;
use crate::{
    Clock, Error, ErrorKind, Key, Result, SessionId, SessionOptions, Wait, Why, fingerprint,
};

impl Inner {
    pub(super) async fn get_or_create(
        inner: &Arc<Self>,
        name: Name,
        spec: SandboxSpec,
        options: SessionOptions,
    ) -> Result<Session> {
        spec.validate()?;
        let named = |error: Error| error.with_name(&name.tenant, &name.key);
        let print = fingerprint::of(&spec)?;
        if [options.idle_timeout, options.max_life].contains(&Some(Duration::ZERO)) {
            return Err(named(
                Error::new(ErrorKind::InvalidInput).with_message("a time of its options is zero"),
            ));
        }
        let fits = |entry: &Entry| match entry.fingerprint == print {
            true => Ok(()),
            false => Err(named(
                Error::new(ErrorKind::Conflict)
                    .with_message("it exists with another specification")
                    .with_hint("close it first, or use another key"),
            )),
        };
        let patience = Patience::of(&options, &inner.config.clock);
        // One that is there is not waited for, even if another call looks at it too.
        let ready = || -> Result<Option<Session>> {
            let entry = inner.entries().get(&name).cloned();
            let Some(entry) = entry.filter(|entry| !entry.is_suspended()) else {
                return Ok(None);
            };
            fits(&entry)?;
            let ready = entry.ready(Some(&spec));
            Ok(ready.map(|sandbox| inner.session(entry, sandbox, false)))
        };
        let _turn = match inner.turn(&inner.turns, &name, patience).await {
            Ok(turn) => turn,
            Err(error) => return ready()?.ok_or_else(|| named(error)),
        };
        let mut place = None;
        let (gate, place) = loop {
            let entered = inner.turn(&inner.gates, &name, patience).await;
            let gate = match entered {
                Ok(gate) => gate,
                Err(error) => return ready()?.ok_or_else(|| named(error)),
            };
            if inner.is_down() {
                return Err(Error::shut_down());
            }
            let entry = inner.entries().get(&name).cloned();
            if let Some(entry) = &entry {
                fits(entry)?;
            }
            let is_live = entry.as_ref().is_some_and(|entry| !entry.is_suspended());
            if !is_live && place.is_none() {
                drop(gate);
                let entered = inner.enter(&name, &options, patience).await;
                place = Some(entered.map_err(named)?);
                continue;
            }
            match (entry, place.take()) {
                (Some(entry), Some(place)) if entry.is_suspended() => {
                    let resumed = Self::resume(inner, gate, &entry, spec, place).await;
                    return Ok(inner.session(entry, resumed.map_err(named)?, false));
                }
                (Some(entry), _) => {
                    let found = Self::find(inner, gate, &entry, Some(spec.clone())).await;
                    if let Some(sandbox) = found.map_err(named)? {
                        return Ok(inner.session(entry, sandbox, false));
                    }
                }
                (None, Some(place)) => break (gate, place),
                (None, None) => {}
            }
        };
        let task = {
            let inner = inner.clone();
            let busy = inner.begin()?;
            let name = name.clone();
            step(&inner.handle.clone(), async move {
                let made =
                    Self::make(&inner, &gate, name, Some(spec), print, options, place, None).await;
                drop(busy);
                made
            })
        };
        joined(task).await.map_err(named)
    }

    pub(super) async fn get(inner: &Arc<Self>, name: Name) -> Result<Session> {
        let missing = || {
            Error::new(ErrorKind::NotFound)
                .with_message("there is no such session")
                .with_name(&name.tenant, &name.key)
        };
        let options = SessionOptions::new();
        let patience = Patience::of(&options, &inner.config.clock);
        let _turn = inner.turns.enter(&name).await;
        let mut place = None;
        loop {
            let gate = inner.gates.enter(&name).await;
            if inner.is_down() {
                return Err(Error::shut_down());
            }
            let entry = inner.entries().get(&name).cloned().ok_or_else(missing)?;
            if entry.is_suspended() {
                let spec = entry.spec()?;
                if let Some(place) = place {
                    let resumed = Self::resume(inner, gate, &entry, spec, place).await?;
                    return Ok(inner.session(entry, resumed, false));
                }
                drop(gate);
                tokio::select! {
                    entered = inner.enter(&name, &options, patience) => place = Some(entered?),
                    () = entry.activity.gone() => {}
                }
                continue;
            }
            let found = Self::find(inner, gate, &entry, None).await?;
            let sandbox = found.ok_or_else(missing)?;
            return Ok(inner.session(entry, sandbox, false));
        }
    }

    /// The sandbox of a session that is not suspended. `None` if it is gone; the session has ended
    /// then. The step has the gate: it goes on if its caller goes away.
    async fn find(
        inner: &Arc<Self>,
        gate: Gate,
        entry: &Arc<Entry>,
        spec: Option<SandboxSpec>,
    ) -> Result<Option<Arc<dyn Sandbox>>> {
        if let Some(ready) = entry.ready(spec.as_ref()) {
            return Ok(Some(ready));
        }
        let (inner, entry, busy) = (inner.clone(), entry.clone(), inner.begin()?);
        let task = step(&inner.handle.clone(), async move {
            let found = Self::take_up(&inner, &entry, spec.as_ref()).await;
            let found = match found {
                Ok(None) => Self::end_in(&inner, &gate, &entry, Why::Lost)
                    .await
                    .map(|()| None),
                found => found,
            };
            drop((gate, busy));
            found
        });
        joined(task).await
    }

    /// Waits for one of the rights to a name, no longer than the call may.
    async fn turn(
        &self,
        gates: &Arc<Gates>,
        name: &Name,
        Patience { wait, until }: Patience,
    ) -> Result<Gate> {
        let busy = || {
            let waiting = self.queue.why_waiting(&name.tenant);
            waiting.unwrap_or_else(|| {
                Error::new(ErrorKind::Busy)
                    .with_message("another call makes or ends it at the moment")
                    .with_hint("try again, or let the call wait")
            })
        };
        match wait {
            Wait::Queue => Ok(gates.enter(name).await),
            Wait::Never => gates.try_enter(name).ok_or_else(busy),
            Wait::AtMost(_) => tokio::select! {
                biased;
                gate = gates.enter(name) => Ok(gate),
                () = self.alarm(until) => Err(busy()),
            },
        }
    }

    /// Waits for a time, by a task: the caller may be outside of a runtime.
    async fn alarm(&self, at: Option<SystemTime>) {
        let Some(at) = at else {
            return std::future::pending().await;
        };
        let clock = self.config.clock.clone();
        let mut alarm = JoinSet::new();
        alarm.spawn_on(async move { clock.sleep_until(at).await }, &self.handle);
        alarm.join_next().await;
    }

    fn session(
        self: &Arc<Self>,
        entry: Arc<Entry>,
        sandbox: Arc<dyn Sandbox>,
        is_new: bool,
    ) -> Session {
        entry.activity.touch();
        Session {
            inner: self.clone(),
            entry,
            sandbox,
            is_new,
        }
    }

    /// Waits for a place, under the turn of its name and never under its gate: the call that
    /// ends the session meanwhile must not wait as long.
    async fn enter(
        &self,
        name: &Name,
        options: &SessionOptions,
        Patience { wait, until }: Patience,
    ) -> Result<Place> {
        let told = options.told.as_ref();
        let late = self.alarm(until);
        self.queue.enter(&name.tenant, wait, told, late).await
    }

    /// Creates the sandbox of a new session: a fork of another's, one from the pool, or a new one.
    #[allow(clippy::too_many_arguments)]
    async fn make(
        inner: &Arc<Self>,
        gate: &Gate,
        name: Name,
        spec: Option<SandboxSpec>,
        print: String,
        options: SessionOptions,
        place: Place,
        parent: Option<Arc<dyn Sandbox>>,
    ) -> Result<Session> {
        let config = &inner.config;
        let described = describe(
            &name,
            &print,
            &options.labels,
            config.clock.now(),
            options.idle_timeout.or(config.idle_timeout),
            options.max_life.or(config.max_life),
        );
        let member = match (&parent, &spec) {
            (None, Some(spec)) => inner.take_from_pool(spec).await,
            _ => None,
        };
        let (id, raw) = match member {
            Some(member) => {
                let assigned = Record::Assigned {
                    id: member.id.clone(),
                    session: described.clone(),
                };
                if let Err(error) = inner.journal.append(assigned).await {
                    inner.clone().discard(member);
                    return Err(error);
                }
                (member.id, member.sandbox)
            }
            None => {
                let id = SessionId::generate();
                let creating = Record::Creating {
                    id: id.clone(),
                    session: Some(described.clone()),
                };
                inner.journal.append(creating).await?;
                let raw = match parent {
                    Some(parent) => {
                        let mut marks = ForkOptions::new();
                        marks.labels = inner.marks(&id);
                        inner.record_made(&id, parent.fork(marks)).await?
                    }
                    None => inner.create(&id, &spec.clone().unwrap_or_default()).await?,
                };
                (id, raw)
            }
        };
        let hold = Hold {
            place: Some(place),
            spec,
            ..Hold::default()
        };
        let entry = Entry::new(inner, id.clone(), &described, hold);
        let sandbox = entry.set_sandbox(raw);
        inner.entries().insert(name, entry.clone());
        inner.pending().remove(&id);
        inner.changed(&entry, None);
        if inner.is_down() {
            Self::end_in(inner, gate, &entry, Why::ShutDown).await?;
            return Err(Error::shut_down());
        }
        let now = inner.config.clock.now();
        inner.wake_by(entry.expiry(&entry.activity.seen(), now).map(|e| e.at));
        Ok(inner.session(entry, sandbox, true))
    }

    /// Asks the backend for a sandbox whose record is written, and writes down that it is there. It
    /// is among the pending ones then. After a failure nothing is left that is not marked.
    pub(super) async fn create(
        &self,
        id: &SessionId,
        spec: &SandboxSpec,
    ) -> Result<Arc<dyn Sandbox>> {
        let marked = self.marked(id, spec.clone());
        self.record_made(id, self.provider.create(marked)).await
    }

    /// Makes a sandbox whose record is written, and writes down that it is there.
    async fn record_made(
        &self,
        id: &SessionId,
        made: impl Future<Output = sandbox_core::Result<Arc<dyn Sandbox>>>,
    ) -> Result<Arc<dyn Sandbox>> {
        self.pending().insert(id.clone());
        let raw = match self.bounded(made).await {
            Ok(raw) => raw,
            Err(error) => {
                let _ = self.journal.append(Record::Closed { id: id.clone() }).await;
                self.pending().remove(id);
                return Err(error.into());
            }
        };
        let created = Record::Created {
            id: id.clone(),
            sandbox: raw.info().id.to_string(),
        };
        if let Err(error) = self.journal.append(created).await {
            if let Err(error) = self.bounded(raw.close()).await {
                tracing::warn!(%id, %error, "a sandbox that could not be written down stays for the sweep");
            }
            self.pending().remove(id);
            return Err(error);
        }
        Ok(raw)
    }

    /// The marks by which a sandbox is found, where the backend has labels.
    fn marks(&self, id: &SessionId) -> Labels {
        if !self.provider.capabilities().has(Capability::List) {
            return Labels::new();
        }
        Labels::from([
            (OWNER_LABEL.to_owned(), self.owner.to_string()),
            (SESSION_LABEL.to_owned(), id.to_string()),
        ])
    }

    fn marked(&self, id: &SessionId, mut spec: SandboxSpec) -> SandboxSpec {
        spec.labels.extend(self.marks(id));
        spec
    }

    /// A new session whose sandbox is a fork of another's.
    pub(super) async fn fork(
        inner: &Arc<Self>,
        parent: &Arc<Entry>,
        key: Key,
        options: SessionOptions,
    ) -> Result<Session> {
        let name = Name {
            tenant: parent.name.tenant.clone(),
            key,
        };
        let named = |error: Error| error.with_name(&name.tenant, &name.key);
        let is_new = || match inner.entries().contains_key(&name) {
            false => Ok(()),
            true => Err(named(
                Error::new(ErrorKind::Conflict)
                    .with_message("it exists, and a fork is a new one")
                    .with_hint("close it first, or use another key"),
            )),
        };
        let patience = Patience::of(&options, &inner.config.clock);
        let turn = inner.turn(&inner.turns, &name, patience).await;
        let _turn = turn.map_err(named)?;
        is_new()?;
        let entered = inner.enter(&name, &options, patience).await;
        let place = entered.map_err(named)?;
        let gate = inner.turn(&inner.gates, &name, patience).await;
        let gate = gate.map_err(named)?;
        is_new()?;
        let (raw, spec) = {
            let hold = parent.hold();
            (hold.raw.clone(), hold.spec.clone())
        };
        let (Some(raw), Some(using)) = (raw, Use::admit(&parent.activity, false)) else {
            return Err(Error::new(ErrorKind::NotFound)
                .with_message("it has no sandbox to fork: it is suspended or has ended")
                .with_name(&parent.name.tenant, &parent.name.key));
        };
        let print = parent.fingerprint.clone();
        let (inner, busy) = (inner.clone(), inner.begin()?);
        let task = {
            let name = name.clone();
            step(&inner.handle.clone(), async move {
                let made =
                    Self::make(&inner, &gate, name, spec, print, options, place, Some(raw)).await;
                drop((using, busy));
                made
            })
        };
        joined(task).await.map_err(named)
    }

    /// The sandbox of a session that is not suspended: the handle that is there, or one to what an
    /// earlier process left. `None` if the backend does not have it any more.
    pub(super) async fn take_up(
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
    async fn resume(
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

    pub(super) async fn delete_snapshot(&self, snapshot: &SnapshotId) {
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

    pub(super) async fn suspend(
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

    /// Ends a session, if it is still the one of its name.
    pub(super) async fn end(inner: &Arc<Self>, entry: &Arc<Entry>, why: Why) -> Result<()> {
        Self::end_if(inner, entry, why, |_, _| true).await
    }

    /// Ends a session whose sandbox is gone, unless it has another one by now.
    pub(super) async fn end_lost(
        inner: &Arc<Self>,
        entry: &Arc<Entry>,
        gone: SandboxId,
    ) -> Result<()> {
        let is_its = move |entry: &Entry, _| entry.hold().sandbox.as_ref() == Some(&gone);
        Self::end_if(inner, entry, Why::Lost, is_its).await
    }

    /// Ends a session, if it is still the one of its name and the condition holds then.
    pub(super) async fn end_if(
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

    pub(super) fn is_current(&self, entry: &Arc<Entry>) -> bool {
        self.entries()
            .get(&entry.name)
            .is_some_and(|current| Arc::ptr_eq(current, entry))
    }

    /// Ends a session under its gate.
    pub(super) async fn end_in(
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
    pub(super) async fn destroy_and_record(
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

    pub(super) async fn record_closed(&self, id: &SessionId) {
        let recorded = self.journal.append(Record::Closed { id: id.clone() }).await;
        if let Err(error) = recorded {
            tracing::warn!(%id, %error, "the end of a sandbox was not written down");
        }
    }

    /// Remembers what was not destroyed.
    fn doom(&self, doomed: Doomed, error: Error) -> Error {
        self.doomed().push(doomed);
        error.with_hint("it is tried again in the background")
    }

    /// Destroys a sandbox; `Ok` only if it is known to be gone.
    pub(super) async fn destroy(
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

/// Time that a call waits: for its turn, and then for its place.
#[derive(Clone, Copy, Debug)]
struct Patience {
    wait: Wait,
    /// When [`Wait::AtMost`] is over; `None` if never.
    until: Option<SystemTime>,
}

impl Patience {
    fn of(options: &SessionOptions, clock: &Clock) -> Self {
        let until = match options.wait {
            Wait::AtMost(time) => clock.now().checked_add(time),
            _ => None,
        };
        Self {
            wait: options.wait,
            until,
        }
    }
}

/// Begins a step that goes on if its caller goes away, below the caller's span.
pub(super) fn step<T: Send + 'static>(
    runtime: &tokio::runtime::Handle,
    step: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    runtime.spawn(step.in_current_span())
}

/// Returns what a task gives; one that panicked or was ended with its runtime is an error.
pub(super) async fn joined<T>(task: tokio::task::JoinHandle<Result<T>>) -> Result<T> {
    match task.await {
        Ok(result) => result,
        Err(_) => {
            Err(Error::new(ErrorKind::ShutDown)
                .with_message("the runtime ended before the step did"))
        }
    }
}
