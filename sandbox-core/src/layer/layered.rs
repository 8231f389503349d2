//! A sandbox with one layer around it.
//!
//! It must never answer for the sandbox below, except where the layer says so.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Answer, Around, Attempt, Call, Request};
use crate::{
    Capabilities, Changes, ChangesOptions, Command, CreateDirOptions, DirEntry, EgressDecisions,
    EgressPolicy, Env, ExportOptions, FileBatch, FileReader, FileWatch, FileWriter, ForkOptions,
    GuestPath, ImportOptions, IsolationReport, Job, JobInfo, JobKey, JobOptions, ListOptions,
    Metadata, MetadataOptions, OpenReadOptions, OpenWriteOptions, Output, PortStream, Process,
    ReadOptions, RemoveOptions, RenameOptions, Result, Sandbox, SandboxInfo, Snapshot,
    SnapshotOptions, TransferReport, Usage, WatchOptions,
};

/// A sandbox with an [`Around`] layer.
#[derive(Debug)]
pub(super) struct Layered<A> {
    around: A,
    inner: Arc<dyn Sandbox>,
}

impl<A: Around> Layered<A> {
    pub(super) fn new(around: A, inner: Arc<dyn Sandbox>) -> Self {
        Self { around, inner }
    }

    async fn call<T: Answer>(&self, request: Request<'_>, attempt: Attempt<'_, T>) -> Result<T> {
        let call = Call::on_sandbox(&*self.inner, request);
        self.around.around(call, attempt).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<A: Around> Sandbox for Layered<A> {
    fn info(&self) -> SandboxInfo {
        self.inner.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        self.call(Request::Isolation, &|| self.inner.isolation())
            .await
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        let command = self.around.command(&*self.inner, command);
        let call = Call::on_sandbox(&*self.inner, Request::Exec(&command));
        self.around
            .around(call, &|| self.inner.exec(command.clone()))
            .await
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        let command = self.around.command(&*self.inner, command);
        let call = Call::on_sandbox(&*self.inner, Request::Spawn(&command));
        let process = self
            .around
            .around(call, &|| self.inner.spawn(command.clone()))
            .await?;
        Ok(self.around.process(call, process))
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        self.call(Request::WriteFiles(&batch), &|| {
            self.inner.write_files(batch.clone())
        })
        .await
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        self.call(Request::ReadFile(path, &options), &|| {
            self.inner.read_file(path, options.clone())
        })
        .await
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        self.call(Request::ListDir(path, &options), &|| {
            self.inner.list_dir(path, options.clone())
        })
        .await
    }

    async fn metadata(&self, path: &GuestPath, options: MetadataOptions) -> Result<Metadata> {
        self.call(Request::Metadata(path, &options), &|| {
            self.inner.metadata(path, options.clone())
        })
        .await
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        self.call(Request::Remove(path, &options), &|| {
            self.inner.remove(path, options.clone())
        })
        .await
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        self.call(Request::CreateDir(path, &options), &|| {
            self.inner.create_dir(path, options.clone())
        })
        .await
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        self.call(Request::Rename(from, to, &options), &|| {
            self.inner.rename(from, to, options.clone())
        })
        .await
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        self.call(Request::ImportDir(from, to, &options), &|| {
            self.inner.import_dir(from, to, options.clone())
        })
        .await
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        self.call(Request::ExportDir(from, to, &options), &|| {
            self.inner.export_dir(from, to, options.clone())
        })
        .await
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        self.call(Request::SetWorkdir(path), &|| self.inner.set_workdir(path))
            .await
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        self.call(Request::SetEnv(&changes), &|| {
            self.inner.set_env(changes.clone())
        })
        .await
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        let child = self
            .call(Request::Fork(&options), &|| {
                self.inner.fork(options.clone())
            })
            .await?;
        Ok(Arc::new(Self::new(self.around.clone(), child)))
    }

    async fn snapshot(&self, options: SnapshotOptions) -> Result<Snapshot> {
        self.call(Request::Snapshot(&options), &|| {
            self.inner.snapshot(options.clone())
        })
        .await
    }

    async fn egress_decisions(&self, after: u64) -> Result<EgressDecisions> {
        self.call(Request::EgressDecisions(after), &|| {
            self.inner.egress_decisions(after)
        })
        .await
    }

    async fn restrict_egress(&self, policy: EgressPolicy) -> Result<()> {
        self.call(Request::RestrictEgress(&policy), &|| {
            self.inner.restrict_egress(policy.clone())
        })
        .await
    }

    async fn start_job(&self, key: &JobKey, command: Command, options: JobOptions) -> Result<Job> {
        let command = self.around.command(&*self.inner, command);
        self.call(Request::StartJob(key, &command, &options), &|| {
            self.inner.start_job(key, command.clone(), options.clone())
        })
        .await
    }

    async fn find_job(&self, key: &JobKey) -> Result<Job> {
        self.call(Request::FindJob(key), &|| self.inner.find_job(key))
            .await
    }

    async fn list_jobs(&self) -> Result<Vec<JobInfo>> {
        self.call(Request::ListJobs, &|| self.inner.list_jobs())
            .await
    }

    async fn connect_port(&self, port: u16) -> Result<PortStream> {
        self.call(Request::ConnectPort(port), &|| {
            self.inner.connect_port(port)
        })
        .await
    }

    async fn open_read(&self, path: &GuestPath, options: OpenReadOptions) -> Result<FileReader> {
        self.call(Request::OpenRead(path, &options), &|| {
            self.inner.open_read(path, options.clone())
        })
        .await
    }

    async fn open_write(&self, path: &GuestPath, options: OpenWriteOptions) -> Result<FileWriter> {
        self.call(Request::OpenWrite(path, &options), &|| {
            self.inner.open_write(path, options.clone())
        })
        .await
    }

    async fn changes(&self, path: &GuestPath, options: ChangesOptions) -> Result<Changes> {
        self.call(Request::Changes(path, &options), &|| {
            self.inner.changes(path, options.clone())
        })
        .await
    }

    async fn usage(&self) -> Result<Usage> {
        self.call(Request::Usage, &|| self.inner.usage()).await
    }

    async fn watch(&self, path: &GuestPath, options: WatchOptions) -> Result<FileWatch> {
        self.call(Request::Watch(path, &options), &|| {
            self.inner.watch(path, options.clone())
        })
        .await
    }

    async fn pause(&self) -> Result<()> {
        self.call(Request::Pause, &|| self.inner.pause()).await
    }

    async fn resume(&self) -> Result<()> {
        self.call(Request::Resume, &|| self.inner.resume()).await
    }

    async fn close(&self) -> Result<()> {
        self.call(Request::Close, &|| self.inner.close()).await
    }
}
