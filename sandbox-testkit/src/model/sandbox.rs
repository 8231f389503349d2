//! The `Sandbox` trait on the model.
//!
//! Invariant: each method checks that the sandbox is open, resolves its paths, and does the rest
//! under one lock, so that it takes effect at once.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::backend::Jobs;
use sandbox_core::{
    Capabilities, Capability, Changes, ChangesOptions, CollectOptions, Command, Control,
    CreateDirOptions, DirEntry, EgressDecisions, EgressPolicy, Enforcement, Env, Error, ErrorKind,
    ExportOptions, FileBatch, FileReader, FileWatch, FileWriter, ForkOptions, GuestPath,
    ImportOptions, IsolationReport, Job, JobInfo, JobKey, JobOptions, ListOptions, Metadata,
    MetadataOptions, OpenReadOptions, OpenWriteOptions, Operation, Output, PortStream, Process,
    ReadOptions, RemoveOptions, RenameOptions, Result, Sandbox, SandboxId, SandboxInfo, Snapshot,
    SnapshotId, SnapshotOptions, TransferReport, Usage, WatchOptions, WriteMode,
};

use super::core::{Core, Life, State};
use super::process::lock;
use super::shell;
use super::stream;

/// A sandbox in memory. It ends when its last handle is dropped; one that lasts stays with its
/// provider.
pub struct ModelSandbox {
    pub(crate) core: Arc<Core>,
    jobs: Jobs,
}

impl std::fmt::Debug for ModelSandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelSandbox")
            .field("id", &self.core.id)
            .finish_non_exhaustive()
    }
}

impl Drop for ModelSandbox {
    fn drop(&mut self) {
        let stopped = self.core.stopped();
        self.core.end(Life::Closed);
        if let Some(stopped) = stopped {
            let id = stopped.info.id.clone();
            lock(&self.core.shared.stopped).insert(id, stopped);
        }
    }
}

impl ModelSandbox {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            jobs: Jobs::new(core.id.clone()),
            core,
        }
    }

    /// A handle keeps its sandbox alive.
    fn held(&self, job: Job) -> Job {
        match self.core.shared.find(&self.core.id) {
            Some(sandbox) => job.keep_alive(sandbox),
            None => job,
        }
    }

    fn begin(&self, operation: Operation) -> Result<()> {
        self.core.check(operation)
    }

    /// The start of an operation that the model has only where a test lets it accept that.
    fn accepted(&self, capability: Capability, operation: Operation) -> Result<()> {
        self.begin(operation)?;
        let known = self.capabilities().require(capability, operation);
        known.map_err(|error| error.with_sandbox(self.core.id.clone()))
    }

    /// The start of every operation on a path: the path, resolved.
    fn at(&self, operation: Operation, path: &GuestPath) -> Result<GuestPath> {
        self.begin(operation)?;
        self.core.resolve(path, operation)
    }

    fn start(&self, command: &Command, operation: Operation) -> Result<Process> {
        self.begin(operation)?;
        shell::start(&self.core, command, operation)
    }
}

#[async_trait]
impl Sandbox for ModelSandbox {
    fn info(&self) -> SandboxInfo {
        self.core.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.core.shared.capabilities.clone()
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        self.begin(Operation::Isolation)?;
        let inside = [
            Control::Filesystem,
            Control::Processes,
            Control::Network,
            Control::Ipc,
            Control::Privileges,
            Control::SystemCalls,
        ];
        let report = Control::ALL
            .iter()
            .fold(IsolationReport::new(), |report, control| {
                let enforcement = if inside.contains(control) {
                    Enforcement::enforced("running no program but the model's own")
                } else {
                    Enforcement::absent("the model counts nothing")
                };
                report.with(*control, enforcement)
            });
        Ok(report)
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        let started = Instant::now();
        let process = self.start(&command, Operation::Exec)?;
        let mut options = CollectOptions::new();
        options.started = started;
        options.timeout = command.timeout.or(self.core.command_timeout);
        options.stdout_limit = command.stdout_limit;
        options.stderr_limit = command.stderr_limit;
        options.sandbox = Some(self.core.id.clone());
        process.wait_with_output(options).await
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        let process = self.start(&command, Operation::Spawn)?;
        Ok(match self.core.shared.find(&self.core.id) {
            Some(sandbox) => process.keep_alive(sandbox),
            None => process,
        })
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        const OP: Operation = Operation::WriteFiles;
        self.begin(OP)?;
        let core = &self.core;
        let workdir = lock(&core.state).workdir.clone();
        let files = batch
            .resolve(&workdir)
            .map_err(|error| error.with_sandbox(core.id.clone()))?;
        core.change(|tree| {
            for (path, file) in files {
                let new = file.write_mode == WriteMode::CreateNew;
                tree.write(&path, &file.content, file.mode, new)
                    .map_err(|kind| core.error(kind, OP, &path))?;
            }
            Ok(())
        })
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        const OP: Operation = Operation::ReadFile;
        let resolved = self.at(OP, path)?;
        let read = self.core.tree().read(&resolved, options.limit);
        read.map(Bytes::from).map_err(|kind| {
            let error = self.core.error(kind, OP, path);
            match kind {
                ErrorKind::LimitExceeded => error.with_message(format!(
                    "the file is larger than the limit of {} bytes",
                    options.limit
                )),
                _ => error,
            }
        })
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        const OP: Operation = Operation::ListDir;
        let resolved = self.at(OP, path)?;
        let tree = self.core.tree();
        tree.list(&resolved, options.recursive, options.limit)
            .map_err(|kind| {
                let error = self.core.error(kind, OP, path);
                match kind {
                    ErrorKind::LimitExceeded => error
                        .with_message(format!("more entries than the limit of {}", options.limit)),
                    _ => error,
                }
            })
    }

    async fn metadata(&self, path: &GuestPath, options: MetadataOptions) -> Result<Metadata> {
        const OP: Operation = Operation::Metadata;
        let resolved = self.at(OP, path)?;
        let found = self.core.tree().get(&resolved, options.follow);
        found
            .map(|node| node.metadata())
            .map_err(|kind| self.core.error(kind, OP, path))
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        const OP: Operation = Operation::Remove;
        let resolved = self.at(OP, path)?;
        let removed = self
            .core
            .change(|tree| tree.remove(&resolved, options.recursive))
            .map_err(|kind| self.core.error(kind, OP, path));
        options.settle(removed)
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        const OP: Operation = Operation::CreateDir;
        let resolved = self.at(OP, path)?;
        self.core
            .change(|tree| tree.make_dir(&resolved, options.recursive, options.mode))
            .map_err(|kind| self.core.error(kind, OP, path))
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        const OP: Operation = Operation::Rename;
        let source = self.at(OP, from)?;
        let target = self.core.resolve(to, OP)?;
        self.core
            .change(|tree| tree.rename(&source, &target, options.replace))
            .map_err(|(kind, of_from)| self.core.error(kind, OP, if of_from { from } else { to }))
    }

    async fn import_dir(
        &self,
        from: &std::path::Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        let resolved = self.at(Operation::ImportDir, to)?;
        super::import::import(&self.core, from, &resolved, &options).await
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &std::path::Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        let resolved = self.at(Operation::ExportDir, from)?;
        super::export::export(&self.core, &resolved, to, &options).await
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        const OP: Operation = Operation::SetWorkdir;
        let resolved = self.at(OP, path)?;
        let at = |kind| self.core.error(kind, OP, path);
        if !self.core.tree().get(&resolved, true).map_err(at)?.is_dir() {
            return Err(at(ErrorKind::NotADirectory));
        }
        lock(&self.core.state).workdir = resolved;
        Ok(())
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        const OP: Operation = Operation::SetEnv;
        self.begin(OP)?;
        changes
            .validate(OP)
            .map_err(|error| error.with_sandbox(self.core.id.clone()))?;
        changes.apply_to(&mut lock(&self.core.state).env);
        Ok(())
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        self.begin(Operation::Fork)?;
        let core = &self.core;
        let state = {
            let state = lock(&core.state);
            State::new(state.tree.clone(), state.workdir.clone(), state.env.clone())
        };
        Ok(core.shared.register(Core {
            id: SandboxId::new(format!("model-{}", core.shared.number())),
            parent: Some(core.id.clone()),
            labels: options.labels,
            created: SystemTime::now(),
            command_timeout: core.command_timeout,
            ttl: core.ttl,
            lasting: false,
            restarted: None,
            shared: core.shared.clone(),
            state,
            procs: Mutex::default(),
            next_pid: 2.into(),
            handle: Weak::new(),
        }))
    }

    async fn snapshot(&self, options: SnapshotOptions) -> Result<Snapshot> {
        self.begin(Operation::Snapshot)?;
        let id = SnapshotId::new(format!("snapshot-{}", self.core.shared.number()));
        let snapshot = Snapshot::new(id.clone())
            .labels(options.labels)
            .created(SystemTime::now());
        let kept = (snapshot.clone(), self.core.tree());
        lock(&self.core.shared.snapshots).insert(id, kept);
        Ok(snapshot)
    }

    async fn start_job(&self, key: &JobKey, command: Command, options: JobOptions) -> Result<Job> {
        const OP: Operation = Operation::StartJob;
        self.begin(OP)?;
        let core = self.core.clone();
        let spawn = move |command| async move { shell::start(&core, &command, OP) };
        let job = self.jobs.start(key, command, options, spawn).await?;
        Ok(self.held(job))
    }

    async fn find_job(&self, key: &JobKey) -> Result<Job> {
        self.begin(Operation::FindJob)?;
        Ok(self.held(self.jobs.find(key)?))
    }

    async fn list_jobs(&self) -> Result<Vec<JobInfo>> {
        self.begin(Operation::ListJobs)?;
        Ok(self.jobs.list())
    }

    async fn egress_decisions(&self, _: u64) -> Result<EgressDecisions> {
        self.accepted(Capability::EgressByName, Operation::EgressDecisions)?;
        Ok(EgressDecisions::default())
    }

    async fn restrict_egress(&self, policy: EgressPolicy) -> Result<()> {
        const OP: Operation = Operation::RestrictEgress;
        self.accepted(Capability::EgressByName, OP)?;
        let valid = policy.validate(OP);
        valid.map_err(|error| error.with_sandbox(self.core.id.clone()))
    }

    async fn connect_port(&self, port: u16) -> Result<PortStream> {
        const OP: Operation = Operation::ConnectPort;
        self.accepted(Capability::Ports, OP)?;
        let (kind, why) = match port {
            0 => (ErrorKind::InvalidInput, "there is no port 0"),
            _ => (ErrorKind::NotListening, "no program of the model listens"),
        };
        let error = Error::new(kind, OP).with_message(why);
        Err(error.with_sandbox(self.core.id.clone()))
    }

    async fn open_read(&self, path: &GuestPath, options: OpenReadOptions) -> Result<FileReader> {
        const OP: Operation = Operation::OpenRead;
        let resolved = self.at(OP, path)?;
        let named = |kind| self.core.error(kind, OP, path);
        let tree = self.core.tree();
        let content = tree.read(&resolved, u64::MAX).map_err(named)?;
        let modified = tree
            .get(&resolved, true)
            .map_err(named)?
            .metadata()
            .modified;
        let reader = stream::reader(content.into(), &options);
        Ok(match modified {
            Some(modified) => reader.modified(modified),
            None => reader,
        })
    }

    async fn open_write(&self, path: &GuestPath, options: OpenWriteOptions) -> Result<FileWriter> {
        let resolved = self.at(Operation::OpenWrite, path)?;
        let sink = stream::Sink::new(self.core.clone(), path.clone(), resolved, options);
        Ok(FileWriter::new(sink))
    }

    async fn usage(&self) -> Result<Usage> {
        // Without `begin`: asking does not count as use.
        self.core.check_open(Operation::Usage)?;
        Ok(self.core.usage())
    }

    async fn changes(&self, path: &GuestPath, options: ChangesOptions) -> Result<Changes> {
        let resolved = self.at(Operation::Changes, path)?;
        super::changes::changes(&self.core, path, &resolved, &options)
    }

    async fn watch(&self, path: &GuestPath, options: WatchOptions) -> Result<FileWatch> {
        let resolved = self.at(Operation::Watch, path)?;
        super::watch::watch(&self.core, path, resolved, &options)
    }

    async fn close(&self) -> Result<()> {
        let core = &self.core;
        for group in core.end(Life::Closed) {
            group.gone().await;
        }
        Ok(())
    }
}
