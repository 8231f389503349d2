//! A local sandbox: its handle, and the access that operations have to the run behind it.
//!
//! Operations on files and starts of commands hold the run for reading; a fork holds it for
//! writing. The locks are held over awaits on purpose: a layer must not be frozen while an
//! operation writes into it. What kills the run must never need the lock.

pub(crate) mod capability;
mod changes;
pub(crate) mod command;
mod deadline;
mod ended;
mod facts;
mod kill_switch;
mod lost;
mod memory;
mod operations;
mod pause;
mod port;
mod processes;
pub(crate) mod running;
mod stream;
mod usage;
mod watch;

use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

use sandbox_core::backend::{Jobs, Settings, blocking};
use sandbox_core::{
    Capability, Command, Error, ErrorKind, Execution, GuestPath, Labels, Operation, Process,
    Result, Sandbox as _, SandboxId,
};
use sandbox_egress::Egress;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock as AsyncRwLock};

use self::capability::CAPABILITIES;
use self::command::PreparedCommand;
use self::deadline::Deadline;
use self::ended::Ended;
pub(crate) use self::facts::OpenSandboxes;
use self::facts::{Facts, Use};
use self::kill_switch::KillSwitch;
use self::memory::Memory;
use self::running::Running;
use crate::engine::Frozen;
use crate::file_operations::FileOperations;
use crate::files::GuestRoot;
use crate::lasting::kept::Kept;
use crate::layers::stack::Stack;
use crate::open_files;
use crate::runtime;
use crate::start::blueprint::Blueprint;
use crate::start::cgroup::Cgroup;
use crate::start::host::{Host, new_id};

/// Time that an operation waits for another that holds the run: a fork for a transfer, say.
const LONGEST_TURN: Duration = Duration::from_secs(60);

/// One sandbox. Handles are `Arc`s of it.
#[derive(Debug)]
pub(crate) struct LocalSandbox {
    id: SandboxId,
    facts: Arc<Facts>,
    host: Arc<Host>,
    open: Arc<OpenSandboxes>,
    blueprint: Arc<Blueprint>,
    jobs: Jobs,
    running: Arc<AsyncRwLock<Option<Running>>>,
    /// Egress of the run, which outlives it.
    egress: Option<Arc<Egress>>,
    /// Holds everything still, if it is paused.
    paused: Mutex<Option<Frozen>>,
    /// Held by the one that pauses or resumes.
    pausing: tokio::sync::Mutex<()>,
    /// Record on the disk, if it lasts.
    kept: Option<Arc<Kept>>,
    kill_switch: KillSwitch,
    ended: Arc<Ended>,
}

/// Origin of a new sandbox.
pub(crate) struct Origin {
    pub(crate) host: Arc<Host>,
    pub(crate) open: Arc<OpenSandboxes>,
    pub(crate) blueprint: Arc<Blueprint>,
    pub(crate) settings: Settings,
    pub(crate) parent: Option<SandboxId>,
    pub(crate) labels: Labels,
    pub(crate) kept: Option<Arc<Kept>>,
    /// Whether it was there before, and stopped.
    pub(crate) restarted: bool,
}

impl LocalSandbox {
    /// A sandbox that is open from now on.
    pub(crate) fn open(origin: Origin, id: SandboxId, running: Running) -> Arc<Self> {
        let kill_switch = KillSwitch::default();
        kill_switch.connect(running.engine.killer());
        let ended = Arc::default();
        let sandbox = Arc::new_cyclic(|handle| Self {
            facts: Arc::new(Facts {
                id: id.clone(),
                parent: origin.parent,
                labels: origin.labels,
                created: match &origin.kept {
                    Some(kept) => kept.created(),
                    None => SystemTime::now(),
                },
                restarted: origin.restarted.then(SystemTime::now),
                command_timeout: origin.blueprint.spec.command_timeout,
                lasting: origin.kept.is_some(),
                settings: RwLock::new(origin.settings),
                handle: Weak::clone(handle),
                ended: Arc::clone(&ended),
                usage: Use::new(),
            }),
            id: id.clone(),
            kept: origin.kept,
            host: origin.host,
            open: origin.open,
            blueprint: origin.blueprint,
            jobs: Jobs::new(id),
            egress: running.egress().cloned(),
            paused: Mutex::default(),
            pausing: tokio::sync::Mutex::default(),
            running: Arc::new(AsyncRwLock::new(Some(running))),
            kill_switch,
            ended,
        });
        sandbox.open.insert(&sandbox.facts);
        if let Some(ttl) = sandbox.blueprint.spec.ttl {
            let kept = sandbox.kept.as_ref().map(Arc::downgrade);
            tokio::spawn(expire(Arc::downgrade(&sandbox.facts), kept, ttl));
        }
        sandbox
    }

    /// Changes the settings; those of a lasting sandbox on the disk first.
    async fn change<F>(&self, operation: Operation, change: F) -> Result<()>
    where
        F: FnOnce(&mut Settings) + Send + 'static,
    {
        let Some(kept) = self.kept.clone() else {
            change(
                &mut self
                    .facts
                    .settings
                    .write()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            return Ok(());
        };
        // The handle: a change whose caller has gone is written before another run reads it.
        let Some(sandbox) = self.facts.handle.upgrade() else {
            return Err(self.ended.error(operation, &self.id));
        };
        let changed = blocking(operation, move || {
            // Held meanwhile: the disk has what was set last.
            let mut settings = sandbox
                .facts
                .settings
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let mut new = settings.clone();
            change(&mut new);
            kept.set(&new, operation)?;
            *settings = new;
            Ok(())
        });
        changed.await.map_err(|error| self.named(error))
    }

    fn resolve(&self, path: &GuestPath, operation: Operation) -> Result<GuestPath> {
        let settings = self.facts.settings.read();
        let settings = settings.unwrap_or_else(PoisonError::into_inner);
        path.resolve(&settings.workdir, operation)
            .map_err(|error| self.named(error))
    }

    /// The error, with this sandbox named in it.
    fn named(&self, error: Error) -> Error {
        open_files::told(error.with_sandbox(self.id.clone()))
    }

    fn check_open(&self, operation: Operation) -> Result<()> {
        if self.ended.is_ended() {
            return Err(self.ended.error(operation, &self.id));
        }
        Ok(())
    }

    /// The run in use, held against forks as long as the guard lives.
    async fn running(
        &self,
        operation: Operation,
    ) -> Result<OwnedRwLockReadGuard<Option<Running>, Running>> {
        self.check_open(operation)?;
        runtime::require(operation).map_err(|error| self.named(error))?;
        self.facts.usage.touch();
        let running = self.run(operation).await?;
        match running.engine.lost() {
            Some(why) => Err(self.lost(why, &running.cgroup, operation)),
            None => Ok(running),
        }
    }

    /// A run in which something may be done: one that a fork has frozen is renewed first. If the
    /// future is dropped meanwhile, the next one does it.
    async fn run(
        &self,
        operation: Operation,
    ) -> Result<OwnedRwLockReadGuard<Option<Running>, Running>> {
        let frozen = |running: &Running| running.is_frozen() && running.engine.lost().is_none();
        let mut guard = match self.running.clone().try_read_owned() {
            Ok(guard) => guard,
            Err(_) => {
                self.turn(operation, self.running.clone().read_owned())
                    .await?
            }
        };
        if guard.as_ref().is_some_and(frozen) {
            drop(guard);
            let mut alone = self.alone(operation).await?;
            if let Some(running) = alone.as_mut().filter(|running| frozen(running)) {
                let host = &self.host;
                running
                    .renew(host, &self.blueprint, &self.kill_switch, operation)
                    .await
                    .map_err(|error| self.named(error))?;
            }
            guard = alone.downgrade();
        }
        OwnedRwLockReadGuard::try_map(guard, Option::as_ref)
            .map_err(|_| self.ended.error(operation, &self.id))
    }

    /// The run, held by nothing else.
    async fn alone(&self, operation: Operation) -> Result<OwnedRwLockWriteGuard<Option<Running>>> {
        self.turn(operation, self.running.clone().write_owned())
            .await
    }

    /// Waits for the lock, for a bounded time.
    async fn turn<T>(&self, operation: Operation, lock: impl Future<Output = T>) -> Result<T> {
        let turn = tokio::time::timeout(LONGEST_TURN, lock).await;
        turn.map_err(|_| {
            self.named(Error::new(ErrorKind::Busy, operation))
                .with_message(format!(
                    "another operation on the sandbox (a fork, or a transfer that a fork waits \
                     for) has not ended within {LONGEST_TURN:?}"
                ))
                .with_hint("wait for it, or close the sandbox")
                .with_retryable(true)
        })
    }

    fn lost(&self, why: crate::engine::Lost, cgroup: &Cgroup, operation: Operation) -> Error {
        if self.ended.is_ended() {
            return self.ended.error(operation, &self.id);
        }
        self.named(lost::error(why, cgroup, operation))
    }

    fn prepare(&self, command: &Command, operation: Operation) -> Result<PreparedCommand> {
        command
            .validate(operation)
            .map_err(|error| self.named(error))?;
        if command.user.is_some() {
            CAPABILITIES
                .require(Capability::User, operation)
                .map_err(|error| self.named(error).with_execution(Execution::NotStarted))?;
        }
        let settings = self.facts.settings();
        command::prepare(command, &settings.workdir, settings.env, operation)
            .map_err(|error| self.named(error).with_execution(Execution::NotStarted))
    }

    async fn start(
        &self,
        command: Command,
        deadline: Deadline,
        operation: Operation,
    ) -> Result<Process> {
        let not_started = |error: Error| error.with_execution(Execution::NotStarted);
        runtime::require(operation)
            .map_err(|error| self.named(error))
            .map_err(not_started)?;
        let prepared = self.prepare(&command, operation)?;
        self.check_open(operation).map_err(not_started)?;
        self.check_runs(operation)?;
        let running = match deadline.limit(self.running(operation)).await {
            Some(running) => running.map_err(not_started)?,
            None => return Err(self.named(deadline.not_started(operation))),
        };
        let terminal = match command.terminal {
            None => None,
            Some(options) => {
                let root = running.root.clone();
                let made = blocking(operation, move || root.open_terminal(&options, operation));
                match deadline.limit(made).await {
                    Some(made) => Some(made.map_err(|error| not_started(self.named(error)))?),
                    None => return Err(self.named(deadline.not_started(operation))),
                }
            }
        };
        let context = command::Context {
            sandbox: self.id.clone(),
            ended: self.ended.clone(),
            operation,
            cgroup: running.cgroup.clone(),
            memory: Memory::now(running.cgroup.clone()),
            _in_use: self.facts.usage.now.clone(),
        };
        command::start(
            &running.engine,
            prepared,
            &command,
            terminal,
            deadline,
            context,
        )
        .await
        .map_err(open_files::told)
    }

    /// A second sandbox's run, and the settings that this one had as its files were looked at.
    async fn fork_running(&self) -> Result<(SandboxId, Settings, Running)> {
        const OP: Operation = Operation::Fork;
        self.check_open(OP)?;
        runtime::require(OP).map_err(|error| self.named(error))?;
        self.facts.usage.touch();
        let id = new_id(OP)?;
        let running = OwnedRwLockWriteGuard::try_map(self.alone(OP).await?, Option::as_mut)
            .map_err(|_| self.ended.error(OP, &self.id))?;
        if let Some(why) = running.engine.lost() {
            return Err(self.lost(why, &running.cgroup, OP));
        }
        self.check_runs(OP)?;
        let settings = self.facts.settings();
        let child = Running::fork(running, &self.host, &self.blueprint).await;
        let child = child.map_err(|error| self.unless_closed(error, OP))?;
        Ok((id, settings, child))
    }

    /// The sandbox's layers above what it started from, none of which is written any more.
    async fn frozen_layers(&self) -> Result<Stack> {
        const OP: Operation = Operation::Snapshot;
        self.check_open(OP)?;
        runtime::require(OP).map_err(|error| self.named(error))?;
        self.facts.usage.touch();
        let running = OwnedRwLockWriteGuard::try_map(self.alone(OP).await?, Option::as_mut)
            .map_err(|_| self.ended.error(OP, &self.id))?;
        if let Some(why) = running.engine.lost() {
            return Err(self.lost(why, &running.cgroup, OP));
        }
        let layers = Running::layers(running, &self.host).await;
        layers.map_err(|error| self.unless_closed(error.with_operation(OP), OP))
    }

    /// The error, unless the sandbox was closed meanwhile: then that is the reason.
    fn unless_closed(&self, error: Error, operation: Operation) -> Error {
        if self.ended.is_ended() {
            return self.ended.error(operation, &self.id).with_source(error);
        }
        self.named(error)
    }
}

impl FileOperations for LocalSandbox {
    /// If the future is dropped the work goes on to its end, and holds the run until then.
    async fn on_files<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&GuestRoot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let running = self.running(operation).await?;
        let done = blocking(operation, move || {
            let result = work(&running.root);
            drop(running);
            result
        });
        done.await.map_err(|error| self.named(error))
    }
}

/// Closes a sandbox that was not used for a while. Holds it only for that.
async fn expire(facts: Weak<Facts>, kept: Option<Weak<Kept>>, ttl: Duration) {
    loop {
        let left = match facts.upgrade() {
            Some(facts) if !facts.ended.is_ended() => facts.usage.left_of(ttl),
            _ => return,
        };
        if left.is_zero() {
            let sandbox = facts.upgrade().and_then(|facts| facts.handle.upgrade());
            if let Some(sandbox) = sandbox {
                sandbox.ended.expire();
                if let Err(error) = sandbox.close().await {
                    tracing::warn!(id = %sandbox.id, %error, "an expired sandbox did not close");
                }
            }
            return;
        }
        if let Some(kept) = kept.clone() {
            // What goes wrong is logged there, and there is a next time.
            let _ = blocking(Operation::Create, move || {
                if let Some(kept) = kept.upgrade() {
                    kept.touch();
                }
                Ok(())
            })
            .await;
        }
        tokio::time::sleep(left).await;
    }
}

impl Drop for LocalSandbox {
    fn drop(&mut self) {
        // A lasting one may have been started again by now, under the same name.
        if self.kept.is_none() {
            self.open.remove(&self.id);
        }
    }
}
