//! A local sandbox: the trait's methods, over a live run of it.
//!
//! Who works on the files or starts a command holds the live run for reading; who forks or closes
//! holds it for writing. The locks are held over awaits on purpose: a layer must not be frozen
//! while somebody is writing into it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    Capabilities, Capability, CollectOptions, Command, CreateDirOptions, DirEntry, Env, EnvValue,
    Error, ErrorKind, ExportOptions, FileBatch, ForkOptions, GuestPath, ImportOptions,
    IsolationReport, Labels, ListOptions, Metadata, Operation, Output, Process, Ran, ReadOptions,
    RemoveOptions, RenameOptions, Result, Sandbox, SandboxId, SandboxInfo, SandboxSpec, Snapshot,
    SnapshotOptions, Stdin, TransferReport,
};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock as AsyncRwLock};

use crate::blueprint::Blueprint;
use crate::command::{self, Prepared};
use crate::dormant::Dormant;
use crate::files::{CancelFlag, GuestRoot};
use crate::isolation;
use crate::live::Live;
use crate::pool::Pooled;
use crate::provider::CAPABILITIES;
use crate::shared::Shared;
use crate::skeleton::{GUEST_HOME, GUEST_USER};
use crate::state::{Layer, random_hex};

/// How long `close` waits for file operations that are under way, and for what it removes.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

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

pub(crate) fn new_id(operation: Operation) -> Result<SandboxId> {
    match random_hex() {
        Ok(hex) => Ok(SandboxId::new(&hex[..16])),
        Err(error) => Err(Error::from_io(error, operation)),
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

/// Stops a transfer when the future that waits for it is dropped.
struct CancelOnDrop(CancelFlag);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Drop for LocalSandbox {
    fn drop(&mut self) {
        self.shared.leave(&self.id);
    }
}

#[async_trait]
impl Sandbox for LocalSandbox {
    fn info(&self) -> SandboxInfo {
        let workdir = self.settings().workdir;
        let mut info = SandboxInfo::new(self.id.clone(), "local", workdir)
            .with_labels(self.labels.clone())
            .with_command_timeout(self.blueprint.spec.command_timeout);
        info.parent = self.parent.clone();
        info.created = self.created;
        info
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        const OP: Operation = Operation::Isolation;
        self.check_open(OP)?;
        // Not through `live`: asking is no use, and must not keep an idle sandbox from expiring.
        let live = self.run(OP).await?;
        isolation::report(&live, &self.blueprint)
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::Lost => self.lost(OP),
                _ => self.tell(error),
            })
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        let mut options = CollectOptions::default();
        options.timeout = command.timeout.or(self.blueprint.spec.command_timeout);
        options.stdout_limit = command.stdout_limit;
        options.stderr_limit = command.stderr_limit;
        options.sandbox = Some(self.id.clone());
        if let Stdin::Bytes(bytes) = &command.stdin {
            options.stdin = bytes.clone();
        }
        let process = self.start(command, Operation::Exec).await?;
        let output = process.wait_with_output(options).await;
        self.touch();
        output
    }

    async fn spawn(&self, mut command: Command) -> Result<Process> {
        command.timeout = command.timeout.or(self.blueprint.spec.command_timeout);
        self.start(command, Operation::Spawn).await
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        self.check_open(Operation::WriteFiles)?;
        let workdir = self.settings().workdir;
        self.files(Operation::WriteFiles, move |root| {
            root.write(&batch.resolve(&workdir)?)
        })
        .await
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        let path = self.resolve(path, Operation::ReadFile)?;
        self.files(Operation::ReadFile, move |root| root.read(&path, &options))
            .await
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        let path = self.resolve(path, Operation::ListDir)?;
        self.files(Operation::ListDir, move |root| root.list(&path, &options))
            .await
    }

    async fn metadata(&self, path: &GuestPath) -> Result<Metadata> {
        let path = self.resolve(path, Operation::Metadata)?;
        self.files(Operation::Metadata, move |root| root.metadata(&path))
            .await
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        let path = self.resolve(path, Operation::Remove)?;
        self.files(Operation::Remove, move |root| root.remove(&path, &options))
            .await
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        let path = self.resolve(path, Operation::CreateDir)?;
        self.files(Operation::CreateDir, move |root| {
            root.create_dir(&path, &options)
        })
        .await
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        let from = self.resolve(from, Operation::Rename)?;
        let to = self.resolve(to, Operation::Rename)?;
        self.files(Operation::Rename, move |root| {
            root.rename(&from, &to, &options)
        })
        .await
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        let to = self.resolve(to, Operation::ImportDir)?;
        let from = from.to_owned();
        self.files(Operation::ImportDir, move |root| {
            root.import(&from, &to, &options)
        })
        .await
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        let from = self.resolve(from, Operation::ExportDir)?;
        let to = to.to_owned();
        // Of this call alone: dropping its future stops it between two files.
        let cancel = CancelOnDrop(CancelFlag::default());
        let flag = cancel.0.clone();
        self.files(Operation::ExportDir, move |root| {
            root.export(&from, &to, &options, &flag)
        })
        .await
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        let path = self.resolve(path, Operation::SetWorkdir)?;
        let checked = path.clone();
        self.files(Operation::SetWorkdir, move |root| {
            root.check_dir(&checked, Operation::SetWorkdir)
        })
        .await?;
        self.change(|settings| settings.workdir = path);
        Ok(())
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        changes
            .validate(Operation::SetEnv)
            .map_err(|error| self.tell(error))?;
        let _live = self.live(Operation::SetEnv).await?;
        self.change(|settings| changes.apply_to(&mut settings.env));
        Ok(())
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        let (id, live) = self.fork_live().await?;
        let who = Identification {
            parent: Some(self.id.clone()),
            labels: options.labels,
        };
        let settings = self.settings();
        Ok(Self::enter(
            self.shared.clone(),
            self.blueprint.clone(),
            id,
            who,
            settings,
            live,
        ))
    }

    async fn snapshot(&self, _options: SnapshotOptions) -> Result<Snapshot> {
        self.check_open(Operation::Snapshot)?;
        CAPABILITIES
            .require(Capability::Snapshot, Operation::Snapshot)
            .map_err(|error| self.tell(error))?;
        Err(self.tell(Error::new(ErrorKind::Unsupported, Operation::Snapshot)))
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        self.shared.leave(&self.id);
        let live = self.live.clone();
        let state = self.shared.state.clone();
        // In a task: dropping the future of `close` does not stop the closing.
        let closing = tokio::spawn(async move {
            // Kill first: commands and operations that hold the lock then come to their end.
            if let Ok(live) = live.try_read()
                && let Some(live) = live.as_ref()
            {
                live.kill();
            }
            let taken = tokio::time::timeout(CLOSE_GRACE, live.write()).await;
            let Some(live) = taken.ok().and_then(|mut live| live.take()) else {
                return;
            };
            live.shut_down().await;
            // Bounded: what is not removed by then is removed later.
            let _ = tokio::time::timeout(CLOSE_GRACE, Layer::settled(&state)).await;
        });
        closing.await.map_err(|error| {
            self.tell(Error::new(ErrorKind::Other, Operation::Close))
                .with_message("the sandbox was closed, but not everything was freed")
                .with_source(error)
        })
    }
}
