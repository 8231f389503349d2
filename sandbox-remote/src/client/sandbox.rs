//! A sandbox behind a server.
//!
//! Invariant: `Drop` never blocks; what it can't tell the server, the server's own times end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use sandbox_core::backend::require_time;
use sandbox_core::{
    Capabilities, Capability, Changes, ChangesOptions, CollectOptions, Command, CreateDirOptions,
    DirEntry, EgressDecisions, EgressPolicy, Env, Error, Execution, ExportOptions, FileBatch,
    FileReader, FileWatch, FileWriter, ForkOptions, GuestPath, ImportOptions, IsolationReport, Job,
    JobInfo, JobKey, JobOptions, ListOptions, Metadata, MetadataOptions, OpenReadOptions,
    OpenWriteOptions, Operation, Output, PortStream, Process, ReadOptions, RemoveOptions,
    RenameOptions, Result, Sandbox, SandboxInfo, Snapshot, SnapshotOptions, Stdin, TransferReport,
    Usage, WatchOptions,
};

use super::call::Call;
use super::http::Http;
use super::state::{SandboxState, close};
use super::{connection, job, process, transfer, watch};
use crate::wire;

/// Most bytes of one stream in the answer of `exec`; what is more is followed as a process.
const EXEC_OUTPUT: u64 = 16 << 20;

/// Most bytes of input in the request of `exec`; what is more is written while it runs.
const EXEC_INPUT: usize = 8 << 20;

/// A handle.
#[derive(Debug)]
pub(super) struct RemoteSandbox(Arc<SandboxState>);

impl RemoteSandbox {
    pub(super) fn new(http: &Arc<Http>, handle: wire::Handle, keep: bool) -> Self {
        Self(Arc::new(SandboxState::new(http, handle, keep)))
    }

    /// Runs a command as a process that is followed: its output may be of any length.
    async fn follow(&self, mut command: Command) -> Result<Output> {
        let options = CollectOptions::new()
            .stdout_limit(command.stdout_limit)
            .stderr_limit(command.stderr_limit)
            .sandbox(self.0.id.clone())
            .started(Instant::now());
        let options = match std::mem::take(&mut command.stdin) {
            Stdin::Bytes(bytes) => {
                command.stdin = Stdin::Piped;
                options.stdin(bytes)
            }
            stdin => {
                command.stdin = stdin;
                options
            }
        };
        let process = process::spawn(&self.0, command, Operation::Exec).await;
        let process = process.map_err(|error| error.with_operation(Operation::Exec));
        let ran = process?.wait_with_output(options).await;
        // It was done by way of other requests.
        ran.map_err(|error| error.with_operation(Operation::Exec))
    }
}

#[async_trait]
impl Sandbox for RemoteSandbox {
    fn info(&self) -> SandboxInfo {
        self.0.info().clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities.clone()
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        // Also of a backend without isolation, whose report says so.
        self.0.open(Operation::Isolation)?;
        let nothing = wire::Nothing {};
        self.0
            .read(Operation::Isolation, "isolation", &nothing)
            .await
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        const OP: Operation = Operation::Exec;
        self.0.open(OP)?;
        command.validate(OP).map_err(|error| self.0.named(error))?;
        let large = command.stdout_limit > EXEC_OUTPUT
            || command.stderr_limit > EXEC_OUTPUT
            || matches!(&command.stdin, Stdin::Bytes(bytes) if bytes.len() > EXEC_INPUT);
        if large && self.0.capabilities.has(Capability::Spawn) {
            return self.follow(command).await;
        }
        let output: wire::WireOutput = self.0.change(OP, "exec", &wire::Run::from(command)).await?;
        Ok(output.into())
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        const OP: Operation = Operation::Spawn;
        self.0.open(OP)?;
        self.0
            .require(Capability::Spawn, OP)
            .map_err(|error| error.with_execution(Execution::NotStarted))?;
        if command.terminal.is_some() {
            let required = self.0.require(Capability::Terminal, OP);
            required.map_err(|error| error.with_execution(Execution::NotStarted))?;
        }
        process::spawn(&self.0, command, OP).await
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        const OP: Operation = Operation::WriteFiles;
        self.0.open(OP)?;
        let workdir = self.info().workdir;
        batch
            .resolve(&workdir)
            .map_err(|error| self.0.named(error))?;
        let files = wire::files(&batch);
        let write = wire::WriteFiles { files };
        let wire::Nothing {} = self.0.change(OP, "write-files", &write).await?;
        Ok(())
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        const OP: Operation = Operation::ReadFile;
        self.0.open(OP)?;
        let body = wire::ReadFile {
            path: path.clone(),
            options,
        };
        let call = Call::read(OP, Method::POST, &self.0.path("read-file")).json(&body)?;
        let sent = self.0.http.send(call).await;
        sent.map_err(|error| self.0.named_at(path, error))
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        let body = wire::ListDir {
            path: path.clone(),
            options,
        };
        let listed: wire::Entries = self.0.read(Operation::ListDir, "list-dir", &body).await?;
        Ok(listed.entries.into_iter().map(DirEntry::from).collect())
    }

    async fn metadata(&self, path: &GuestPath, options: MetadataOptions) -> Result<Metadata> {
        let body = wire::Describe {
            path: path.clone(),
            options,
        };
        let metadata: wire::WireMetadata =
            self.0.read(Operation::Metadata, "metadata", &body).await?;
        Ok(metadata.into())
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        let body = wire::Remove {
            path: path.clone(),
            options,
        };
        let wire::Nothing {} = self.0.change(Operation::Remove, "remove", &body).await?;
        Ok(())
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        let body = wire::CreateDir {
            path: path.clone(),
            options,
        };
        let wire::Nothing {} = self
            .0
            .change(Operation::CreateDir, "create-dir", &body)
            .await?;
        Ok(())
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        let body = wire::Rename {
            from: from.clone(),
            to: to.clone(),
            options,
        };
        let wire::Nothing {} = self.0.change(Operation::Rename, "rename", &body).await?;
        Ok(())
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        const OP: Operation = Operation::ImportDir;
        self.0.open(OP)?;
        let imported = transfer::import(&self.0, from, to, options).await;
        imported.map_err(|error| self.0.named_at(to, error))
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        const OP: Operation = Operation::ExportDir;
        self.0.open(OP)?;
        let exported = transfer::export(&self.0, from, to, options).await;
        exported.map_err(|error| self.0.named_at(from, error))
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        let body = wire::Path { path: path.clone() };
        let handle: wire::Handle = self
            .0
            .change(Operation::SetWorkdir, "set-workdir", &body)
            .await?;
        *self.0.info() = handle.info;
        Ok(())
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        let body = wire::SetEnv {
            env: wire::variables(&changes),
        };
        let wire::Nothing {} = self.0.change(Operation::SetEnv, "set-env", &body).await?;
        Ok(())
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        self.0.open(Operation::Fork)?;
        self.0.require(Capability::Fork, Operation::Fork)?;
        let body = wire::Fork { options };
        let handle: wire::Handle = self.0.change(Operation::Fork, "fork", &body).await?;
        let keep = self.0.http.keeps();
        Ok(Arc::new(Self::new(&self.0.http, handle, keep)))
    }

    async fn snapshot(&self, options: SnapshotOptions) -> Result<Snapshot> {
        self.0.open(Operation::Snapshot)?;
        self.0.require(Capability::Snapshot, Operation::Snapshot)?;
        let body = wire::TakeSnapshot { options };
        self.0.change(Operation::Snapshot, "snapshot", &body).await
    }

    async fn changes(&self, path: &GuestPath, options: ChangesOptions) -> Result<Changes> {
        const OP: Operation = Operation::Changes;
        self.0.open(OP)?;
        self.0.require(Capability::Changes, OP)?;
        let body = wire::Differ {
            path: path.clone(),
            options,
        };
        let changes: wire::WireChanges = self.0.read(OP, "changes", &body).await?;
        Ok(changes.into())
    }

    async fn usage(&self) -> Result<Usage> {
        self.0.open(Operation::Usage)?;
        self.0.require(Capability::Usage, Operation::Usage)?;
        let nothing = wire::Nothing {};
        self.0.read(Operation::Usage, "usage", &nothing).await
    }

    async fn pause(&self) -> Result<()> {
        self.0.open(Operation::Pause)?;
        self.0.require(Capability::Pause, Operation::Pause)?;
        let nothing = wire::Nothing {};
        let wire::Nothing {} = self.0.change(Operation::Pause, "pause", &nothing).await?;
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        self.0.open(Operation::Resume)?;
        self.0.require(Capability::Pause, Operation::Resume)?;
        let nothing = wire::Nothing {};
        let wire::Nothing {} = self.0.change(Operation::Resume, "resume", &nothing).await?;
        Ok(())
    }

    async fn start_job(&self, key: &JobKey, command: Command, options: JobOptions) -> Result<Job> {
        const OP: Operation = Operation::StartJob;
        self.0.open(OP)?;
        let not_started = |error: Error| error.with_execution(Execution::NotStarted);
        self.0.require(Capability::Jobs, OP).map_err(not_started)?;
        if command.terminal.is_some() {
            let required = self.0.require(Capability::Terminal, OP);
            required.map_err(not_started)?;
        }
        job::start(&self.0, key, command, options).await
    }

    async fn find_job(&self, key: &JobKey) -> Result<Job> {
        self.0.open(Operation::FindJob)?;
        self.0.require(Capability::Jobs, Operation::FindJob)?;
        job::find(&self.0, key).await
    }

    async fn list_jobs(&self) -> Result<Vec<JobInfo>> {
        self.0.open(Operation::ListJobs)?;
        self.0.require(Capability::Jobs, Operation::ListJobs)?;
        let nothing = wire::Nothing {};
        let listed: wire::Jobs = self
            .0
            .read(Operation::ListJobs, "list-jobs", &nothing)
            .await?;
        Ok(listed.jobs)
    }

    async fn connect_port(&self, port: u16) -> Result<PortStream> {
        self.0.open(Operation::ConnectPort)?;
        self.0.require(Capability::Ports, Operation::ConnectPort)?;
        connection::connect_port(&self.0, port).await
    }

    async fn open_read(&self, path: &GuestPath, options: OpenReadOptions) -> Result<FileReader> {
        self.0.open(Operation::OpenRead)?;
        self.0
            .require(Capability::FileStreams, Operation::OpenRead)?;
        let opened = connection::open_read(&self.0, path, options).await;
        opened.map_err(|error| self.0.named_at(path, error))
    }

    async fn open_write(&self, path: &GuestPath, options: OpenWriteOptions) -> Result<FileWriter> {
        self.0.open(Operation::OpenWrite)?;
        self.0
            .require(Capability::FileStreams, Operation::OpenWrite)?;
        let opened = connection::open_write(&self.0, path, options).await;
        opened.map_err(|error| self.0.named_at(path, error))
    }

    async fn watch(&self, path: &GuestPath, options: WatchOptions) -> Result<FileWatch> {
        self.0.open(Operation::Watch)?;
        self.0.require(Capability::Watch, Operation::Watch)?;
        let watched = watch::watch(&self.0, path, options).await;
        watched.map_err(|error| self.0.named_at(path, error))
    }

    async fn egress_decisions(&self, after: u64) -> Result<EgressDecisions> {
        const OP: Operation = Operation::EgressDecisions;
        self.0.open(OP)?;
        self.0.require(Capability::EgressByName, OP)?;
        let body = wire::After { after };
        self.0.read(OP, "egress-decisions", &body).await
    }

    async fn restrict_egress(&self, policy: EgressPolicy) -> Result<()> {
        const OP: Operation = Operation::RestrictEgress;
        self.0.open(OP)?;
        self.0.require(Capability::EgressByName, OP)?;
        if policy.has_credentials() {
            self.0.require(Capability::EgressCredentials, OP)?;
        }
        let body = wire::Policy { policy };
        let wire::Nothing {} = self.0.change(OP, "restrict-egress", &body).await?;
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        require_time(Operation::Close)?;
        if self.0.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let (http, id) = (Arc::clone(&self.0.http), self.0.id.clone());
        // A task of its own: dropping this future does not stop the closing.
        let closing = tokio::spawn(async move { close(&http, &id).await });
        let closed = closing.await.unwrap_or_else(|error| {
            let error = Error::from_io(std::io::Error::other(error), Operation::Close);
            Err(error)
        });
        match closed {
            // Closed by another handle, or with the server.
            Err(error)
                if matches!(
                    error.kind(),
                    sandbox_core::ErrorKind::Closed | sandbox_core::ErrorKind::Lost
                ) =>
            {
                Ok(())
            }
            closed => closed.map_err(|error| self.0.named(error)),
        }
    }
}
