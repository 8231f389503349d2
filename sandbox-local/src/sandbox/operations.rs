//! The trait's methods, over a live run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sandbox_core::{
    Capabilities, Capability, CollectOptions, Command, CreateDirOptions, DirEntry, Env, Error,
    ErrorKind, ExportOptions, FileBatch, ForkOptions, GuestPath, ImportOptions, IsolationReport,
    ListOptions, Metadata, Operation, Output, Process, ReadOptions, RemoveOptions, RenameOptions,
    Result, Sandbox, SandboxInfo, Snapshot, SnapshotOptions, Stdin, TransferReport,
};

use super::{Identification, LocalSandbox};
use crate::files::CancelFlag;
use crate::isolation;
use crate::layers::Layer;
use crate::provider::CAPABILITIES;

/// How long `close` waits for file operations that are under way, and for what it removes.
const GRACE: Duration = Duration::from_secs(5);

/// Stops a transfer when the future that waits for it is dropped.
struct CancelOnDrop(CancelFlag);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[async_trait]
impl Sandbox for LocalSandbox {
    fn info(&self) -> SandboxInfo {
        let workdir = self.settings().workdir;
        let mut info = SandboxInfo::new(self.id.clone(), "local", workdir)
            .labels(self.labels.clone())
            .command_timeout(self.blueprint.spec.command_timeout);
        info.parent = self.parent.clone();
        info.created = self.created;
        info
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn isolation(&self) -> Result<IsolationReport> {
        const OP: Operation = Operation::Isolation;
        self.check_open(OP)?;
        // Not through `live`: asking is no use, and must not keep an idle sandbox from expiring.
        let live = self.run(OP).await?;
        isolation::report(&live, &self.blueprint)
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::Lost => self.lost(OP),
                _ => self.tell(error),
            })
    }

    async fn exec(&self, command: Command) -> Result<Output> {
        let mut options = CollectOptions::default();
        options.timeout = command.timeout.or(self.blueprint.spec.command_timeout);
        options.stdout_limit = command.stdout_limit;
        options.stderr_limit = command.stderr_limit;
        options.sandbox = Some(self.id.clone());
        if let Stdin::Bytes(bytes) = &command.stdin {
            options.stdin = bytes.clone();
        }
        let process = self.start(command, Operation::Exec).await?;
        let output = process.wait_with_output(options).await;
        self.touch();
        output
    }

    async fn spawn(&self, mut command: Command) -> Result<Process> {
        command.timeout = command.timeout.or(self.blueprint.spec.command_timeout);
        self.start(command, Operation::Spawn).await
    }

    async fn write_files(&self, batch: FileBatch) -> Result<()> {
        self.check_open(Operation::WriteFiles)?;
        let workdir = self.settings().workdir;
        self.files(Operation::WriteFiles, move |root| {
            root.write(&batch.resolve(&workdir)?)
        })
        .await
    }

    async fn read_file(&self, path: &GuestPath, options: ReadOptions) -> Result<Bytes> {
        let path = self.resolve(path, Operation::ReadFile)?;
        self.files(Operation::ReadFile, move |root| root.read(&path, &options))
            .await
    }

    async fn list_dir(&self, path: &GuestPath, options: ListOptions) -> Result<Vec<DirEntry>> {
        let path = self.resolve(path, Operation::ListDir)?;
        self.files(Operation::ListDir, move |root| root.list(&path, &options))
            .await
    }

    async fn metadata(&self, path: &GuestPath) -> Result<Metadata> {
        let path = self.resolve(path, Operation::Metadata)?;
        self.files(Operation::Metadata, move |root| root.metadata(&path))
            .await
    }

    async fn remove(&self, path: &GuestPath, options: RemoveOptions) -> Result<()> {
        let path = self.resolve(path, Operation::Remove)?;
        self.files(Operation::Remove, move |root| root.remove(&path, &options))
            .await
    }

    async fn create_dir(&self, path: &GuestPath, options: CreateDirOptions) -> Result<()> {
        let path = self.resolve(path, Operation::CreateDir)?;
        self.files(Operation::CreateDir, move |root| {
            root.create_dir(&path, &options)
        })
        .await
    }

    async fn rename(&self, from: &GuestPath, to: &GuestPath, options: RenameOptions) -> Result<()> {
        let from = self.resolve(from, Operation::Rename)?;
        let to = self.resolve(to, Operation::Rename)?;
        self.files(Operation::Rename, move |root| {
            root.rename(&from, &to, &options)
        })
        .await
    }

    async fn import_dir(
        &self,
        from: &Path,
        to: &GuestPath,
        options: ImportOptions,
    ) -> Result<TransferReport> {
        let to = self.resolve(to, Operation::ImportDir)?;
        let from = from.to_owned();
        self.files(Operation::ImportDir, move |root| {
            root.import(&from, &to, &options)
        })
        .await
    }

    async fn export_dir(
        &self,
        from: &GuestPath,
        to: &Path,
        options: ExportOptions,
    ) -> Result<TransferReport> {
        let from = self.resolve(from, Operation::ExportDir)?;
        let to = to.to_owned();
        // Of this call alone: dropping its future stops it between two files.
        let cancel = CancelOnDrop(CancelFlag::default());
        let flag = cancel.0.clone();
        self.files(Operation::ExportDir, move |root| {
            root.export(&from, &to, &options, &flag)
        })
        .await
    }

    async fn set_workdir(&self, path: &GuestPath) -> Result<()> {
        let path = self.resolve(path, Operation::SetWorkdir)?;
        let checked = path.clone();
        self.files(Operation::SetWorkdir, move |root| {
            root.check_dir(&checked, Operation::SetWorkdir)
        })
        .await?;
        self.change(|settings| settings.workdir = path);
        Ok(())
    }

    async fn set_env(&self, changes: Env) -> Result<()> {
        changes
            .validate(Operation::SetEnv)
            .map_err(|error| self.tell(error))?;
        let _live = self.live(Operation::SetEnv).await?;
        self.change(|settings| changes.apply_to(&mut settings.env));
        Ok(())
    }

    async fn fork(&self, options: ForkOptions) -> Result<Arc<dyn Sandbox>> {
        let (id, live) = self.fork_live().await?;
        let who = Identification {
            parent: Some(self.id.clone()),
            labels: options.labels,
        };
        let settings = self.settings();
        Ok(Self::enter(
            self.shared.clone(),
            self.blueprint.clone(),
            id,
            who,
            settings,
            live,
        ))
    }

    async fn snapshot(&self, _options: SnapshotOptions) -> Result<Snapshot> {
        self.check_open(Operation::Snapshot)?;
        CAPABILITIES
            .require(Capability::Snapshot, Operation::Snapshot)
            .map_err(|error| self.tell(error))?;
        Err(self.tell(Error::new(ErrorKind::Unsupported, Operation::Snapshot)))
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        self.shared.leave(&self.id);
        let live = self.live.clone();
        let state = self.shared.state.clone();
        // In a task: neither dropping the future of `close` nor its patience stops the closing.
        let closing = tokio::spawn(async move {
            // Kill first: commands and operations that hold the lock then come to their end.
            if let Ok(live) = live.try_read()
                && let Some(live) = live.as_ref()
            {
                live.kill();
            }
            // Held to the end: whoever closes it as well returns when it is dead.
            let mut live = live.write().await;
            if let Some(live) = live.take() {
                live.shut_down().await;
            }
        });
        // Bounded: a fork that is under way may take its time, and the closing comes after it.
        let Ok(closed) = tokio::time::timeout(2 * GRACE, closing).await else {
            return Ok(());
        };
        closed.map_err(|error| {
            self.tell(Error::new(ErrorKind::Other, Operation::Close))
                .with_message("the sandbox was closed, but not everything was freed")
                .with_source(error)
        })?;
        // Bounded: what is not removed by then is removed later.
        let _ = tokio::time::timeout(GRACE, Layer::settled(&state)).await;
        Ok(())
    }
}
