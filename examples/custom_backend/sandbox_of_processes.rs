//! The sandbox: a tree of the host for its files, and a launcher for its commands.
//!
//! Every method resolves its paths, refuses what is not declared, and names the sandbox in its
//! errors. What touches files runs on a thread for blocking work.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sandbox::backend::{Registry, Settings, blocking};
use sandbox::{
    Capabilities, Capability, CollectOptions, Command, CreateDirOptions, DirEntry, Env, Error,
    ErrorKind, Execution, ExportOptions, FileBatch, ForkOptions, GuestPath, ImportOptions,
    IsolationReport, Labels, ListOptions, Metadata, MetadataOptions, Network, Operation, Output,
    Process, ReadOptions, RemoveOptions, RenameOptions, Result, Sandbox, SandboxId, SandboxInfo,
    Snapshot, SnapshotOptions, Stdin, TransferReport, async_trait,
};
use sandbox_transfer::{Cancel, GuestTree};
use tokio::sync::watch;

use crate::process;
use crate::program;
use crate::provider::{Launcher, Place, Start, new_tree};

/// Parts of a sandbox besides its files.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) open: Arc<Registry<ProcessSandbox>>,
    pub(crate) network: Network,
    pub(crate) command_timeout: Option<Duration>,
    pub(crate) labels: Labels,
    pub(crate) parent: Option<SandboxId>,
}

/// A tree, and what its commands start with.
pub(crate) struct ProcessSandbox {
    this: Weak<Self>,
    info: SandboxInfo,
    origin: Origin,
    tree: Arc<GuestTree>,
    settings: Mutex<Settings>,
    /// Removed at the end, when nothing runs in it any more.
    place: Mutex<Option<Arc<Place>>>,
    /// True from the moment of closing; what runs is killed then.
    closed: watch::Sender<bool>,
}

impl fmt::Debug for ProcessSandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProcessSandbox({})", self.info.id)
    }
}

impl ProcessSandbox {
    pub(crate) fn open(
        origin: Origin,
        place: Place,
        tree: GuestTree,
        settings: Settings,
    ) -> Arc<dyn Sandbox> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let backend = origin.launcher.backend();
        let id = SandboxId::new(format!("{backend}-{}-{number}", std::process::id()));
        let mut info = SandboxInfo::new(id.clone(), backend, settings.workdir.clone())
            .command_timeout(origin.command_timeout)
            .labels(origin.labels.clone());
        info.parent = origin.parent.clone();
        let open = Arc::clone(&origin.open);
        let sandbox = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            info,
            origin,
            tree: Arc::new(tree),
            settings: Mutex::new(settings),
            place: Mutex::new(Some(Arc::new(place))),
            closed: watch::Sender::new(false),
        });
        open.insert(id, &sandbox);
        sandbox
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every error names the sandbox.
    fn ours(&self, error: Error) -> Error {
        error.with_sandbox(self.info.id.clone())
    }

    fn check_open(&self, op: Operation) -> Result<()> {
        match *self.closed.borrow() {
            true => Err(Error::closed(op, &self.info.id)),
            false => Ok(()),
        }
    }

    /// The sandbox's place, which is kept as long as anything runs or works in it.
    fn place(&self, op: Operation) -> Result<Arc<Place>> {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        place
            .clone()
            .ok_or_else(|| Error::closed(op, &self.info.id))
    }

    fn resolve(&self, path: &GuestPath, op: Operation) -> Result<GuestPath> {
        self.check_open(op)?;
        let path = self.settings().resolve(path, op);
        path.map_err(|error| self.ours(error))
    }

    /// File work on the tree.
    async fn files<T: Send + 'static>(
        &self,
        op: Operation,
        work: impl FnOnce(&GuestTree) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open(op)?;
        let (tree, place) = (Arc::clone(&self.tree), self.place(op)?);
        let done = blocking(op, move || {
            let done = work(&tree);
            drop(place);
            done
        });
        let done = done.await;
        done.map_err(|error| match self.check_open(op) {
            // Whatever it stumbled over, the tree was going away.
            Err(closed) => closed.with_source(error),
            Ok(()) => self.ours(error),
        })
    }

    async fn start(&self, command: &Command, op: Operation) -> Result<Process> {
        let started = self.try_start(command, op).await;
        // Nothing has run where nothing was started.
        started.map_err(|error| self.ours(error).with_execution(Execution::NotStarted))
    }

    async fn try_start(&self, command: &Command, op: Operation) -> Result<Process> {
        self.check_open(op)?;
        command.validate(op)?;
        let capabilities = self.capabilities();
        if command.user.is_some() {
            capabilities.require(Capability::User, op)?;
        }
        if command.terminal.is_some() {
            capabilities.require(Capability::Terminal, op)?;
        }
        let mut settings = self.settings().clone();
        command.env.apply_to(&mut settings.env);
        let cwd = command.cwd.clone().unwrap_or_else(|| GuestPath::from("."));
        let cwd = settings.resolve(&cwd, op)?;
        let (argv, dir, env) = (command.argv().to_vec(), cwd.clone(), settings.env.clone());
        let argv = self
            .files(op, move |tree| {
                tree.check_dir(&dir, op)?;
                program::find(tree, &dir, &env, argv, op)
            })
            .await?;
        let mut host = self.origin.launcher.command(&Start {
            id: self.info.id.as_str(),
            root: self.tree.root(),
            network: &self.origin.network,
            cwd: &cwd,
            argv: &argv,
        });
        program::set_env(&mut host, &settings.env);
        let watched = process::Watched {
            place: self.place(op)?,
            op,
            sandbox: self.info.id.clone(),
            program: command.program().to_vec(),
            timeout: command.timeout.or(self.origin.command_timeout),
            closed: self.closed.subscribe(),
        };
        process::start(host, !matches!(command.stdin, Stdin::Empty), watched)
    }
}

#[async_trait]
impl Sandbox for ProcessSandbox {
    fn info(&self) -> SandboxInfo {
        let mut info = self.info.clone();
        info.workdir = self.settings().workdir.clone();
        info
    }

    fn capabilities(&self) -> Capabilities {
        self.origin.launcher.capabilities()
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        self.check_open(Operation::Isolation)?;
        Ok(self.origin.launcher.report(&self.origin.network))
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        // Its duration counts from the call, whatever the start takes.
        let asked = Instant::now();
        let process = self.start(&command, Operation::Exec).await?;
        let mut options = CollectOptions::new()
            .started(asked)
            .stdout_limit(command.stdout_limit)
            .stderr_limit(command.stderr_limit);
        options.sandbox = Some(self.info.id.clone());
        if let Stdin::Bytes(bytes) = command.stdin {
            options.stdin = bytes;
        }
        process.wait_with_output(options).await
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        let mut process = self.start(&command, Operation::Spawn).await?;
        if let Stdin::Bytes(bytes) = command.stdin {
            process::feed(&mut process, bytes);
        }
        Ok(match self.this.upgrade() {
            Some(sandbox) => process.keep_alive(sandbox),
            None => process,
        })
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        let workdir = self.settings().workdir.clone();
        self.files(Operation::WriteFiles, move |tree| {
            tree.write(&batch, &workdir)
        })
        .await
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        const OP: Operation = Operation::ReadFile;
        let path = self.resolve(path, OP)?;
        self.files(OP, move |tree| tree.read(&path, &options)).await
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        const OP: Operation = Operation::ListDir;
        let path = self.resolve(path, OP)?;
        self.files(OP, move |tree| tree.list(&path, &options)).await
    }

    async fn metadata(&self, path: &GuestPath, options: MetadataOptions) -> Result<Metadata> {
        const OP: Operation = Operation::Metadata;
        let path = self.resolve(path, OP)?;
        self.files(OP, move |tree| tree.metadata(&path, &options))
            .await
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        const OP: Operation = Operation::Remove;
        let path = self.resolve(path, OP)?;
        self.files(OP, move |tree| tree.remove(&path, &options))
            .await
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        const OP: Operation = Operation::CreateDir;
        let path = self.resolve(path, OP)?;
        self.files(OP, move |tree| tree.create_dir(&path, &options))
            .await
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        const OP: Operation = Operation::Rename;
        let (from, to) = (self.resolve(from, OP)?, self.resolve(to, OP)?);
        self.files(OP, move |tree| tree.rename(&from, &to, &options))
            .await
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        const OP: Operation = Operation::ImportDir;
        let (from, to) = (from.to_owned(), self.resolve(to, OP)?);
        let cancel = Cancel::new();
        let _ends_it = cancel.on_drop();
        self.files(OP, move |tree| tree.import(&from, &to, &options, &cancel))
            .await
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        const OP: Operation = Operation::ExportDir;
        let (from, to) = (self.resolve(from, OP)?, to.to_owned());
        let cancel = Cancel::new();
        let _ends_it = cancel.on_drop();
        self.files(OP, move |tree| tree.export(&from, &to, &options, &cancel))
            .await
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        const OP: Operation = Operation::SetWorkdir;
        let path = self.resolve(path, OP)?;
        let dir = path.clone();
        self.files(OP, move |tree| tree.check_dir(&dir, OP)).await?;
        self.settings().workdir = path;
        Ok(())
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        const OP: Operation = Operation::SetEnv;
        self.check_open(OP)?;
        let set = self.settings().set_env(&changes, OP);
        set.map_err(|error| self.ours(error))
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        const OP: Operation = Operation::Fork;
        let launcher = Arc::clone(&self.origin.launcher);
        launcher
            .capabilities()
            .require(Capability::Fork, OP)
            .map_err(|error| self.ours(error))?;
        let settings = self.settings().clone();
        let cancel = Cancel::new();
        let _ends_it = cancel.on_drop();
        let copied = self.files(OP, move |tree| {
            let (dir, child) = new_tree(&*launcher)?;
            tree.copy_to(&child, &cancel)?;
            Ok((dir, child))
        });
        let (dir, tree) = copied.await?;
        let origin = Origin {
            labels: options.labels,
            parent: Some(self.info.id.clone()),
            ..self.origin.clone()
        };
        Ok(Self::open(origin, dir, tree, settings))
    }

    async fn snapshot(&self, _: SnapshotOptions) -> Result<Snapshot> {
        const OP: Operation = Operation::Snapshot;
        self.check_open(OP)?;
        let refused = self.capabilities().require(Capability::Snapshot, OP);
        let refused = refused
            .err()
            .unwrap_or_else(|| Error::new(ErrorKind::Other, OP));
        Err(self.ours(refused))
    }

    async fn close(&self) -> Result<()> {
        self.closed.send_replace(true);
        self.origin.open.remove(&self.info.id);
        // A watcher of a command has a receiver until its command is dead.
        self.closed.closed().await;
        let place = {
            let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
            place.take()
        };
        // The last one that has it removes it: this, or the file work that is under way.
        blocking(Operation::Close, move || {
            drop(place);
            Ok(())
        })
        .await
        .map_err(|error| self.ours(error))
    }
}
