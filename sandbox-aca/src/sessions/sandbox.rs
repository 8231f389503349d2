//! A dynamic session as a [`Sandbox`].
//!
//! It must never answer for a session that is another one than it was.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    Capabilities, Capability, Command, CreateDirOptions, DirEntry, Env, Error, ErrorKind,
    ExportOptions, FileBatch, ForkOptions, GuestPath, ImportOptions, IsolationReport, ListOptions,
    Metadata, Operation, Output, Process, Ran, ReadOptions, RemoveOptions, RenameOptions, Result,
    Sandbox, SandboxInfo, Snapshot, SnapshotOptions, TransferReport,
};
use tokio::sync::OnceCell;

use super::capability::{CLOSED, OPEN, report};
use super::client::Session;
use super::provider::Registry;
use crate::guest::handle::Inner;

/// How long commands may take to tell what they had written when the sandbox is closed.
const LAST_WORDS: Duration = Duration::from_secs(8);

/// A sandbox that is a dynamic session; made by
/// [`create_session`](crate::AcaSessionProvider::create_session).
#[derive(Debug)]
pub struct AcaSession {
    pub(super) inner: Arc<Inner<Session>>,
    pub(super) registry: Arc<Registry>,
    /// What came of closing, told to everybody who closes.
    closed: Arc<OnceCell<std::result::Result<(), String>>>,
}

impl AcaSession {
    pub(super) fn new(inner: Inner<Session>, registry: Arc<Registry>) -> Self {
        Self {
            inner: Arc::new(inner),
            registry,
            closed: Arc::default(),
        }
    }

    /// Everything that closing does, to its end.
    async fn end(inner: Arc<Inner<Session>>, registry: Arc<Registry>) -> Result<()> {
        let running = inner.kept().running.clone();
        if !running.is_empty() {
            let silent = async {
                inner.cancel(&running).await;
                while !inner.kept().running.is_empty() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            // Who has not told by then tells no more: with the session all of them end.
            let _ = tokio::time::timeout(LAST_WORDS, silent).await;
        }
        inner.untouched().await;
        let session = &inner.http;
        let done = session.pool.delete(Operation::Close, &session.identifier);
        done.await.map_err(|failure| inner.named(failure.error))?;
        registry.forget(&inner.id);
        Ok(())
    }

    fn lacks(&self, capability: Capability, op: Operation) -> Error {
        let lacks = self.capabilities().require(capability, op).err();
        self.inner
            .named(lacks.unwrap_or_else(|| Error::unsupported(op, capability, "there is none")))
    }
}

#[async_trait]
impl Sandbox for AcaSession {
    fn info(&self) -> SandboxInfo {
        self.inner.kept().info.clone()
    }

    fn capabilities(&self) -> Capabilities {
        match self.registry.egress {
            true => OPEN,
            false => CLOSED,
        }
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        const OP: Operation = Operation::Isolation;
        self.inner.open(OP)?;
        // Whether it is still there is asked all the same.
        let (minute, session) = (Duration::from_secs(60), &self.inner.http);
        let there = session.line(OP, ":", true, minute).await;
        there.map_err(|failure| self.inner.failed(failure))?;
        Ok(report(self.registry.egress))
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        Arc::clone(&self.inner).exec(command).await
    }

    async fn spawn(&self, _: Command) -> Result<Process> {
        const OP: Operation = Operation::Spawn;
        let error = match self.inner.open(OP) {
            Err(closed) => closed,
            Ok(()) => self.lacks(Capability::Spawn, OP),
        };
        Err(error.with_ran(Ran::NotStarted))
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        Arc::clone(&self.inner).write_files(batch).await
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        self.inner.read_file(path, options).await
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        self.inner.list_dir(path, options).await
    }

    async fn metadata(&self, path: &GuestPath) -> Result<Metadata> {
        self.inner.metadata(path).await
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        self.inner.remove(path, options).await
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        self.inner.create_dir(path, options).await
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        self.inner.rename(from, to, options).await
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        Arc::clone(&self.inner).import_dir(from, to, options).await
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        Arc::clone(&self.inner).export_dir(from, to, options).await
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        self.inner.set_workdir(path).await
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        const OP: Operation = Operation::SetEnv;
        self.inner.open(OP)?;
        changes
            .validate(OP)
            .map_err(|error| self.inner.named(error))?;
        let mut kept = self.inner.kept();
        for (name, value) in changes.iter() {
            kept.env
                .insert(name.to_vec(), value.map(|value| value.value.clone()));
        }
        Ok(())
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        Ok(self.copied(options.labels).await?)
    }

    async fn snapshot(&self, _: SnapshotOptions) -> Result<Snapshot> {
        const OP: Operation = Operation::Snapshot;
        self.inner.open(OP)?;
        Err(self.lacks(Capability::Snapshot, OP))
    }

    async fn close(&self) -> Result<()> {
        self.inner.closing.store(true, Ordering::Release);
        let (inner, closed) = (Arc::clone(&self.inner), Arc::clone(&self.closed));
        let registry = Arc::clone(&self.registry);
        // On a task of its own: closing goes on whoever waits for it.
        let ending = tokio::spawn(async move {
            let end = || async {
                let ended = Self::end(inner, registry).await;
                ended.map_err(|error| error.to_string())
            };
            closed.get_or_init(end).await.clone()
        });
        let failed = match ending.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(error) => error.to_string(),
        };
        let error = Error::new(ErrorKind::Other, Operation::Close)
            .with_message(format!("the service may still have the session: {failed}"))
            .with_hint("the pool's cooldown ends it");
        Err(self.inner.named(error))
    }
}
