//! A local sandbox: how it comes to be, and its live run for whoever does something with it.
//!
//! Who works on the files or starts a command holds the live run for reading; who forks or closes
//! holds it for writing. The locks are held over awaits on purpose: a layer must not be frozen
//! while somebody is writing into it.

pub(crate) mod command;
pub(crate) mod live;
mod operations;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use sandbox_core::{
    Capability, Command, Env, EnvValue, Error, ErrorKind, GuestPath, Labels, Operation, Process,
    Ran, Result, Sandbox as _, SandboxId, SandboxSpec,
};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock as AsyncRwLock};

use self::command::Prepared;
use self::live::Live;
use crate::files::GuestRoot;
use crate::isolation;
use crate::layers::skeleton::{GUEST_HOME, GUEST_USER};
use crate::provider::CAPABILITIES;
use crate::provider::pool::Pooled;
use crate::start::blueprint::Blueprint;
use crate::start::dormant::Dormant;
use crate::start::host::{Shared, new_id};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One sandbox. Handles are `Arc`s of it.
#[derive(Debug)]
pub(crate) struct LocalSandbox {
    id: SandboxId,
    parent: Option<SandboxId>,
    labels: Labels,
    created: SystemTime,
    shared: Arc<Shared>,
    blueprint: Arc<Blueprint>,
    settings: RwLock<Settings>,
    live: Arc<AsyncRwLock<Option<Live>>>,
    closed: Arc<AtomicBool>,
    /// Also held by every running command: while one runs the sandbox is in use.
    in_use: Arc<()>,
    /// Milliseconds from `born` to the last use.
    last_use: AtomicU64,
    born: Instant,
}

#[derive(Clone, Debug)]
struct Settings {
    workdir: GuestPath,
    env: BTreeMap<Vec<u8>, EnvValue>,
}

/// Who a new sandbox is.
struct Identification {
    parent: Option<SandboxId>,
    labels: Labels,
}

impl LocalSandbox {
    pub(crate) async fn create(shared: Arc<Shared>, spec: SandboxSpec) -> Result<Arc<Self>> {
        let (id, blueprint, live) = Self::first(&shared, spec).await?;
        if let Err(error) = isolation::require(&live, &blueprint, &shared.proven).await {
            live.shut_down().await;
            return Err(error);
        }
        let mut env = BTreeMap::new();
        let base = Env::new()
            .set("PATH", PATH)
            .set("HOME", GUEST_HOME)
            .set("USER", GUEST_USER)
            .set("LOGNAME", GUEST_USER)
            .set("SHELL", "/bin/sh")
            .set("LANG", "C.UTF-8");
        base.apply_to(&mut env);
        blueprint.spec.env.apply_to(&mut env);
        let settings = Settings {
            workdir: blueprint.workdir.clone(),
            env,
        };
        let who = Identification {
            parent: None,
            labels: blueprint.spec.labels.clone(),
        };
        Ok(Self::enter(shared, blueprint, id, who, settings, live))
    }

    /// The first run: one that waits, or a new one.
    async fn first(
        shared: &Arc<Shared>,
        spec: SandboxSpec,
    ) -> Result<(SandboxId, Arc<Blueprint>, Live)> {
        const OP: Operation = Operation::Create;
        spec.validate()?;
        if let Some(Pooled { id, blueprint, run }) = shared.pool.take(&spec) {
            let live = Live::wake(run, shared, OP)?;
            let blueprint = Blueprint { spec, ..blueprint };
            return Ok((id, Arc::new(blueprint), live));
        }
        let shared = shared.clone();
        // In one piece: each change of threads would cost as much as many of its system calls.
        blocking(OP, move || {
            let id = new_id(OP)?;
            let blueprint = Arc::new(Blueprint::new(&shared, spec)?);
            let run = Dormant::first(&shared, &blueprint, id.as_str())
                .map_err(|error| error.with_sandbox(id.clone()))?;
            let live = Live::wake(run, &shared, OP)?;
            Ok((id, blueprint, live))
        })
        .await
    }

    fn enter(
        shared: Arc<Shared>,
        blueprint: Arc<Blueprint>,
        id: SandboxId,
        who: Identification,
        settings: Settings,
        live: Live,
    ) -> Arc<Self> {
        let sandbox = Arc::new(Self {
            id: id.clone(),
            parent: who.parent,
            labels: who.labels,
            created: SystemTime::now(),
            shared: shared.clone(),
            blueprint,
            settings: RwLock::new(settings),
            live: Arc::new(AsyncRwLock::new(Some(live))),
            closed: Arc::new(AtomicBool::new(false)),
            in_use: Arc::new(()),
            last_use: AtomicU64::new(0),
            born: Instant::now(),
        });
        shared.enter(id, &sandbox);
        if let Some(ttl) = sandbox.blueprint.spec.ttl {
            tokio::spawn(expire(Arc::downgrade(&sandbox), ttl));
        }
        sandbox
    }

    fn settings(&self) -> Settings {
        // Settings are replaced whole: a panic elsewhere leaves them valid.
        self.settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(
            &mut self
                .settings
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn resolve(&self, path: &GuestPath, operation: Operation) -> Result<GuestPath> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        path.resolve(&settings.workdir, operation)
            .map_err(|error| self.tell(error))
    }

    fn tell(&self, error: Error) -> Error {
        error.with_sandbox(self.id.clone())
    }

    fn touch(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_use.store(now, Ordering::Relaxed);
    }

    fn check_open(&self, operation: Operation) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed(operation, &self.id));
        }
        Ok(())
    }

    /// The live run, held against forks and `close` as long as the guard lives.
    async fn live(&self, operation: Operation) -> Result<OwnedRwLockReadGuard<Option<Live>, Live>> {
        self.check_open(operation)?;
        self.touch();
        let live = self.run(operation).await?;
        if live.engine.lost() {
            return Err(self.lost(operation));
        }
        Ok(live)
    }

    /// A run in which something may be done: one that a fork has frozen is renewed first. If the
    /// future is dropped meanwhile, the next one does it.
    async fn run(&self, operation: Operation) -> Result<OwnedRwLockReadGuard<Option<Live>, Live>> {
        let frozen = |live: &Live| live.is_frozen() && !live.engine.lost();
        let mut guard = self.live.clone().read_owned().await;
        if guard.as_ref().is_some_and(frozen) {
            drop(guard);
            let mut alone = self.live.clone().write_owned().await;
            if let Some(live) = alone.as_mut().filter(|live| frozen(live)) {
                live.renew(&self.shared, &self.blueprint, operation)
                    .await
                    .map_err(|error| self.tell(error))?;
            }
            guard = alone.downgrade();
        }
        OwnedRwLockReadGuard::try_map(guard, Option::as_ref)
            .map_err(|_| Error::closed(operation, &self.id))
    }

    fn lost(&self, operation: Operation) -> Error {
        if self.closed.load(Ordering::Acquire) {
            return Error::closed(operation, &self.id);
        }
        self.tell(Error::new(ErrorKind::Lost, operation))
            .with_message("the sandbox's init is gone; it was killed from outside")
    }

    /// Works on the files, on a thread for blocking work. If the future is dropped the work goes
    /// on to its end, and holds the live run until then.
    async fn files<T, F>(&self, operation: Operation, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&GuestRoot) -> Result<T> + Send + 'static,
    {
        let live = self.live(operation).await?;
        let done = blocking(operation, move || {
            let result = work(&live.root);
            drop(live);
            result
        });
        done.await.map_err(|error| self.tell(error))
    }

    fn prepare(&self, command: &Command, operation: Operation) -> Result<Prepared> {
        command
            .validate(operation)
            .map_err(|error| self.tell(error))?;
        if command.user.is_some() {
            CAPABILITIES
                .require(Capability::User, operation)
                .map_err(|error| self.tell(error).with_ran(Ran::NotStarted))?;
        }
        let settings = self.settings();
        command::prepare(command, &settings.workdir, settings.env, operation)
            .map_err(|error| self.tell(error).with_ran(Ran::NotStarted))
    }

    async fn start(&self, command: Command, operation: Operation) -> Result<Process> {
        let prepared = self.prepare(&command, operation)?;
        let not_started = |error: Error| error.with_ran(Ran::NotStarted);
        let live = self.live(operation).await.map_err(not_started)?;
        let context = command::Context {
            sandbox: self.id.clone(),
            closed: self.closed.clone(),
            operation,
            _in_use: self.in_use.clone(),
        };
        command::start(&live.engine, prepared, &command, context).await
    }

    async fn fork_live(&self) -> Result<(SandboxId, Live)> {
        self.check_open(Operation::Fork)?;
        self.touch();
        let id = new_id(Operation::Fork)?;
        let guard = self.live.clone().write_owned().await;
        let live = OwnedRwLockWriteGuard::try_map(guard, Option::as_mut)
            .map_err(|_| Error::closed(Operation::Fork, &self.id))?;
        if live.engine.lost() {
            return Err(self.lost(Operation::Fork));
        }
        let child = Live::fork(live, &self.shared, &self.blueprint, id.as_str()).await;
        Ok((id, child.map_err(|error| self.tell(error))?))
    }
}

/// Runs blocking work; a panic in it is an error of the operation.
pub(crate) async fn blocking<T: Send + 'static>(
    operation: Operation,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Other, operation)
                .with_message("the operation's thread ended early")
                .with_source(error))
        })
}

/// Closes a sandbox that was not used for a while.
async fn expire(sandbox: std::sync::Weak<LocalSandbox>, ttl: Duration) {
    loop {
        let left = match sandbox.upgrade() {
            Some(sandbox) if !sandbox.closed.load(Ordering::Acquire) => {
                if Arc::strong_count(&sandbox.in_use) > 1 {
                    sandbox.touch();
                }
                let last = Duration::from_millis(sandbox.last_use.load(Ordering::Relaxed));
                let left = (last + ttl).saturating_sub(sandbox.born.elapsed());
                if left.is_zero() {
                    if let Err(error) = sandbox.close().await {
                        tracing::warn!(id = %sandbox.id, %error, "an expired sandbox did not close");
                    }
                    return;
                }
                left
            }
            _ => return,
        };
        tokio::time::sleep(left).await;
    }
}

impl Drop for LocalSandbox {
    fn drop(&mut self) {
        self.shared.leave(&self.id);
    }
}
