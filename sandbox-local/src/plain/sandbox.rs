//! One plain sandbox: the trait, on top of the modules beside this one.
//!
//! It must never block the runtime: what touches files runs on a blocking thread.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::backend::{Settings, blocking};
use sandbox_core::{
    Capabilities, Capability, Changes, ChangesOptions, Command, CreateDirOptions, DirEntry,
    EgressDecisions, EgressPolicy, Env, Error, ErrorKind, Execution, ExportOptions, FileBatch,
    FileReader, FileWatch, FileWriter, ForkOptions, GuestPath, ImportOptions, IsolationReport, Job,
    JobInfo, JobKey, JobOptions, Labels, ListOptions, Metadata, MetadataOptions, OpenReadOptions,
    OpenWriteOptions, Operation, Output, PortStream, Process, ReadOptions, RemoveOptions,
    RenameOptions, Result, Sandbox, SandboxId, SandboxInfo, Snapshot, SnapshotOptions, Stdin,
    TransferReport, Usage, WatchOptions,
};
use tokio::process::Command as HostCommand;
use tokio::sync::watch;

use super::config::PlainConfig;
use super::group::Groups;
use super::import::Cancel;
use super::program;
use super::tree::Tree;
use super::{CAPABILITIES, batch, copy, export, files, import, os, process};
use crate::runtime;

/// The variables that every command gets.
pub(crate) fn default_env(root: &Path) -> Env {
    os::default_environment(root)
        .into_iter()
        .fold(Env::new(), |env, (name, value)| env.set(name, value))
}

/// A directory and the processes that were started in it.
#[derive(Debug)]
pub(super) struct PlainSandbox {
    /// Handle that a process holds on to.
    this: Weak<Self>,
    info: SandboxInfo,
    tree: Arc<Tree>,
    settings: Mutex<Settings>,
    /// Configuration of the provider, for forks too.
    config: PlainConfig,
    timeout: Option<Duration>,
    groups: Arc<Groups>,
    closed: watch::Sender<bool>,
    /// Held while closing; `true` when that is done.
    freed: Arc<tokio::sync::Mutex<bool>>,
}

impl PlainSandbox {
    pub(super) fn new(
        tree: Tree,
        settings: Settings,
        config: PlainConfig,
        timeout: Option<Duration>,
        labels: Labels,
        parent: Option<SandboxId>,
    ) -> Arc<Self> {
        let id = SandboxId::new(tree.id());
        let workdir = settings.workdir.clone();
        let mut info = SandboxInfo::new(id, "local-plain", workdir)
            .labels(labels)
            .command_timeout(timeout);
        info.parent = parent;
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            info,
            tree: Arc::new(tree),
            settings: Mutex::new(settings),
            config,
            timeout,
            groups: Arc::default(),
            closed: watch::Sender::new(false),
            freed: Arc::default(),
        })
    }

    fn settings(&self) -> Settings {
        let now = self.settings.lock();
        now.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn check_open(&self, op: Operation) -> Result<()> {
        if *self.closed.borrow() {
            return Err(Error::closed(op, &self.info.id));
        }
        Ok(())
    }

    /// Runs file work on a blocking thread, in the tree and from the workdir.
    async fn files<T: Send + 'static>(
        &self,
        op: Operation,
        work: impl FnOnce(&Tree, &GuestPath) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open(op)?;
        runtime::require(op).map_err(|error| error.with_sandbox(self.info.id.clone()))?;
        let tree = Arc::clone(&self.tree);
        let workdir = self.settings().workdir;
        let result = blocking(op, move || work(&tree, &workdir)).await;
        result.map_err(|error| match self.check_open(op) {
            // Whatever it stumbled over, the directory was going away.
            Err(closed) => closed.with_source(error),
            Ok(()) => error.with_sandbox(self.info.id.clone()),
        })
    }

    /// The answer of an operation that plain mode does not have.
    fn refuse<T>(&self, capability: Capability, op: Operation) -> Result<T> {
        self.check_open(op)?;
        let named = |error: Error| error.with_sandbox(self.info.id.clone());
        CAPABILITIES.require(capability, op).map_err(named)?;
        Err(named(Error::new(ErrorKind::Other, op)))
    }

    async fn start(&self, command: &Command, op: Operation) -> Result<Process> {
        let host = self
            .check_open(op)
            .and_then(|()| runtime::require(op))
            .and_then(|()| command.validate(op))
            .and_then(|()| match &command.user {
                Some(_) => CAPABILITIES.require(Capability::User, op),
                None => Ok(()),
            })
            .and_then(|()| match command.terminal {
                Some(_) => CAPABILITIES.require(Capability::Terminal, op),
                None => Ok(()),
            })
            .and_then(|()| program::prepare(&self.tree, self.settings(), command, op))
            .and_then(|mut host| {
                default_signals(&mut host, command.program())
                    .map_err(|error| Error::from_io(error, op))?;
                Ok(host)
            });
        let start = process::Start {
            op,
            program: command.program(),
            sandbox: self.info.id.clone(),
            timeout: command.timeout.or(self.timeout),
            stdin: !matches!(command.stdin, Stdin::Empty),
            groups: &self.groups,
            closed: self.closed.subscribe(),
            grace: self.config.output_grace,
            launch: None,
        };
        let started = match host {
            Ok(host) => process::start(host, start).await,
            Err(error) => Err(error),
        };
        started.map_err(|error| {
            error
                .with_execution(Execution::NotStarted)
                .with_sandbox(self.info.id.clone())
        })
    }
}

/// Lets a command begin with the default action of every signal.
#[cfg(target_os = "linux")]
fn default_signals(command: &mut HostCommand, name: &[u8]) -> std::io::Result<()> {
    use crate::sys::{exec, signals};
    match signals::reset(command) {
        // It would be executed in another way than without that.
        true => exec::arm(command, name),
        false => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn default_signals(_: &mut HostCommand, _: &[u8]) -> std::io::Result<()> {
    Ok(())
}

impl PlainSandbox {
    fn no_egress(&self, operation: Operation) -> Error {
        let refused = CAPABILITIES.require(Capability::EgressByName, operation);
        let refused = self.check_open(operation).and(refused).err();
        refused
            .unwrap_or_else(|| Error::new(ErrorKind::Unsupported, operation))
            .with_sandbox(self.info.id.clone())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Sandbox for PlainSandbox {
    fn info(&self) -> SandboxInfo {
        let mut info = self.info.clone();
        info.workdir = self.settings().workdir;
        info
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        self.check_open(Operation::Isolation)?;
        Ok(super::isolation_report())
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
        self.files(Operation::WriteFiles, move |tree, workdir| {
            batch::write(tree, workdir, &batch)
        })
        .await
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        let path = path.clone();
        self.files(Operation::ReadFile, move |tree, workdir| {
            files::read(tree, workdir, &path, &options)
        })
        .await
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        let path = path.clone();
        self.files(Operation::ListDir, move |tree, workdir| {
            files::list(tree, workdir, &path, &options)
        })
        .await
    }

    async fn metadata(&self, path: &GuestPath, options: MetadataOptions) -> Result<Metadata> {
        let path = path.clone();
        self.files(Operation::Metadata, move |tree, workdir| {
            files::metadata(tree, workdir, &path, &options)
        })
        .await
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        let path = path.clone();
        self.files(Operation::Remove, move |tree, workdir| {
            options.settle(files::remove(tree, workdir, &path, &options))
        })
        .await
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        let path = path.clone();
        self.files(Operation::CreateDir, move |tree, workdir| {
            files::create_dir(tree, workdir, &path, &options)
        })
        .await
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.files(Operation::Rename, move |tree, workdir| {
            files::rename(tree, workdir, &from, &to, &options)
        })
        .await
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        let (from, to) = (from.to_path_buf(), to.clone());
        let cancel = Cancel::default();
        let _given_up = cancel.on_drop();
        self.files(Operation::ImportDir, move |tree, workdir| {
            import::import(tree, workdir, &from, &to, &options, &cancel)
        })
        .await
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        let (from, to) = (from.clone(), to.to_path_buf());
        let cancel = Cancel::default();
        let _given_up = cancel.on_drop();
        self.files(Operation::ExportDir, move |tree, workdir| {
            export::export(tree, workdir, &from, &to, &options, &cancel)
        })
        .await
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        const OP: Operation = Operation::SetWorkdir;
        let path = path.clone();
        let workdir = self.files(OP, move |tree, workdir| {
            let is_dir = tree.follow(&path, workdir, OP)?.host.is_dir();
            let path = path.resolve(workdir, OP)?;
            if !is_dir {
                return Err(Error::new(ErrorKind::NotADirectory, OP)
                    .with_message("not a directory")
                    .with_path(path));
            }
            Ok(path)
        });
        let workdir = workdir.await?;
        let mut now = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        now.workdir = workdir;
        Ok(())
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        const OP: Operation = Operation::SetEnv;
        self.check_open(OP)?;
        changes
            .validate(OP)
            .map_err(|error| error.with_sandbox(self.info.id.clone()))?;
        let mut now = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        changes.apply_to(&mut now.env);
        Ok(())
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        const OP: Operation = Operation::Fork;
        let mut settings = self.settings();
        let base = self.config.base_dir.clone();
        let copied = self.files(OP, move |parent, _| {
            let child = Tree::empty(super::PREFIX, &base).map_err(|e| Error::from_io(e, OP))?;
            copy::tree(parent.root(), child.root()).map_err(|e| Error::from_io(e, OP))?;
            Ok(child)
        });
        let child = copied.await?;
        // A directory that went away meanwhile was not copied whole.
        self.check_open(OP)?;
        if let Some(below) = settings.workdir.strip_prefix(self.tree.guest_root()) {
            settings.workdir = child.guest_root().join(below);
        }
        // What still has the value that it was given at first moves to the child's directory.
        let ours = os::default_environment(self.tree.root());
        let theirs = os::default_environment(child.root());
        for ((name, old), (_, new)) in ours.into_iter().zip(theirs) {
            let now = settings.env.get(name.as_bytes());
            if now.is_some_and(|now| now.value.expose() == old) {
                Env::new().set(name, new).apply_to(&mut settings.env);
            }
        }
        Ok(Self::new(
            child,
            settings,
            self.config.clone(),
            self.timeout,
            options.labels,
            Some(self.info.id.clone()),
        ))
    }

    async fn start_job(&self, _: &JobKey, _: Command, _: JobOptions) -> Result<Job> {
        self.refuse(Capability::Jobs, Operation::StartJob)
            .map_err(|error| error.with_execution(Execution::NotStarted))
    }

    async fn find_job(&self, _: &JobKey) -> Result<Job> {
        self.refuse(Capability::Jobs, Operation::FindJob)
    }

    async fn list_jobs(&self) -> Result<Vec<JobInfo>> {
        self.refuse(Capability::Jobs, Operation::ListJobs)
    }

    async fn connect_port(&self, _: u16) -> Result<PortStream> {
        self.refuse(Capability::Ports, Operation::ConnectPort)
    }

    async fn open_read(&self, _: &GuestPath, _: OpenReadOptions) -> Result<FileReader> {
        self.refuse(Capability::FileStreams, Operation::OpenRead)
    }

    async fn open_write(&self, _: &GuestPath, _: OpenWriteOptions) -> Result<FileWriter> {
        self.refuse(Capability::FileStreams, Operation::OpenWrite)
    }

    async fn snapshot(&self, _: SnapshotOptions) -> Result<Snapshot> {
        self.refuse(Capability::Snapshot, Operation::Snapshot)
    }

    async fn changes(&self, _: &GuestPath, _: ChangesOptions) -> Result<Changes> {
        self.refuse(Capability::Changes, Operation::Changes)
    }

    async fn usage(&self) -> Result<Usage> {
        self.refuse(Capability::Usage, Operation::Usage)
    }

    async fn watch(&self, _: &GuestPath, _: WatchOptions) -> Result<FileWatch> {
        self.refuse(Capability::Watch, Operation::Watch)
    }

    async fn pause(&self) -> Result<()> {
        self.refuse(Capability::Pause, Operation::Pause)
    }

    async fn resume(&self) -> Result<()> {
        self.refuse(Capability::Pause, Operation::Resume)
    }

    async fn egress_decisions(&self, _: u64) -> Result<EgressDecisions> {
        Err(self.no_egress(Operation::EgressDecisions))
    }

    async fn restrict_egress(&self, _: EgressPolicy) -> Result<()> {
        Err(self.no_egress(Operation::RestrictEgress))
    }

    async fn close(&self) -> Result<()> {
        const OP: Operation = Operation::Close;
        self.closed.send_replace(true);
        if let Err(error) = runtime::require(OP) {
            self.groups.kill_all();
            return Err(error.with_sandbox(self.info.id.clone()));
        }
        let (tree, groups) = (Arc::clone(&self.tree), Arc::clone(&self.groups));
        let freed = Arc::clone(&self.freed);
        // A task of its own: it goes on when the future is dropped.
        let closing = tokio::spawn(async move {
            let mut freed = freed.lock().await;
            if *freed {
                return Ok(());
            }
            for group in groups.kill_all() {
                group.emptied().await;
            }
            let removed = tokio::task::spawn_blocking(move || tree.remove()).await;
            *freed = matches!(removed, Ok(Ok(())));
            match removed {
                Ok(Ok(())) => Ok(()),
                Ok(Err(e)) => Err(Error::from_io(e, OP)),
                Err(e) => Err(Error::new(ErrorKind::Other, OP).with_source(e)),
            }
        });
        let closed = closing.await.unwrap_or_else(|e| {
            Err(Error::new(ErrorKind::Other, OP)
                .with_message("the closing was given up")
                .with_source(e))
        });
        closed.map_err(|error| error.with_sandbox(self.info.id.clone()))
    }
}

impl Drop for PlainSandbox {
    fn drop(&mut self) {
        self.closed.send_replace(true);
        self.groups.kill_all();
        let tree = Arc::clone(&self.tree);
        // Removing files takes time, and a drop may not. Without a thread the last handle to the
        // tree removes it.
        let _ = std::thread::Builder::new()
            .name("sandbox-plain-drop".into())
            .spawn(move || tree.remove());
    }
}
