//! The trait's methods, over a running init.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::backend::{Settings, blocking};
use sandbox_core::{
    Capabilities, Changes, ChangesOptions, CollectOptions, Command, CreateDirOptions, DirEntry,
    EgressDecisions, EgressPolicy, Env, Error, ErrorKind, Execution, ExportOptions, FileBatch,
    FileReader, FileWatch, FileWriter, ForkOptions, GuestPath, ImportOptions, IsolationReport, Job,
    JobInfo, JobKey, JobOptions, ListOptions, Metadata, MetadataOptions, OpenReadOptions,
    OpenWriteOptions, Operation, Output, PortStream, Process, ReadOptions, RemoveOptions,
    RenameOptions, Result, Sandbox, SandboxInfo, Snapshot, SnapshotOptions, Stdin, TransferReport,
    Usage, WatchOptions,
};

use super::capability::CAPABILITIES;
use super::deadline::Deadline;
use super::running::Running;
use super::{LocalSandbox, Origin};
use crate::egress;
use crate::file_operations::FileOperations as _;
use crate::isolation;
use crate::layers::Layer;
use crate::layers::stack::Stack;
use crate::runtime;
use crate::walk::Cancel;

/// Time that `close` waits for operations that are under way to let go of the files.
const TURN: Duration = Duration::from_secs(1);

/// Time that `close` waits for the sandbox's directories to be removed.
const GRACE: Duration = Duration::from_secs(5);

impl LocalSandbox {
    /// The job, with a handle that keeps its sandbox alive.
    fn held(&self, job: Job) -> Job {
        match self.facts.handle.upgrade() {
            Some(sandbox) => job.keep_alive(sandbox),
            None => job,
        }
    }
}

#[async_trait]
impl Sandbox for LocalSandbox {
    fn info(&self) -> SandboxInfo {
        self.facts.info()
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        const OP: Operation = Operation::Isolation;
        self.check_open(OP)?;
        runtime::require(OP).map_err(|error| self.named(error))?;
        // Not through `running`: reading usage does not count as use, and must not keep an idle sandbox from expiring.
        let cgroup = {
            let running = self.run(OP).await?;
            if let Some(why) = running.engine.lost() {
                return Err(self.lost(why, &running.cgroup, OP));
            }
            running.cgroup.clone()
        };
        // Probed in a run of its own, set up as this sandbox's is and within its limits: a program
        // of the guest, which has the same user, could stop or trace a probe beside it.
        let (host, blueprint) = (self.host.clone(), self.blueprint.clone());
        let probed = blocking(OP, move || {
            let egress = blueprint.new_egress();
            Running::start(&host, &blueprint, cgroup, Stack::default(), egress, OP)
        });
        let probed = probed.await.map_err(|error| self.named(error))?;
        let report = isolation::report(&probed, &self.blueprint).await;
        probed.shut_down().await;
        report.map_err(|error| self.unless_closed(error, OP))
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        let mut options = CollectOptions::new();
        options.timeout = command.timeout.or(self.blueprint.spec.command_timeout);
        options.stdout_limit = command.stdout_limit;
        options.stderr_limit = command.stderr_limit;
        options.sandbox = Some(self.id.clone());
        if let Stdin::Bytes(bytes) = &command.stdin {
            options.stdin = bytes.clone();
        }
        let deadline = Deadline::new(options.timeout);
        let process = self.start(command, deadline, Operation::Exec).await?;
        let output = process.wait_with_output(options).await;
        self.facts.usage.touch();
        output
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        let deadline = Deadline::new(command.timeout.or(self.blueprint.spec.command_timeout));
        let process = self.start(command, deadline, Operation::Spawn).await?;
        Ok(match self.facts.handle.upgrade() {
            Some(sandbox) => process.keep_alive(sandbox),
            None => process,
        })
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        self.check_open(Operation::WriteFiles)?;
        let workdir = self.facts.settings().workdir;
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
        let path = self.resolve(path, Operation::Remove)?;
        self.remove_at(path, options).await
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        let path = self.resolve(path, Operation::CreateDir)?;
        self.create_dir_at(path, options).await
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        let from = self.resolve(from, Operation::Rename)?;
        let to = self.resolve(to, Operation::Rename)?;
        self.rename_at(from, to, options).await
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        let to = self.resolve(to, Operation::ImportDir)?;
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
        let path = self.resolve(path, Operation::SetWorkdir)?;
        self.check_dir_at(path.clone()).await?;
        let workdir = move |settings: &mut Settings| settings.workdir = path;
        self.change(Operation::SetWorkdir, workdir).await
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        changes
            .validate(Operation::SetEnv)
            .map_err(|error| self.named(error))?;
        let _running = self.running(Operation::SetEnv).await?;
        let apply = move |settings: &mut Settings| changes.apply_to(&mut settings.env);
        self.change(Operation::SetEnv, apply).await
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        let (id, settings, running) = self.fork_running().await?;
        let origin = Origin {
            host: self.host.clone(),
            open: self.open.clone(),
            blueprint: self.blueprint.clone(),
            settings,
            parent: Some(self.id.clone()),
            labels: options.labels,
            kept: None,
            restarted: false,
        };
        Ok(Self::open(origin, id, running))
    }

    async fn snapshot(&self, options: SnapshotOptions) -> Result<Snapshot> {
        const OP: Operation = Operation::Snapshot;
        let settings = self.facts.settings();
        let stack = self.frozen_layers().await?;
        let cancel = Cancel::default();
        let _stop = cancel.on_drop();
        let (host, blueprint) = (self.host.clone(), self.blueprint.clone());
        // The stack keeps its layers, whatever becomes of the sandbox meanwhile.
        let taken = blocking(OP, move || {
            let snapshots = &host.snapshots;
            snapshots.take(
                &host,
                &blueprint,
                &stack,
                &settings,
                options.labels,
                &cancel,
            )
        });
        taken.await.map_err(|error| self.named(error))
    }

    async fn start_job(&self, key: &JobKey, command: Command, options: JobOptions) -> Result<Job> {
        const OP: Operation = Operation::StartJob;
        self.check_open(OP)?;
        runtime::require(OP).map_err(|error| self.named(error))?;
        let (id, facts) = (self.id.clone(), Arc::downgrade(&self.facts));
        let default = self.blueprint.spec.command_timeout;
        // Only for the start: a job does not keep its sandbox, which would never end then.
        let spawn = move |command: Command| async move {
            let sandbox = facts.upgrade().and_then(|facts| facts.handle.upgrade());
            let Some(sandbox) = sandbox else {
                return Err(Error::closed(OP, &id).with_execution(Execution::NotStarted));
            };
            let deadline = Deadline::new(command.timeout.or(default));
            sandbox.start(command, deadline, OP).await
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

    async fn connect_port(&self, port: u16) -> Result<PortStream> {
        self.connect(port).await
    }

    async fn open_read(&self, path: &GuestPath, options: OpenReadOptions) -> Result<FileReader> {
        self.reader(path, options).await
    }

    async fn open_write(&self, path: &GuestPath, options: OpenWriteOptions) -> Result<FileWriter> {
        self.writer(path, options).await
    }

    async fn changes(&self, path: &GuestPath, options: ChangesOptions) -> Result<Changes> {
        self.changes_of(path, &options).await
    }

    async fn usage(&self) -> Result<Usage> {
        self.usage_now().await
    }

    async fn watch(&self, path: &GuestPath, options: WatchOptions) -> Result<FileWatch> {
        self.watch_tree(path, options).await
    }

    async fn pause(&self) -> Result<()> {
        self.pause_now().await
    }

    async fn resume(&self) -> Result<()> {
        self.resume_now().await
    }

    async fn egress_decisions(&self, after: u64) -> Result<EgressDecisions> {
        const OP: Operation = Operation::EgressDecisions;
        self.check_open(OP)?;
        match &self.egress {
            Some(egress) => Ok(egress.decisions(after)),
            None => Err(self.named(egress::none(OP))),
        }
    }

    async fn restrict_egress(&self, policy: EgressPolicy) -> Result<()> {
        const OP: Operation = Operation::RestrictEgress;
        self.check_open(OP)?;
        let Some(egress) = &self.egress else {
            return Err(self.named(egress::none(OP)));
        };
        let kept = self.kept.clone().map(|kept| (kept, policy.clone()));
        egress
            .restrict(policy, OP)
            .map_err(|error| self.named(error))?;
        let Some((kept, policy)) = kept else {
            return Ok(());
        };
        // It is in force already; without this it would end with the process.
        let written = blocking(OP, move || kept.restrict(policy, OP));
        written.await.map_err(|error| self.named(error))
    }

    async fn close(&self) -> Result<()> {
        const OP: Operation = Operation::Close;
        self.ended.close();
        self.open.remove(&self.id);
        // First, and whatever is under way: what holds the run comes to its end by that.
        let killer = self.kill_switch.press();
        // Before the first wait, so that a close whose future is dropped ends it all the same.
        if let Some(kept) = &self.kept {
            kept.forget().map_err(|error| {
                self.named(Error::from_io(error, OP)).with_message(
                    "everything in the lasting sandbox was killed, but its record can't be removed",
                )
            })?;
        }
        runtime::require(OP).map_err(|error| self.named(error))?;
        let running = self.running.clone();
        let before = self.host.state.mark();
        // In a task: what it frees is freed even if the future is dropped or loses patience.
        let freeing = tokio::spawn(async move {
            let running = running.write().await.take();
            if let Some(running) = running {
                running.shut_down().await;
            }
        });
        if let Some(killer) = killer
            && !killer.shut_down().await
        {
            return Err(self
                .named(Error::new(ErrorKind::Other, OP))
                .with_message(
                    "everything in the sandbox was killed, but has not ended within five seconds: \
                     a process of it waits in the kernel",
                )
                .with_hint("call close again to wait on")
                .with_retryable(true));
        }
        // The guest is dead. An operation that goes on without it, such as the copying of a fork,
        // frees the files when it ends.
        let Ok(freed) = tokio::time::timeout(TURN, freeing).await else {
            return Ok(());
        };
        freed.map_err(|error| {
            self.named(Error::new(ErrorKind::Other, OP))
                .with_message("the sandbox was closed, but not everything was freed")
                .with_source(error)
        })?;
        // Bounded: what is not removed by then is removed later.
        let _ = tokio::time::timeout(GRACE, Layer::settled(&self.host.state, before)).await;
        Ok(())
    }
}
