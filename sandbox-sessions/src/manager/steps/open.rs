//! Beginning of a session: found, made, forked.
//!
//! Each is written down before it is made and after it; what a failed step leaves is named by the
//! journal or marked by a label.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sandbox_core::{Capability, ForkOptions, Labels, Sandbox, SandboxSpec};
use tokio::task::JoinSet;

use super::{joined, step};
use crate::activity::Use;
use crate::journal::Record;
use crate::manager::entry::{Entry, Hold, describe};
use crate::manager::gates::{Gate, Gates};
use crate::manager::{Manager, OWNER_LABEL, SESSION_LABEL, Session};
use crate::name::Name;
use crate::queue::Place;
use crate::{
    Clock, Error, ErrorKind, Key, Result, SessionId, SessionOptions, Wait, Why, fingerprint,
};

impl Manager {
    pub(in crate::manager) async fn get_or_create(
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

    pub(in crate::manager) async fn get(inner: &Arc<Self>, name: Name) -> Result<Session> {
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
    pub(in crate::manager) async fn create(
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

    pub(super) fn marked(&self, id: &SessionId, mut spec: SandboxSpec) -> SandboxSpec {
        spec.labels.extend(self.marks(id));
        spec
    }

    /// A new session whose sandbox is a fork of another's.
    pub(in crate::manager) async fn fork(
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
