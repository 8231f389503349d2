//! One sandbox under Landlock: the trait, on top of the files of local sandboxes and the processes
//! of plain ones.
//!
//! It must never resolve a path of the guest's other than by descriptors, and never start a command
//! outside of its confinement.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::backend::{Jobs, Settings, blocking};
use sandbox_core::{
    Capabilities, Capability, Command, CreateDirOptions, DirEntry, Env, Error, ErrorKind,
    Execution, ExportOptions, FileBatch, FileWatch, GuestPath, ImportOptions, IsolationReport, Job,
    JobInfo, JobKey, JobOptions, ListOptions, Metadata, MetadataOptions, Operation, Output,
    Process, ReadOptions, RemoveOptions, RenameOptions, Result, Sandbox, SandboxId, SandboxInfo,
    Stdin, TransferReport, WatchOptions,
};
use tokio::sync::watch;

use super::CAPABILITIES;
use super::domain::Confinement;
use super::report::Found;
use crate::file_operations::FileOperations;
use crate::files::GuestRoot;
use crate::plain::group::Groups;
use crate::plain::tree::Tree;
use crate::plain::{process, program};
use crate::runtime;
use crate::sys::{exec, signals};

/// Parts of a sandbox that are made before its handle.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) tree: Tree,
    pub(super) files: GuestRoot,
    pub(super) confinement: Confinement,
    pub(super) own_user: bool,
}

/// Parts of a new sandbox.
pub(super) struct Parts {
    pub(super) made: Made,
    pub(super) settings: Settings,
    pub(super) open_network: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) grace: Duration,
}

/// A directory of the host and the processes that were started in it.
#[derive(Debug)]
pub(super) struct LandlockSandbox {
    /// Handle that a process holds on to.
    this: Weak<Self>,
    info: SandboxInfo,
    tree: Arc<Tree>,
    files: Arc<GuestRoot>,
    confinement: Confinement,
    own_user: bool,
    open_network: bool,
    settings: Mutex<Settings>,
    timeout: Option<Duration>,
    grace: Duration,
    groups: Arc<Groups>,
    jobs: Jobs,
    closed: watch::Sender<bool>,
    /// Held while closing; `true` when that is done.
    freed: Arc<tokio::sync::Mutex<bool>>,
}

impl LandlockSandbox {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let Made {
            tree,
            files,
            confinement,
            own_user,
        } = parts.made;
        let workdir = parts.settings.workdir.clone();
        let id = SandboxId::new(tree.id());
        let info =
            SandboxInfo::new(id.clone(), "local-landlock", workdir).command_timeout(parts.timeout);
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            info,
            tree: Arc::new(tree),
            files: Arc::new(files),
            confinement,
            own_user,
            open_network: parts.open_network,
            settings: Mutex::new(parts.settings),
            timeout: parts.timeout,
            grace: parts.grace,
            groups: Arc::default(),
            jobs: Jobs::new(id.clone()),
            closed: watch::Sender::new(false),
            freed: Arc::default(),
        })
    }

    pub(super) fn id(&self) -> &SandboxId {
        &self.info.id
    }

    /// The handle, as long as there is one.
    pub(super) fn handle(&self) -> Weak<Self> {
        self.this.clone()
    }

    fn settings(&self) -> Settings {
        let now = self.settings.lock();
        now.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn named(&self, error: Error) -> Error {
        error.with_sandbox(self.info.id.clone())
    }

    pub(super) fn check_open(&self, op: Operation) -> Result<()> {
        if *self.closed.borrow() {
            return Err(Error::closed(op, &self.info.id));
        }
        Ok(())
    }

    pub(super) fn resolve(&self, path: &GuestPath, op: Operation) -> Result<GuestPath> {
        path.resolve(&self.settings().workdir, op)
            .map_err(|error| self.named(error))
    }

    /// Resolves a path at which something is made: only in the sandbox's directory.
    fn resolve_own(&self, path: &GuestPath, op: Operation) -> Result<GuestPath> {
        let path = self.resolve(path, op)?;
        if path.strip_prefix(self.tree.guest_root()).is_some() {
            return Ok(path);
        }
        Err(self.named(
            Error::new(ErrorKind::PermissionDenied, op)
                .with_message("the path is outside of the sandbox's directory")
                .with_path(path)
                .with_hint("use a path relative to the workdir"),
        ))
    }

    /// The job, with a handle that keeps its sandbox.
    fn held(&self, job: Job) -> Job {
        match self.this.upgrade() {
            Some(sandbox) => job.keep_alive(sandbox),
            None => job,
        }
    }

    async fn start(&self, command: &Command, op: Operation) -> Result<Process> {
        let lacks = |asked: bool, capability| match asked {
            true => CAPABILITIES.require(capability, op),
            false => Ok(()),
        };
        let host = self
            .check_open(op)
            .and_then(|()| runtime::require(op))
            .and_then(|()| command.validate(op))
            .and_then(|()| lacks(command.user.is_some(), Capability::User))
            .and_then(|()| lacks(command.terminal.is_some(), Capability::Terminal))
            .and_then(|()| program::prepare(&self.tree, self.settings(), command, op));
        let start = process::Start {
            op,
            program: command.program(),
            sandbox: self.info.id.clone(),
            timeout: command.timeout.or(self.timeout),
            stdin: !matches!(command.stdin, Stdin::Empty),
            groups: &self.groups,
            closed: self.closed.subscribe(),
            grace: self.grace,
            launch: Some(&self.confinement),
        };
        let started = match host {
            Ok(mut host) => {
                signals::reset(&mut host);
                self.confinement.cage.arm(&mut host);
                match exec::arm(&mut host, command.program()) {
                    Ok(()) => process::start(host, start).await,
                    Err(error) => Err(Error::from_io(error, op)),
                }
            }
            Err(error) => Err(error),
        };
        started.map_err(|error| self.named(error.with_execution(Execution::NotStarted)))
    }
}

impl FileOperations for LandlockSandbox {
    async fn on_files<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&GuestRoot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open(operation)?;
        runtime::require(operation).map_err(|error| self.named(error))?;
        let files = Arc::clone(&self.files);
        let result = blocking(operation, move || work(&files)).await;
        result.map_err(|error| match self.check_open(operation) {
            // Whatever it stumbled over, the directory was going away.
            Err(closed) => closed.with_source(error),
            Ok(()) => self.named(error),
        })
    }
}

#[async_trait]
impl Sandbox for LandlockSandbox {
    fn info(&self) -> SandboxInfo {
        let mut info = self.info.clone();
        info.workdir = self.settings().workdir;
        info
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        const OP: Operation = Operation::Isolation;
        self.check_open(OP)?;
        runtime::require(OP).map_err(|error| self.named(error))?;
        let found = Found::probe(self.tree.dir(), &self.confinement).await;
        let found = found.map_err(|error| self.named(error))?;
        Ok(found.report(self.open_network, self.own_user))
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        let asked = Instant::now();
        let process = self.start(&command, Operation::Exec).await?;
        process::output(process, command, asked, &self.info.id).await
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        let mut process = self.start(&command, Operation::Spawn).await?;
        process::feed(&mut process, command.stdin, self.closed.subscribe());
        Ok(match self.this.upgrade() {
            Some(sandbox) => process.keep_alive(sandbox),
            None => process,
        })
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        self.check_open(Operation::WriteFiles)?;
        let workdir = self.settings().workdir;
        for (path, _) in batch.resolve(&workdir).map_err(|error| self.named(error))? {
            self.resolve_own(&path, Operation::WriteFiles)?;
        }
        self.on_files(Operation::WriteFiles, move |root| {
            root.write(&batch.resolve(&workdir)?)
        })
        .await
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        let path = self.resolve(path, Operation::ReadFile)?;
        self.read_at(path, options).await
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        let path = self.resolve(path, Operation::ListDir)?;
        self.list_at(path, options).await
    }

    async fn metadata(&self, path: &GuestPath, options: MetadataOptions) -> Result<Metadata> {
        let path = self.resolve(path, Operation::Metadata)?;
        self.metadata_at(path, options).await
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        const OP: Operation = Operation::Remove;
        let path = self.resolve(path, OP)?;
        if path == GuestPath::root() || path == *self.tree.guest_root() {
            return Err(self.named(
                Error::new(ErrorKind::InvalidInput, OP)
                    .with_message("the root stays where it is")
                    .with_path(path),
            ));
        }
        self.remove_at(path, options).await
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        let path = self.resolve_own(path, Operation::CreateDir)?;
        self.create_dir_at(path, options).await
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        let from = self.resolve(from, Operation::Rename)?;
        let to = self.resolve_own(to, Operation::Rename)?;
        self.rename_at(from, to, options).await
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        let to = self.resolve_own(to, Operation::ImportDir)?;
        self.import_at(from, to, options).await
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        let from = self.resolve(from, Operation::ExportDir)?;
        self.export_at(from, to, options).await
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        const OP: Operation = Operation::SetWorkdir;
        let path = self.resolve(path, OP)?;
        self.check_dir_at(path.clone()).await?;
        let mut now = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        now.workdir = path;
        Ok(())
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        const OP: Operation = Operation::SetEnv;
        self.check_open(OP)?;
        changes.validate(OP).map_err(|error| self.named(error))?;
        let mut now = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        changes.apply_to(&mut now.env);
        Ok(())
    }

    async fn start_job(&self, key: &JobKey, command: Command, options: JobOptions) -> Result<Job> {
        const OP: Operation = Operation::StartJob;
        self.check_open(OP)?;
        runtime::require(OP).map_err(|error| self.named(error))?;
        let (this, id) = (self.this.clone(), self.info.id.clone());
        // Only for the start: a job does not keep its sandbox, which would never end then.
        let spawn = move |command: Command| async move {
            match this.upgrade() {
                Some(sandbox) => sandbox.start(&command, OP).await,
                None => Err(Error::closed(OP, &id).with_execution(Execution::NotStarted)),
            }
        };
        let job = self.jobs.start(key, command, options, spawn).await?;
        Ok(self.held(job))
    }

    async fn find_job(&self, key: &JobKey) -> Result<Job> {
        self.check_open(Operation::FindJob)?;
        Ok(self.held(self.jobs.find(key)?))
    }

    async fn list_jobs(&self) -> Result<Vec<JobInfo>> {
        self.check_open(Operation::ListJobs)?;
        Ok(self.jobs.list())
    }

    async fn watch(&self, path: &GuestPath, options: WatchOptions) -> Result<FileWatch> {
        self.watch_tree(path, options).await
    }

    async fn close(&self) -> Result<()> {
        const OP: Operation = Operation::Close;
        self.closed.send_replace(true);
        // First, and whatever else fails.
        let groups = self.groups.kill_all();
        runtime::require(OP).map_err(|error| self.named(error))?;
        let (tree, freed) = (Arc::clone(&self.tree), Arc::clone(&self.freed));
        // A task of its own: it goes on when the future is dropped.
        let closing = tokio::spawn(async move {
            let mut freed = freed.lock().await;
            if *freed {
                return Ok(());
            }
            for group in groups {
                group.emptied().await;
            }
            let removed =
                tokio::task::spawn_blocking(move || sandbox_transfer::remove_tree(tree.dir()))
                    .await;
            *freed = matches!(removed, Ok(Ok(())));
            match removed {
                Ok(removed) => removed.map_err(|error| Error::from_io(error, OP)),
                Err(error) => Err(Error::new(ErrorKind::Other, OP).with_source(error)),
            }
        });
        let closed = closing.await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Other, OP)
                .with_message("the closing was given up")
                .with_source(error))
        });
        closed.map_err(|error| self.named(error))
    }
}

impl Drop for LandlockSandbox {
    fn drop(&mut self) {
        self.closed.send_replace(true);
        self.groups.kill_all();
        let tree = Arc::clone(&self.tree);
        // Removing files takes time, and a drop may not.
        let _ = std::thread::Builder::new()
            .name("sandbox-landlock-drop".into())
            .spawn(move || sandbox_transfer::remove_tree(tree.dir()));
    }
}
