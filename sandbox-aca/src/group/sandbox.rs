//! A sandbox of Azure Container Apps as a [`Sandbox`].
//!
//! It must never answer for a sandbox that the service no longer has.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    Capabilities, Command, CreateDirOptions, DirEntry, Env, Error, ErrorKind, ExportOptions,
    FileBatch, ForkOptions, GuestPath, ImportOptions, IsolationReport, Labels, ListOptions,
    Metadata, Operation, Output, Process, ReadOptions, RemoveOptions, RenameOptions, Result,
    Sandbox, SandboxInfo, Snapshot, SnapshotId, SnapshotOptions, TransferReport,
};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::group::capability::{CAPABILITIES, report};
use crate::group::leftover::{Leftover, Made};
use crate::group::manage::{EgressPolicy, Lifecycle};
use crate::group::registry::{Policies, Registry};
use crate::group::spec::check_labels;
use crate::guest::handle::{Inner, Kept};

/// How long commands may take to tell what they had written when the sandbox is closed.
const LAST_WORDS: Duration = Duration::from_secs(8);

/// A handle.
#[derive(Debug)]
pub(crate) struct AcaSandbox {
    pub(crate) inner: Arc<Inner>,
    pub(crate) registry: Arc<Registry>,
    /// What came of closing, told to everybody who closes.
    closed: Arc<OnceCell<std::result::Result<(), String>>>,
}

impl AcaSandbox {
    pub(crate) fn new(inner: Inner, registry: Arc<Registry>) -> Arc<Self> {
        let made = Arc::new(Self {
            inner: Arc::new(inner),
            registry,
            closed: Arc::default(),
        });
        made.registry.add(&made);
        made.inner.keep(made.registry.config.keep_alive);
        made
    }

    async fn snap(&self, op: Operation, labels: &Labels) -> Result<Snapshot> {
        self.inner.open(op)?;
        let marks = &self.registry.config.labels;
        check_labels(op, labels, marks).map_err(|error| self.inner.named(error))?;
        let mut labels = labels.clone();
        labels.extend(marks.clone());
        let _files = self.inner.files.lock().await;
        let taken = self
            .inner
            .http
            .snapshot(
                op,
                self.inner.id.as_str(),
                &labels,
                self.registry.config.snapshot_timeout,
            )
            .await;
        let taken = taken.map_err(|failure| self.inner.failed(failure))?;
        let mut snapshot = Snapshot::new(SnapshotId::new(taken["id"].as_str().unwrap_or_default()));
        snapshot.size = taken["sizeInMB"].as_u64().map(|size| size << 20);
        Ok(snapshot)
    }

    /// Everything that closing does, to its end.
    async fn end(inner: Arc<Inner>) -> Result<()> {
        let running = inner.kept().running.clone();
        if !running.is_empty() {
            inner.cancel(&running).await;
            let silent = async {
                while !inner.kept().running.is_empty() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            // Who has not told by then tells no more.
            let _ = tokio::time::timeout(LAST_WORDS, silent).await;
        }
        inner.untouched().await;
        let done = inner.http.delete(Operation::Close, inner.id.as_str()).await;
        done.map_err(|failure| inner.named(failure.error))
    }
}

#[async_trait]
impl Sandbox for AcaSandbox {
    fn info(&self) -> SandboxInfo {
        self.inner.kept().info.clone()
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        const OP: Operation = Operation::Isolation;
        self.inner.open(OP)?;
        let found = self.inner.http.get(OP, self.inner.id.as_str()).await;
        let found = found.map_err(|failure| self.inner.failed(failure))?;
        Ok(report(found["egressPolicy"]["defaultAction"] == "Deny"))
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        Arc::clone(&self.inner).exec(command).await
    }

    async fn spawn(&self, command: Command) -> Result<Process> {
        Arc::clone(&self.inner).spawn(command).await
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
        const OP: Operation = Operation::Fork;
        check_labels(OP, &options.labels, &self.registry.config.labels)
            .map_err(|error| self.inner.named(error))?;
        let snapshot = self.snap(OP, &Labels::new()).await?;
        // It goes whatever happens to who took it.
        let passing = Made::Snapshot(snapshot.id.as_str().to_owned());
        let _passing = Leftover::new(&self.inner.http, passing);
        // As they are now: whoever holds the service's own handle may have changed them.
        let found = self.inner.http.get(OP, self.inner.id.as_str()).await;
        let mut found = found.map_err(|failure| self.inner.failed(failure))?;
        let policies = Policies {
            restored: true,
            egress: match found["egressPolicy"].take() {
                Value::Null => EgressPolicy::allow().body(),
                egress => egress,
            },
            lifecycle: match found["lifecycle"].take() {
                Value::Null => Lifecycle::new(Some(self.registry.config.auto_delete)).body(),
                lifecycle => lifecycle,
            },
            // Open to others: nobody asked for that.
            ports: Vec::new(),
        };
        let kept = {
            let kept = self.inner.kept();
            let mut info = kept.info.clone().parent(self.inner.id.clone());
            info.labels = options.labels;
            Kept::new(info, kept.env.clone())
        };
        let made = self
            .registry
            .restore(OP, &snapshot.id, policies, kept)
            .await;
        let made = made.map_err(|error| self.inner.named(error))?;
        Ok(made)
    }

    async fn snapshot(&self, options: SnapshotOptions) -> Result<Snapshot> {
        self.snap(Operation::Snapshot, &options.labels).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.closing.store(true, Ordering::Release);
        let (inner, closed) = (Arc::clone(&self.inner), Arc::clone(&self.closed));
        // On a task of its own: closing goes on whoever waits for it.
        let ending = tokio::spawn(async move {
            let end = || async { Self::end(inner).await.map_err(|error| error.to_string()) };
            closed.get_or_init(end).await.clone()
        });
        let failed = match ending.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(error) => error.to_string(),
        };
        let error = Error::new(ErrorKind::Other, Operation::Close)
            .with_message(format!("the service may still have the sandbox: {failed}"));
        Err(self.inner.named(error))
    }
}

/// Open handles by identifier.
pub(crate) type Handles = Mutex<std::collections::BTreeMap<String, Weak<AcaSandbox>>>;

pub(crate) fn find(handles: &Handles, id: &str) -> Option<Arc<AcaSandbox>> {
    let mut handles = handles.lock().unwrap_or_else(PoisonError::into_inner);
    handles.retain(|_, handle| handle.strong_count() > 0);
    handles.get(id).and_then(Weak::upgrade)
}
