//! The sessions themselves: what is known, the steps that change it, the tasks in the background.
//!
//! Every step that changes a session is made under its name's gate and by a task of its own, so
//! that a caller that goes away leaves nothing half done.

mod entry;
mod gates;
mod pool;
mod reaper;
mod recover;
mod session;
mod shutdown;
mod steps;
mod watch;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sandbox_core::{Capability, Provider, Sandbox, SandboxId, SandboxSpec};
use tokio::sync::{Notify, broadcast};

pub use entry::SessionInfo;
pub use recover::Opened;
pub use session::Session;
pub use shutdown::{ShutdownOptions, ShutdownReport};
pub use watch::{Filter, Watch};

use entry::Entry;
use gates::Gates;
use pool::Shape;

use crate::journal::Journal;
use crate::name::Name;
use crate::queue::{Place, Queue};
use crate::{
    Error, ErrorKind, Key, OnIdle, Result, SessionId, SessionOptions, SessionsConfig, Tenant, Why,
};

/// The label that says whose sandbox it is: the identifier of a journal.
const OWNER_LABEL: &str = "sandbox-sessions-owner";
/// The label that says which session's it is.
const SESSION_LABEL: &str = "sandbox-session";

/// Number of changes that a watcher may fall behind.
const CHANGES: usize = 1024;

/// Sandboxes kept for tenants under keys. See the [crate](crate) for the whole.
///
/// A clone is the same sessions. When the last clone and the last [`Session`] are dropped, what
/// runs in the background stops; sandboxes are then left to what the backend does with dropped
/// handles, so that [`shutdown`](Sessions::shutdown) is the way to end.
#[derive(Clone, Debug)]
pub struct Sessions {
    inner: Arc<Manager>,
}

/// Counts of sessions, places, waiting callers and sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Sessions, suspended ones included.
    pub sessions: usize,
    /// Places in the limits that are taken.
    pub places: usize,
    /// Callers that wait for a place.
    pub waiting: usize,
    /// Jobs that run in sessions.
    pub jobs: usize,
    /// Sandboxes of the pool that are ready.
    pub pool_ready: usize,
    /// Sandboxes that the backend did not destroy yet.
    pub doomed: usize,
}

/// A sandbox that has to go and did not. It stays in its list while it is tried again.
#[derive(Debug)]
struct Doomed {
    id: SessionId,
    /// The handle, where there is one.
    raw: Option<Arc<dyn Sandbox>>,
    sandbox: SandboxId,
    /// Place that it holds until it is gone.
    _place: Option<Place>,
    /// Whether its end is the end of what the journal has under this identifier.
    ends: bool,
    is_tried: bool,
}

impl Doomed {
    fn new(
        id: SessionId,
        raw: Option<Arc<dyn Sandbox>>,
        sandbox: SandboxId,
        place: Option<Place>,
        ends: bool,
    ) -> Self {
        Self {
            id,
            raw,
            sandbox,
            _place: place,
            ends,
            is_tried: false,
        }
    }
}

#[derive(Debug)]
struct Manager {
    provider: Arc<dyn Provider>,
    config: SessionsConfig,
    journal: Journal,
    owner: SessionId,
    handle: tokio::runtime::Handle,
    queue: Arc<Queue>,
    /// Turns of callers that look for or make the session of a name, so that those at the same time
    /// get one, and one of them waits for its place. Taken before the gate.
    turns: Arc<Gates>,
    gates: Arc<Gates>,
    entries: Mutex<HashMap<Name, Arc<Entry>>>,
    /// Identifiers of what is being made or destroyed and is in no other list.
    pending: Mutex<HashSet<SessionId>>,
    doomed: Mutex<Vec<Doomed>>,
    shapes: Vec<Shape>,
    /// Held by the sweep that is under way.
    sweeping: tokio::sync::Mutex<()>,
    /// Wakes the reaper.
    wake: Arc<Notify>,
    /// When the reaper looks next.
    planned: Mutex<Option<SystemTime>>,
    changes: broadcast::Sender<SessionInfo>,
    /// Number of steps that are under way.
    steps: tokio::sync::watch::Sender<usize>,
    phase: tokio::sync::watch::Sender<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Down,
    Ended,
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.refill();
        self.wake.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A step under way; over when dropped.
struct Busy(tokio::sync::watch::Sender<usize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|steps| *steps = steps.saturating_sub(1));
    }
}

impl Manager {
    fn entries(&self) -> MutexGuard<'_, HashMap<Name, Arc<Entry>>> {
        lock(&self.entries)
    }

    fn pending(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        lock(&self.pending)
    }

    fn doomed(&self) -> MutexGuard<'_, Vec<Doomed>> {
        lock(&self.doomed)
    }

    fn busy(&self) -> Busy {
        self.steps.send_modify(|steps| *steps += 1);
        Busy(self.steps.clone())
    }

    /// Begins a step, unless the journal and what it names may be another process's by now.
    fn begin(&self) -> Result<Busy> {
        let busy = self.busy();
        match *self.phase.borrow() {
            Phase::Ended => Err(Error::shut_down()),
            Phase::Open | Phase::Down => Ok(busy),
        }
    }

    fn is_down(&self) -> bool {
        *self.phase.borrow() != Phase::Open
    }

    /// Wakes the tasks that fill the pool.
    fn refill(&self) {
        for shape in &self.shapes {
            shape.refill.notify_one();
        }
    }

    fn plan(&self, next: Option<SystemTime>) {
        *lock(&self.planned) = next;
    }

    /// Wakes the reaper if this comes before what it waits for.
    fn wake_by(&self, time: Option<SystemTime>) {
        let Some(time) = time else { return };
        if lock(&self.planned).is_none_or(|planned| time < planned) {
            self.wake.notify_one();
        }
    }

    /// A step of the backend, within its time.
    async fn bounded<T>(
        &self,
        step: impl Future<Output = sandbox_core::Result<T>>,
    ) -> sandbox_core::Result<T> {
        let limit = self.config.backend_timeout;
        match tokio::time::timeout(limit, step).await {
            Ok(result) => result,
            Err(_) => Err(sandbox_core::Error::new(
                sandbox_core::ErrorKind::Unavailable,
                sandbox_core::Operation::Connect,
            )
            .with_message(format!("the backend did not answer within {limit:?}"))
            .with_retryable(true)),
        }
    }

    /// A status may have changed; `gone` is a sandbox of it that was found to be gone or closed.
    fn changed(self: &Arc<Self>, entry: &Arc<Entry>, gone: Option<&SandboxId>) {
        if entry.news().is_some() {
            // Without a watcher there is none to tell.
            let _ = self.changes.send(entry.info(self.config.clock.now()));
        }
        if let Some(gone) = gone {
            let (inner, entry, gone) = (self.clone(), entry.clone(), gone.clone());
            self.handle.spawn(async move {
                if let Err(error) = Self::end_lost(&inner, &entry, gone).await {
                    tracing::warn!(id = %entry.id, %error, "a lost session was not ended cleanly");
                }
            });
        }
    }
}

impl Sessions {
    /// Opens the sessions: takes up what the journal names and the backend still has, destroys what
    /// was half made, and starts the tasks in the background on the runtime that it is called on.
    ///
    /// Dropping the future leaves what was there as it was.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] if another process has the journal; [`ErrorKind::Journal`] if it can't be
    /// read or is damaged; [`ErrorKind::InvalidInput`] for a configuration that can't be right, and
    /// outside of a tokio runtime with time;
    /// [`ErrorKind::Sandbox`] if the backend can't say what there is.
    pub async fn open(provider: Arc<dyn Provider>, config: SessionsConfig) -> Result<Self> {
        Ok(Self::open_with_report(provider, config).await?.0)
    }

    /// [`open`](Sessions::open), and what was found.
    ///
    /// # Errors
    /// Those of [`open`](Sessions::open).
    pub async fn open_with_report(
        provider: Arc<dyn Provider>,
        config: SessionsConfig,
    ) -> Result<(Self, Opened)> {
        sandbox_core::backend::require_time(sandbox_core::Operation::Create)?;
        check(&config, &*provider)?;
        let (journal, book) = match &config.journal {
            Some(directory) => Journal::open(directory, config.sync).await?,
            None => Journal::none(),
        };
        let owner = book.owner.clone().unwrap_or_else(SessionId::generate);
        let inner = Arc::new(Manager {
            queue: Queue::new(config.limits),
            shapes: config.pools.iter().cloned().map(Shape::new).collect(),
            provider,
            config,
            journal,
            owner,
            handle: tokio::runtime::Handle::current(),
            turns: Arc::default(),
            gates: Arc::default(),
            entries: Mutex::default(),
            pending: Mutex::default(),
            doomed: Mutex::default(),
            sweeping: tokio::sync::Mutex::default(),
            wake: Arc::default(),
            planned: Mutex::default(),
            changes: broadcast::channel(CHANGES).0,
            steps: tokio::sync::watch::channel(0).0,
            phase: tokio::sync::watch::channel(Phase::Open).0,
        });
        let opened = inner.recover(book).await?;
        inner.handle.spawn(reaper::run(Arc::downgrade(&inner)));
        for shape in 0..inner.shapes.len() {
            let filled = pool::keep_filled(Arc::downgrade(&inner), shape);
            inner.handle.spawn(filled);
        }
        Ok((Self { inner }, opened))
    }

    /// The session of a tenant's key: the one that is there, or a new one with this specification.
    ///
    /// Callers that ask for the same name at the same time get the same session. Without a place in
    /// the limits the call waits in a queue that is fair between tenants. This is use of the
    /// session.
    ///
    /// Dropping the future leaves the queue. A creation that has begun goes on; its session is
    /// there for the next call.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if it is there with another specification; [`ErrorKind::Full`] if as
    /// many callers wait as may; [`ErrorKind::InvalidInput`] for a name that can't be one;
    /// [`ErrorKind::ShutDown`]; [`ErrorKind::Journal`]; [`ErrorKind::Sandbox`] with what the backend
    /// says.
    pub async fn get_or_create(
        &self,
        tenant: impl TryInto<Tenant, Error: Into<Error>>,
        key: impl TryInto<Key, Error: Into<Error>>,
        spec: SandboxSpec,
    ) -> Result<Session> {
        let name = name(tenant, key)?;
        Manager::get_or_create(&self.inner, name, spec, SessionOptions::new()).await
    }

    /// [`get_or_create`](Sessions::get_or_create) with options.
    ///
    /// # Errors
    /// Those of [`get_or_create`](Sessions::get_or_create); [`ErrorKind::Full`] and
    /// [`ErrorKind::Busy`] as [`Wait`](crate::Wait) says.
    pub async fn get_or_create_with(
        &self,
        tenant: impl TryInto<Tenant, Error: Into<Error>>,
        key: impl TryInto<Key, Error: Into<Error>>,
        spec: SandboxSpec,
        options: SessionOptions,
    ) -> Result<Session> {
        let name = name(tenant, key)?;
        Manager::get_or_create(&self.inner, name, spec, options).await
    }

    /// The session of a tenant's key, if it is there. This is use of the session: a suspended one
    /// is resumed.
    ///
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Full`] if a suspended one finds no place.
    pub async fn get(
        &self,
        tenant: impl TryInto<Tenant, Error: Into<Error>>,
        key: impl TryInto<Key, Error: Into<Error>>,
    ) -> Result<Session> {
        let name = name(tenant, key)?;
        Manager::get(&self.inner, name).await
    }

    /// Returns what is known of the session of a tenant's key. It does not count as a use.
    pub fn info(&self, tenant: &Tenant, key: &Key) -> Option<SessionInfo> {
        let name = Name {
            tenant: tenant.clone(),
            key: key.clone(),
        };
        let entry = self.inner.entries().get(&name).cloned()?;
        Some(entry.info(self.inner.config.clock.now()))
    }

    /// Returns what is known of the sessions that the filter means, oldest first. It does not count as a use.
    pub fn list(&self, filter: &Filter) -> Vec<SessionInfo> {
        let now = self.inner.config.clock.now();
        let entries: Vec<_> = self.inner.entries().values().cloned().collect();
        let mut list: Vec<_> = entries
            .iter()
            .map(|entry| entry.info(now))
            .filter(|info| filter.fits(info))
            .collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    /// The sessions that the filter means, and then each change of a status. It does not count as a use.
    pub fn watch(&self, filter: Filter) -> Watch {
        // Subscribed before the list is made: a change in between is told twice, not lost.
        let changes = self.inner.changes.subscribe();
        Watch::new(self.clone(), filter, changes)
    }

    /// Ends the session of a tenant's key. `Ok` if there is none.
    ///
    /// Dropping the future does not stop it.
    ///
    /// # Errors
    /// Those of [`Session::close`].
    pub async fn close(
        &self,
        tenant: impl TryInto<Tenant, Error: Into<Error>>,
        key: impl TryInto<Key, Error: Into<Error>>,
    ) -> Result<()> {
        let name = name(tenant, key)?;
        let entry = self.inner.entries().get(&name).cloned();
        match entry {
            Some(entry) => Manager::end(&self.inner, &entry, Why::Closed).await,
            None => Ok(()),
        }
    }

    /// Compares what is known with what the backend has, now instead of at the next interval: what
    /// is gone is told, leftovers are destroyed. Nothing is done once a shutdown has begun.
    ///
    /// Dropping the future does not stop it.
    pub async fn sweep(&self) {
        let inner = self.inner.clone();
        let sweep = steps::step(&self.inner.handle, async move { inner.sweep().await });
        // It fails if the runtime has ended, and then there is nothing to sweep for.
        let _ = sweep.await;
    }

    /// Counts of sessions, places, waiting callers and sandboxes.
    pub fn stats(&self) -> Stats {
        let (places, waiting) = self.inner.queue.counts();
        let (sessions, jobs) = {
            let entries = self.inner.entries();
            let jobs = entries.values().map(|entry| entry.activity.jobs());
            (entries.len(), jobs.sum())
        };
        Stats {
            sessions,
            places,
            waiting,
            jobs,
            pool_ready: self.inner.shapes.iter().map(Shape::ready).sum(),
            doomed: self.inner.doomed().len(),
        }
    }

    /// The provider that sandboxes come from.
    pub fn provider(&self) -> &Arc<dyn Provider> {
        &self.inner.provider
    }

    /// Waits until the shutdown has ended.
    async fn ended(&self) {
        let mut phase = self.inner.phase.subscribe();
        if phase
            .wait_for(|phase| *phase == Phase::Ended)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }
}

fn name(
    tenant: impl TryInto<Tenant, Error: Into<Error>>,
    key: impl TryInto<Key, Error: Into<Error>>,
) -> Result<Name> {
    Ok(Name {
        tenant: tenant.try_into().map_err(Into::into)?,
        key: key.try_into().map_err(Into::into)?,
    })
}

/// Refuses a configuration that can't be right.
fn check(config: &SessionsConfig, provider: &dyn Provider) -> Result<()> {
    let invalid = |why: &str| Err(Error::new(ErrorKind::InvalidInput).with_message(why));
    if config.limits.total == Some(0) || config.limits.per_tenant == Some(0) {
        return invalid("a limit of zero sessions lets none be created");
    }
    let times = [
        Some(config.sweep_every),
        Some(config.backend_timeout),
        config.idle_timeout,
        config.max_life,
    ];
    if times.into_iter().flatten().any(|time| time.is_zero()) {
        return invalid("a time of the configuration is zero");
    }
    let capabilities = provider.capabilities();
    let create = sandbox_core::Operation::Create;
    if config.on_idle == OnIdle::Suspend {
        capabilities.require(Capability::Snapshot, create)?;
    }
    for pool in &config.pools {
        pool.spec.validate()?;
        pool.spec.require(&capabilities, create)?;
    }
    Ok(())
}
