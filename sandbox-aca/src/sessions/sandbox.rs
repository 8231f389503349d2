//! A dynamic session as a [`Sandbox`].
//!
//! It must never answer for a session that is another one than it was.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    Capabilities, Capability, Command, CreateDirOptions, DirEntry, Env, Error, Execution,
    ExportOptions, FileBatch, ForkOptions, GuestPath, ImportOptions, IsolationReport, ListOptions,
    Metadata, MetadataOptions, Operation, Output, Process, ReadOptions, RemoveOptions,
    RenameOptions, Result, Sandbox, SandboxInfo, Snapshot, SnapshotOptions, TransferReport,
};

use super::capability::{CLOSED, OPEN, report};
use super::client::Session;
use super::shared::Shared;
use crate::guest::handle::Guest;

/// A sandbox that is a dynamic session; made by
/// [`create_session`](crate::AcaSessionProvider::create_session).
#[derive(Debug)]
pub struct AcaSession {
    pub(super) guest: Arc<Guest<Session>>,
    pub(super) shared: Arc<Shared>,
}

impl AcaSession {
    pub(super) fn new(guest: Arc<Guest<Session>>, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { guest, shared })
    }

    fn lacks(&self, capability: Capability, op: Operation) -> Error {
        let lacks = self.capabilities().require(capability, op).err();
        self.guest
            .named(lacks.unwrap_or_else(|| Error::unsupported(op, capability, "there is none")))
    }
}

#[async_trait]
impl Sandbox for AcaSession {
    fn info(&self) -> SandboxInfo {
        self.guest.state().info.clone()
    }

    fn capabilities(&self) -> Capabilities {
        match self.shared.egress {
            true => OPEN,
            false => CLOSED,
        }
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        const OP: Operation = Operation::Isolation;
        self.guest.open(OP)?;
        // Whether it is still there is asked all the same.
        let (minute, session) = (Duration::from_secs(60), &self.guest.transport);
        let there = session.line(OP, ":", true, minute).await;
        there.map_err(|failure| self.guest.failed(failure))?;
        Ok(report(self.shared.egress))
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        Arc::clone(&self.guest).exec(command).await
    }

    async fn spawn(&self, _: Command) -> Result<Process> {
        const OP: Operation = Operation::Spawn;
        let error = match self.guest.open(OP) {
            Err(closed) => closed,
            Ok(()) => self.lacks(Capability::Spawn, OP),
        };
        Err(error.with_execution(Execution::NotStarted))
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        Arc::clone(&self.guest).write_files(batch).await
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        self.guest.read_file(path, options).await
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        self.guest.list_dir(path, options).await
    }

    async fn metadata(&self, path: &GuestPath, options: MetadataOptions) -> Result<Metadata> {
        self.guest.metadata(path, options).await
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        self.guest.remove(path, options).await
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        self.guest.create_dir(path, options).await
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        self.guest.rename(from, to, options).await
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        Arc::clone(&self.guest).import_dir(from, to, options).await
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        Arc::clone(&self.guest).export_dir(from, to, options).await
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        self.guest.set_workdir(path).await
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        const OP: Operation = Operation::SetEnv;
        self.guest.open(OP)?;
        changes
            .validate(OP)
            .map_err(|error| self.guest.named(error))?;
        let mut state = self.guest.state();
        for (name, value) in changes.iter() {
            state
                .env
                .insert(name.to_vec(), value.map(|value| value.value.clone()));
        }
        Ok(())
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        Ok(self.copied(options.labels).await?)
    }

    async fn snapshot(&self, _: SnapshotOptions) -> Result<Snapshot> {
        const OP: Operation = Operation::Snapshot;
        self.guest.open(OP)?;
        Err(self.lacks(Capability::Snapshot, OP))
    }

    async fn close(&self) -> Result<()> {
        self.shared.close(&self.guest).await
    }
}
